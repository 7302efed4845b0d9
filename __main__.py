"""The Pulumi program: declares the resources of the stack from its name and configuration."""

from infra import deploy

deploy()
