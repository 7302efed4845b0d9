"""A registry of images in a node, in plain HTTP, from which every other node may pull."""

from __future__ import annotations

from rig.command import wait_until
from rig.layout import STATE
from rig.node import Node

PORT = 5000
# containerd looks here for how a registry is reached
HOSTS = STATE / "certs.d"


def serve(node: Node) -> str:
    """Start it; its name, as in an image's, is returned."""
    name = f"{node.layout.address}:{PORT}"
    folder = node.folder / "registry"
    folder.mkdir(exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}\n"
        f"http:\n  addr: {name}\n"
    )
    hosts = HOSTS / name / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(
        f'server = "http://{name}"\n[host."http://{name}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    node.daemon("registry", "/usr/bin/docker-registry", "serve", config)
    wait_until("the registry", lambda: f":{PORT}" in node.exec("ss", "-Hltn"), 10)
    return name
