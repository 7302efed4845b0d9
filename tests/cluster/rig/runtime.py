"""The container runtime of a node: containerd, its CNI configuration, and images."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

from rig.command import RigError, run, wait_until
from rig.layout import PAUSE, STATE
from rig.node import Node
from rig.registry import HOSTS

BIN, CNI = STATE / "bin", STATE / "cni"
_PYTHON = "/usr/bin/python3"

# A privileged container in the node's network gets the node's view of /proc/sys/net/core, with
# the machine's own sysctls in it; containerd would mount it a bare one. It may use SCHED_FIFO, as
# on kernels without CONFIG_RT_GROUP_SCHED: each cgroup above it gets microseconds of a second.
_HOOK = """#!/bin/sh
bundle=$(sed -n 's/.*"bundle":"\\([^"]*\\)".*/\\1/p')
[ "$(readlink /proc/self/ns/net)" = "$(cat /run/rig/netns)" ] || exit 0
grep -q '"readonlyPaths"' "$bundle/config.json" && exit 0
group=/sys/fs/cgroup/cpu
for name in $(sed -n 's/^[0-9]*:cpu://p' /proc/self/cgroup | tr / ' '); do
  group=$group/$name
  case $group in */pod*) share=50000 ;; *) share=300000 ;; esac
  [ "$(cat $group/cpu.rt_runtime_us)" != 0 ] || echo $share >$group/cpu.rt_runtime_us
done 2>/dev/null
exec mount --rbind /run/rig/net.core "$bundle/rootfs/proc/sys/net/core"
"""


def prepare() -> None:
    """Write what all nodes share: plugins, the hook, the pause image, the iptables to use."""
    BIN.mkdir(parents=True)
    CNI.mkdir()
    plugin = CNI / "calico-like"
    plugin.write_text(f"#!/bin/sh\nexec {_PYTHON} -S {Path(__file__).with_name('cni.py')}\n")
    hook = STATE / "sysctl-hook"
    hook.write_text(_HOOK)
    for script in (plugin, hook):
        script.chmod(0o755)
    for name in ("host-local", "loopback"):
        (CNI / name).symlink_to(f"/usr/lib/cni/{name}")
    _choose_iptables()
    pause = STATE / "pause.tar"
    pause.write_bytes(archive({"bin/busybox": Path("/bin/busybox").read_bytes()}, PAUSE,
                              ["/bin/busybox", "sleep", "2147483647"]))  # fmt: skip


def _choose_iptables() -> None:
    """nftables where this kernel has the compatibility layer for it, else the old one."""
    test = ("unshare", "--net", "iptables-nft", "-t", "nat", "-A", "OUTPUT", "-m", "comment",
            "--comment", "x", "-j", "ACCEPT")  # fmt: skip
    try:
        run(*test)
        variant = "nft"
    except RigError:
        variant = "legacy"
    for name in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            (BIN / f"{name}{verb}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")


def archive(files: dict[str, bytes], tag: str, command: list[str]) -> bytes:
    """A `docker save` archive of one layer (pure)."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
    return archive_of(layer.getvalue(), tag, command)


def archive_of(layer: bytes, tag: str, command: list[str]) -> bytes:
    """The same from the layer's own tar (pure)."""
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": command, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return whole.getvalue()


def start(node: Node) -> None:
    """Start containerd on a node and give it the pause image."""
    etc = node.folder / "etc"
    networks = etc / "net.d"
    networks.mkdir(parents=True)
    ranges = [[{"subnet": f"{node.layout.pods}.0/24", "rangeStart": f"{node.layout.pods}.2"}]]
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges}
    plugin = {"type": "calico-like", "mtu": 1450, "ipam": ipam}
    (networks / "10-pods.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})
    )
    spec = json.loads(run("ctr", "oci", "spec"))
    spec["hooks"] = {"createContainer": [{"path": str(STATE / "sysctl-hook")}]}
    (etc / "spec.json").write_text(json.dumps(spec))
    (etc / "containerd.toml").write_text(f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{HOSTS}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI}"
  conf_dir = "{networks}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "{etc / "spec.json"}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
""")
    node.daemon("containerd", _with_path("containerd"), "--config", etc / "containerd.toml")

    def answers() -> bool:
        try:
            node.exec("ctr", "version")
        except RigError:
            return False
        return True

    wait_until(f"containerd on {node.name}", answers, 30, pause=0.2)
    load(node, STATE / "pause.tar")


def _with_path(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RigError(f"not installed: {name}")
    return found


def load(node: Node, image: Path) -> None:
    """Import an image archive (docker's or OCI) on a node."""
    node.exec("ctr", "-n", "k8s.io", "images", "import", image)
