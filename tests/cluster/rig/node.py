"""A node: a set of namespaces and cgroups with a first process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rig.command import RigError, wait_until
from rig.layout import MACHINE_SYSCTLS, NodeLayout

_SYSTEM_PYTHON = "/usr/bin/python3"
# kubelet insists on these values, which are the machine's: it is shown files that say so.
_AS_KUBELET_WANTS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


class Node:
    """One node of the cluster."""

    def __init__(self, layout: NodeLayout) -> None:
        self.layout = layout
        self.name = layout.name
        self.folder = layout.folder

    # --- life ---

    def start(self) -> None:
        """Start the first process in new namespaces, in the network namespace made for it."""
        for name in ("lib", "log", "etc"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._make_cgroups()
        setup = _setup_script(self.layout)
        (self.folder / "setup").write_text(setup)
        with (self.folder / "log/init.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork"),
                    *("--kill-child", "--propagation", "private", "bash", self.folder / "setup"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._join,
            )
        wait_until(f"node {self.name}", (self.folder / "ready").exists, 15)
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink())
        (self.folder / "pid").write_text(json.dumps({"pid": pid, "namespace": namespace}))

    def pid(self) -> int | None:
        """The first process; None where it is gone, or another has its number."""
        try:
            kept = json.loads((self.folder / "pid").read_text())
            same = str(Path(f"/proc/{kept['pid']}/ns/pid").readlink()) == kept["namespace"]
        except (OSError, ValueError):
            return None
        return int(kept["pid"]) if same else None

    def stop(self) -> None:
        """End the first process, and with it every other and every mount of the node."""
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in self._cgroups():
            _remove_cgroup(folder)

    # --- cgroups (v1): one folder in each hierarchy, below the caller's own ---

    def _cgroups(self) -> list[Path]:
        try:
            return [Path(line) for line in (self.folder / "cgroups").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _make_cgroups(self) -> None:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        wanted_in = {}
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            wanted = set(controllers.removeprefix("name=").split(","))
            where = next(
                (m[1] for m in mounts if m[2] == "cgroup" and wanted <= {*m[3].replace("name=", "").split(",")}),
                None,
            )  # fmt: skip
            if not controllers or where is None:
                continue
            wanted_in[Path(where + path.rstrip("/"), f"steerlab-{self.name}")] = wanted
        if not {"memory", "cpuset"} <= set().union(*wanted_in.values()):
            raise RigError("cgroup v1 hierarchies for cpuset and memory are needed")
        # noted before they are there: whoever is killed here leaves word of all
        (self.folder / "cgroups").write_text("".join(f"{folder}\n" for folder in wanted_in))
        for folder, wanted in wanted_in.items():
            folder.mkdir(exist_ok=True)
            if "cpuset" in wanted:  # must be filled before use
                for name in ("cpuset.mems", "cpuset.cpus"):
                    (folder / name).write_text((folder.parent / name).read_text())
            share = folder / "cpu.rt_runtime_us"
            if share.exists() and self.name != "master":
                with suppress(OSError):  # more than the caller's own group has
                    share.write_text("300000")

    def _join(self) -> None:
        for folder in self._cgroups():
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    # --- commands ---

    def _enter(self) -> list[str]:
        pid = self.pid()
        if pid is None:
            raise RigError(f"node {self.name} does not run")
        return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]

    def popen(self, *words: str | Path, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [*self._enter(), *map(str, words)], preexec_fn=self._join, text=True, **options
        )

    def exec(self, *words: str | Path, text: str | None = None, timeout: float = 60) -> str:
        """Run a command inside and give its output. Raises `RigError` where it fails."""
        pipe = subprocess.PIPE
        with self.popen(*words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            out, err = process.communicate(text, timeout=timeout)
        if process.returncode != 0:
            raise RigError(f"exit {process.returncode} of {words[0]} on {self.name}: {err or out}")
        return str(out)

    def daemon(self, name: str, *words: str | Path) -> None:
        """Start a daemon as a child of the node's first process; its log is log/NAME.log."""
        script = f'echo $$ > {self.folder}/{name}.pid; exec "$@"'
        with (self.folder / f"log/{name}.log").open("ab") as log:
            subprocess.run(
                ["setsid", *self._enter(), "sh", "-c", '"$@" &', "sh", "sh", "-c", script, "sh",
                 *map(str, words)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True,
                preexec_fn=self._join,
            )  # fmt: skip

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a daemon."""
        self.exec("kill", f"-{number}", (self.folder / f"{name}.pid").read_text().strip())


def _remove_cgroup(folder: Path) -> None:
    """End what runs in a cgroup and those below it, and remove them."""
    end = time.monotonic() + 10
    while folder.is_dir():
        for procs in folder.rglob("cgroup.procs"):
            with suppress(OSError):
                for pid in map(int, procs.read_text().split()):
                    if pid > 1:  # 0 stands for one of another pid namespace
                        os.kill(pid, signal.SIGKILL)
        for below in sorted(folder.rglob("*/"), key=lambda f: len(f.parts), reverse=True):
            with suppress(OSError):
                below.rmdir()
        with suppress(OSError):
            folder.rmdir()
        if time.monotonic() > end:
            print(f"cluster: still in use: {folder}", file=sys.stderr)  # noqa: T201
            return
        time.sleep(0.05)


def _setup_script(layout: NodeLayout) -> str:
    """What the first process does before it becomes `init`: the node's view of the file system.

    The machine's sysctls can be looked up in the first network namespace only; bound to files
    there, they stay usable inside the node.
    """
    folder = layout.folder
    names = " ".join(MACHINE_SYSCTLS) if layout.machine_sysctls else ""
    values = "\n".join(
        f"echo {value} > /run/rig/{Path(name).name}; "
        f"mount --bind /run/rig/{Path(name).name} /proc/sys/{name}"
        for name, value in _AS_KUBELET_WANTS.items()
    )
    return f"""set -eu
hostname {layout.name}
exec 9</run/netns/{layout.netns}
umount -R -l /proc; mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/rig/net.core /run/netns /run/lock
mount -t tmpfs -o mode=755 tmpfs /run/rig/net.core
for name in {names}; do
  [ -e /proc/sys/net/core/$name ] || continue
  : > /run/rig/net.core/$name; mount --bind /proc/sys/net/core/$name /run/rig/net.core/$name
done
cat > /run/rig/second <<'SECOND'
set -eu
umount -R -l /sys; mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
  [ -n "$controllers" ] || continue
  name=${{controllers#name=}}
  mkdir "/sys/fs/cgroup/$name"
  case $controllers in name=*) options=none,$controllers ;; *) options=$controllers ;; esac
  mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$name"
done < /proc/self/cgroup
mount --bind {folder}/lib /var/lib
mount --bind {folder}/log /var/log
for file in /proc/sys/net/core/*; do
  own=/run/rig/net.core/${{file##*/}}
  [ -e "$own" ] && continue
  : > "$own"; mount --bind "$file" "$own"
done
readlink /proc/self/ns/net > /run/rig/netns
mount --rbind /run/rig/net.core /proc/sys/net/core
{values}
mount --make-rshared /
: > {folder}/ready
exec {_SYSTEM_PYTHON} -S {Path(__file__).with_name("init.py")} 9<&-
SECOND
exec nsenter --net=/proc/self/fd/9 bash /run/rig/second
"""
