"""The Pulumi program: declares the state that the stack's name and configuration say."""

from infra import deploy

deploy()
