"""The whole test cluster: up, down, and what tests ask of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rig import binaries, certificates, components, network, runtime
from rig.command import RigError, run, wait_until
from rig.layout import MACHINE_SYSCTLS, STATE, NodeLayout, nodes
from rig.node import Node

PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "ctr": "containerd",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "iptables-nft": "iptables",
    "ebtables": "ebtables",
    "conntrack": "conntrack",
    "socat": "socat",
    "/bin/busybox": "busybox-static",
    "openssl": "openssl",
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "/usr/bin/python3": "python3",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
}


def absent() -> list[str]:
    """The packages that are not installed."""
    return sorted({package for tool, package in PACKAGES.items() if shutil.which(tool) is None})


def lacking() -> list[str]:
    """Why no cluster can run here, packages apart; empty where one can."""
    reasons = []
    if os.geteuid() != 0:
        reasons.append("root is needed")
    cgroups = Path("/proc/self/cgroup").read_text() if Path("/proc/self/cgroup").exists() else ""
    if ":cpuset" not in cgroups or ":memory" not in cgroups:
        reasons.append("cgroup v1 hierarchies for cpuset and memory are needed")
    if binaries.go() is None:
        reasons.append("Go 1.24 or newer is needed to build Kubernetes")
    return reasons


class Cluster:
    """A running cluster; `up` makes one."""

    def __init__(self, layouts: list[NodeLayout]) -> None:
        self.nodes = {layout.name: Node(layout) for layout in layouts}
        self.binaries = binaries.built()
        self.kubeconfig = certificates.admin()

    @property
    def workers(self) -> list[Node]:
        return [node for name, node in self.nodes.items() if name != "master"]

    def kubectl(self, *words: str, text: str | None = None, timeout: float = 120) -> str:
        """Run kubectl as the administrator. Raises `RigError` with its words where it fails."""
        command = (self.binaries / "kubectl", "--kubeconfig", self.kubeconfig)
        return run(*command, *words, text=text, timeout=timeout)

    def load(self, *images: Path) -> None:
        """Import image archives on every worker."""
        for node in self.workers:
            for image in images:
                runtime.load(node, image)

    @contextmanager
    def api_away(self) -> Iterator[None]:
        """While the block runs, the API server answers nobody."""
        master = self.nodes["master"]
        master.signal("apiserver", signal.SIGSTOP)
        try:
            yield
        finally:
            master.signal("apiserver", signal.SIGCONT)


def up(workers: int = 3) -> Cluster:
    """Start a cluster; what a killed one has left is taken away first. Raises `RigError`."""
    reasons = lacking()
    if packages := absent():
        reasons.append(f"apt-get install {' '.join(packages)}")
    if reasons:
        raise RigError("; ".join(reasons))
    layouts = nodes(workers)
    cluster = Cluster(layouts)
    down()
    since = time.monotonic()
    (STATE / "nodes").mkdir(parents=True, mode=0o700)
    _note_machine(workers)
    try:
        _start(cluster)
    except BaseException:
        down()
        raise
    print(f"cluster: up in {time.monotonic() - since:.1f} s", file=sys.stderr)  # noqa: T201
    return cluster


def _start(cluster: Cluster) -> None:
    layouts = [node.layout for node in cluster.nodes.values()]
    certificates.make(layouts)
    runtime.prepare()
    network.lay(layouts)
    for node in cluster.nodes.values():
        node.start()
    master = cluster.nodes["master"]
    components.start_control_plane(master, cluster.binaries)
    for node in cluster.workers:
        runtime.start(node)
    wait_until("the API server", lambda: _works(cluster, "get", "--raw", "/readyz"), 60, 0.2)
    for node in cluster.workers:
        components.start_kubelet(node, cluster.binaries)
        components.start_proxy(node, cluster.binaries)
    for node in cluster.workers:
        wait_until(f"node {node.name}", lambda n=node: _works(cluster, "get", "node", n.name), 60)  # type: ignore[misc]
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=90s")
    wait_until(
        "the default account", lambda: _works(cluster, "get", "serviceaccount", "default"), 30
    )


def _works(cluster: Cluster, *words: str) -> bool:
    try:
        cluster.kubectl(*words)
    except RigError:
        return False
    return True


# The TCP congestion controls that processes without privileges may choose, of the whole machine.
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


def _note_machine(workers: int) -> None:
    """What `down` must put back: the machine's sysctls, and whether /run/netns was a mount."""
    core = Path("/proc/sys/net/core")
    files = [file for name in MACHINE_SYSCTLS if (file := core / name).exists()]
    sysctls = {str(file): file.read_text() for file in (*files, ALLOWED)}
    mounted = " /run/netns " in Path("/proc/mounts").read_text()
    note = {"workers": workers, "sysctls": sysctls, "netns_mounted": mounted}
    (STATE / "machine.json").write_text(json.dumps(note))
    allowed = sysctls[str(ALLOWED)].split()
    if "cubic" not in allowed:  # a kernel whose default is another one lets no pod choose it
        ALLOWED.write_text(" ".join([*allowed, "cubic"]))


def down() -> None:
    """Take away what `up` made, also where it was killed; nothing to do is no failure."""
    try:
        note = json.loads((STATE / "machine.json").read_text())
    except (FileNotFoundError, ValueError):
        shutil.rmtree(STATE, ignore_errors=True)
        return
    layouts = nodes(note["workers"])
    for layout in layouts:
        Node(layout).stop()
    network.take_away(layouts)
    if not note["netns_mounted"] and not list(Path("/run/netns").iterdir()):
        subprocess.run(["umount", "/run/netns"], check=False, stderr=subprocess.DEVNULL)
    for name, value in note["sysctls"].items():
        path = Path("/proc/sys/net/core", name)  # of an earlier version a name without its folder
        if path.read_text() != value:
            path.write_text(value)
    with suppress(FileNotFoundError):
        shutil.rmtree(STATE)
