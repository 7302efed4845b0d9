"""`nodes apply --persist` under a systemd of its own, which sees this machine's network.

That systemd is process 1 of new namespaces. Its /etc, /usr/local and /run are its own; the
devices and the flow table are the machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import veth_pair

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
GROUP = f"steerlab-test-{os.getpid()}"
SERVICE, AGAIN = "steerlab-steering.service", "steerlab-steering-again.service"

# $1: an empty folder, $2: the control group
BOOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir units none
for name in etc usr/local; do
  mkdir -p "upper/$name" "scratch/$name"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$1/upper/$name,workdir=$1/scratch/$name" \
    "/$name"
done
for unit in sysinit basic multi-user network-online timers sockets paths slices shutdown; do
  cp "/usr/lib/systemd/system/$unit.target" units/
done
mount --bind units /usr/lib/systemd/system
mount --bind none /usr/lib/systemd/system-generators
mount -t tmpfs tmpfs /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
fi
exec env -i container=test PATH="$PATH" /usr/lib/systemd/systemd --system --unit=multi-user.target \
  --log-target=console --log-level=notice --show-status=0
"""


class Booted:
    """The namespaces of a systemd that runs."""

    def __init__(self, pid: int) -> None:
        self.enter = ["nsenter", "-t", str(pid), "-m", "-p", "-C", "-u", "-i"]

    def __call__(self, *command: str, status: int | None = 0) -> str:
        done = subprocess.run(
            [*self.enter, "--wd=/", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert status in (None, done.returncode), f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def nodes(self, *words: str, status: int = 0) -> str:
        return self(sys.executable, "-m", "experiments", "nodes", *words, status=status)


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def first(parent: int) -> int:
    """The child that has become systemd, 0 before."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return 0


def groups() -> list[Path]:
    parents = ["/sys/fs/cgroup"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        parents = ["/sys/fs/cgroup/systemd"]
    return [Path(parent) / GROUP for parent in parents]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Booted]:
    if not Path("/usr/lib/systemd/systemd").exists() or shutil.which("systemctl") is None:
        pytest.skip("needs systemd installed; it need not run")
    join = "\n".join(f"mkdir -p {group} && echo $$ > {group}/cgroup.procs" for group in groups())
    namespaces = "--cgroup --mount --pid --uts --ipc --fork --kill-child --mount-proc"
    script = f'{join}\nexec unshare {namespaces} sh -c "$0" sh "$1"'
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            ["sh", "-c", script, BOOT, str(tmp_path)], stdout=said, stderr=said
        )
    try:
        ready = ("systemctl", "is-system-running")
        if not eventually(lambda: process.poll() is not None or first(process.pid) > 0, 15) or (
            process.poll() is not None
        ):
            pytest.skip(f"systemd cannot be started in namespaces here: {log.read_text()[-300:]}")
        booted = Booted(first(process.pid))
        up = eventually(lambda: booted(*ready, status=None).startswith("running"), 15)
        assert up, log.read_text()
        yield booted
    finally:
        process.kill()
        process.wait()
        for group in groups():
            inner = sorted(group.rglob("*/"), reverse=True) if group.exists() else []
            for folder in (*inner, group):
                eventually(lambda folder=folder: _removed(folder), 5)  # type: ignore[misc]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def wire(systemd: Booted) -> Iterator[list[Path]]:
    """A veth pair that holds odd values, and those of its values that apply writes."""
    for snapshot in Path("/run/steerlab").glob("*.snapshot"):
        pytest.skip(f"{snapshot.name} holds this machine's steering: restore that first")
    before = TABLE.read_text()
    veth_pair.make()
    queue = Path("/sys/class/net/stlb0/queues/rx-0")
    (queue / "rps_cpus").write_text("2")
    (queue / "rps_flow_cnt").write_text("64")
    TABLE.write_text("4096")
    try:
        yield [queue / "rps_cpus", queue / "rps_flow_cnt", TABLE]
    finally:
        systemd.nodes("restore", "--all")
        veth_pair.remove()
        TABLE.write_text(before)


def test_systemd_keeps_the_steering_within_its_sandbox(systemd: Booted, wire: list[Path]) -> None:
    def stands() -> list[str]:
        return [file.read_text().strip() for file in wire]

    before = stands()
    keep = ("--nic", "stlb0", "--overlay", "none", "--persist")
    assert f"kept        by {SERVICE}" in systemd.nodes("apply", "rfs-plus", *keep)
    steered = stands()
    assert steered == ["0", "32768", "32768"]
    assert systemd("systemctl", "is-enabled", SERVICE) == "enabled\n"
    timers = systemd("systemctl", "list-timers", "--no-legend")
    assert "steerlab-steering-again.timer" in timers

    # stopped it restores, started (as at boot) it steers: both as the unit's own processes
    systemd("systemctl", "stop", SERVICE)
    assert stands() == before
    assert "steering-again" not in systemd("systemctl", "list-timers", "--no-legend")
    systemd("systemctl", "start", SERVICE)
    assert stands() == steered

    # a pod comes; the timer's service finds it and its end in the first namespace
    systemd("ip", "netns", "add", "cni-a")
    peer = ("type", "veth", "peer", "name", "stlb-pod")
    systemd("ip", "-n", "cni-a", "link", "add", "eth0", *peer)
    systemd("systemctl", "start", AGAIN)
    files = "cat /sys/class/net/eth0/queues/rx-0/rps_flow_cnt"
    assert systemd("ip", "netns", "exec", "cni-a", "sh", "-c", files) == "32768\n"

    said = systemd.nodes("apply", "rps", "--nic", "stlb0", "--overlay", "none", status=3)
    assert "add --persist" in said
    systemd.nodes("apply", "rps", *keep)
    assert stands()[1:] == ["0", "0"]

    assert f"removed /etc/systemd/system/{SERVICE}, " in systemd.nodes("restore")
    assert stands() == before
    assert systemd("systemctl", "list-units", "--all", "--no-legend", "steerlab*") == ""
    left = systemd("find", "/etc/systemd/system", "/etc", "/usr/local/lib", "-name", "*steerlab*")
    assert left == ""


def test_a_nic_that_comes_late_is_waited_for(systemd: Booted, wire: list[Path]) -> None:
    systemd.nodes("apply", "rps", "--nic", "stlb0", "--overlay", "none", "--persist")
    systemd("systemctl", "stop", SERVICE)
    subprocess.run(["ip", "link", "set", "stlb0", "name", "stlb2"], check=True)
    try:
        systemd("systemctl", "start", SERVICE, status=1)
    finally:
        subprocess.run(["ip", "link", "set", "stlb2", "name", "stlb0"], check=True)
    assert wire[0].read_text() == "2\n"
    assert eventually(lambda: wire[0].read_text() != "2\n", 25)
    assert systemd("systemctl", "is-active", SERVICE) == "active\n"


@contextlib.contextmanager
def pod(systemd: Booted, name: str, *, read_only: bool) -> Iterator[Callable[[], str]]:
    """A namespace cni-NAME with eth0 and a process; yields what eth0 holds.

    Container runtimes mount a pod's sysfs read-only, and so its first mount.
    """
    systemd("ip", "netns", "add", f"cni-{name}")
    peer = ("type", "veth", "peer", "name", f"stlb-{name}")
    systemd("ip", "-n", f"cni-{name}", "link", "add", "eth0", *peer)
    options = ("-o", "ro") if read_only else ()
    mount = " ".join(("mount", "-t", "sysfs", *options, "sysfs", "/sys"))
    inside = ("nsenter", f"--net=/run/netns/cni-{name}", "unshare", "--mount", "sh", "-c")
    process = subprocess.Popen(
        [*systemd.enter, *inside, f"{mount} && echo $$ && exec sleep 300"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    within = process.stdout.readline().strip()
    files = "cat /sys/class/net/eth0/queues/rx-0/rps_flow_cnt"
    try:
        yield lambda: systemd("nsenter", "-t", within, "-m", "-n", "sh", "-c", files).strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_sandbox_lets_the_agent_steer_and_restore_every_kind_of_pod(
    systemd: Booted, wire: list[Path]
) -> None:
    """Pods whose sysfs is read-only, and one whose namespace has lost its name."""
    keep = ("--nic", "stlb0", "--overlay", "none", "--persist")
    systemd.nodes("apply", "rps", *keep)
    systemd("systemctl", "stop", SERVICE)
    with (
        pod(systemd, "ro", read_only=True) as locked,
        pod(systemd, "rw", read_only=False) as plain,
    ):
        systemd.nodes("apply", "rfs-plus", *keep)
        systemd("systemctl", "stop", SERVICE)
        assert (locked(), plain()) == ("0", "0")
        systemd("systemctl", "start", SERVICE)  # as at boot: all by the unit's own process
        assert (locked(), plain()) == ("32768", "32768")
        systemd("systemctl", "reload", SERVICE)
        # the runtime has taken the name away, the pod's process is still there
        for name in ("ro", "rw"):
            systemd("ip", "netns", "del", f"cni-{name}")
        systemd("systemctl", "stop", SERVICE)
        assert (locked(), plain()) == ("0", "0")
    assert wire[0].read_text() == "2\n"


@pytest.mark.usefixtures("wire")
def test_the_sandbox_lets_the_agent_set_an_offload(
    systemd: Booted, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("own") / "own.yaml"
    own.write_text("merging: {nic: {gro: on}}")

    def gro() -> bool:
        return "generic-receive-offload: on" in systemd("ethtool", "-k", "stlb0")

    keep = ("--nic", "stlb0", "--overlay", "none", "--persist")
    systemd.nodes("apply", "merging", "--own", str(own), *keep)
    found = [gro()]
    for verb in ("stop", "start", "stop"):
        systemd("systemctl", verb, SERVICE)
        found.append(gro())
    assert found == [True, False, True, False]


def test_a_unit_that_cannot_steer_is_told_with_its_cause(systemd: Booted, wire: list[Path]) -> None:
    systemd.nodes("apply", "rps", "--nic", "stlb0", "--overlay", "none", "--persist")
    assert f"kept        by {SERVICE}: active" in systemd.nodes("show")
    assert len(wire) == 3
    systemd("systemctl", "stop", SERVICE)
    subprocess.run(["ip", "link", "set", "stlb0", "name", "stlb2"], check=True)
    try:
        systemd("systemctl", "start", SERVICE, status=1)
        said = systemd.nodes("show")
        assert "matches stlb0" in said
        assert "every 15 seconds" in said
    finally:
        subprocess.run(["ip", "link", "set", "stlb2", "name", "stlb0"], check=True)
