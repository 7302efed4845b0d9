"""An OpenSSH server in a node, and how a client reaches it."""

from __future__ import annotations

from rig.command import run, wait_until
from rig.layout import STATE
from rig.node import Node

PORT = 2222


def serve(node: Node) -> dict[str, str | int]:
    """Start sshd in a node; what a client needs is returned, as the key `ssh` has it."""
    folder = STATE / "ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in ("host", "client"):
        if not (folder / name).exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    public = (folder / "host.pub").read_text().split()[:2]
    known = folder / f"known-{node.name}"
    known.write_text(f"[{node.layout.address}]:{PORT} {' '.join(public)}\n")
    config = node.folder / "etc/sshd_config"
    config.write_text(
        f"Port {PORT}\nListenAddress {node.layout.address}\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'client.pub'}\nStrictModes no\nPidFile none\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n"
    )
    node.exec("mkdir", "-p", "/run/sshd")
    node.daemon("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", config)
    wait_until("sshd", lambda: f":{PORT}" in node.exec("ss", "-Hltn"), 10)
    return {
        "user": "root",
        "port": PORT,
        "identityFile": str(folder / "client"),
        "knownHostsFile": str(known),
    }
