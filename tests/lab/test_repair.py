"""What was deleted, killed or changed by hand is found by the next `up`; nothing else is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from lab_project import RUN, TABLE, Project

STACK = "rfs-plus-4"
SERVER = f"steerlab-{STACK}-server"
CONVERGE = ("runs=0",)


@pytest.fixture
def stands(either: Project) -> Project:
    either.up(STACK, *CONVERGE)
    return either


def _repaired(project: Project, expected: dict[str, str]) -> None:
    """`preview` says what `up` then does, and a second `up` finds nothing more to do."""
    assert project.preview(STACK).changes == expected
    assert project.up(STACK).changes == expected
    assert project.up(STACK).changes == {}


def test_a_deleted_pod(stands: Project) -> None:
    subprocess.run(["ip", "netns", "del", f"steerlab-{STACK}-iperf-client-2"], check=True)
    _repaired(stands, {"pods-2": "replace", "iperf-server-2": "replace", "steer-server": "update"})


def test_a_deleted_node_takes_all_that_stood_on_it(stands: Project) -> None:
    subprocess.run(["ip", "netns", "del", f"steerlab-{STACK}-client"], check=True)
    everything = dict.fromkeys(
        (
            "client-namespace",
            "wire-veth",
            "overlay-vxlan",
            *(f"{what}-{pair}" for what in ("pods", "iperf-server") for pair in range(1, 5)),
        ),
        "replace",
    )
    _repaired(stands, {**everything, "steer-server": "update"})


def test_a_killed_iperf_server(stands: Project) -> None:
    pid = (RUN / "lab" / STACK / "iperf-server-3").read_text().split()[0]
    os.kill(int(pid), signal.SIGKILL)
    _repaired(stands, {"iperf-server-3": "replace"})


def test_a_pid_that_is_another_process_now(stands: Project) -> None:
    """Its start time tells it apart: it is not the server, and it is not killed."""
    pidfile = RUN / "lab" / STACK / "iperf-server-3"
    server, start = pidfile.read_text().split()
    os.kill(int(server), signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            pidfile.write_text(f"{stranger.pid} {start}\n")
            _repaired(stands, {"iperf-server-3": "replace"})
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_deleted_device(stands: Project) -> None:
    subprocess.run(["ip", "-n", SERVER, "link", "del", "vxlan.calico"], check=True)
    _repaired(stands, {"overlay-vxlan": "replace", "steer-server": "update"})


def test_a_mask_changed_by_hand(stands: Project) -> None:
    queue = "/sys/class/net/vxlan.calico/queues/rx-0"
    write = f"echo 2 > {queue}/rps_cpus; echo 0 > {queue}/rps_flow_cnt"
    subprocess.run(["ip", "netns", "exec", SERVER, "sh", "-c", write], check=True)
    _repaired(stands, {"steer-server": "replace"})
    read = subprocess.run(
        ["ip", "netns", "exec", SERVER, "cat", f"{queue}/rps_flow_cnt"],
        check=True,
        capture_output=True,
    )
    assert read.stdout.split() == [b"32768"]


def test_a_flow_table_changed_by_hand(stands: Project) -> None:
    TABLE.write_text("1024")
    _repaired(stands, {"steer-server": "replace"})
    assert TABLE.read_text().strip() == "32768"


def test_a_changed_boot_id(either: Project, tmp_path: Path) -> None:
    """After a reboot: the state is that of a converged lab, the machine has nothing of it."""
    before = TABLE.read_text()
    either.up(STACK, *CONVERGE, "lease=none")
    _lose_everything()
    TABLE.write_text(before)
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab-4cde-8f01-23456789abcd\n")
    # /proc made private, so that only these commands see the other boot; /run/netns stays shared
    rebooted = (
        "unshare", "--mount", "--propagation", "unchanged", "sh", "-ec",
        "mount --make-private /proc;"
        f' mount --bind {boot} /proc/sys/kernel/random/boot_id; exec "$@"', "sh",
    )  # fmt: skip
    changed = either.up(STACK, within=rebooted).changes
    assert set(changed.values()) == {"replace"}
    assert len(changed) == 14
    assert either.up(STACK, within=rebooted).changes == {}
    either.run("destroy", "-s", STACK, "--engine", either.engine, within=rebooted)


def _lose_everything() -> None:
    """What a reboot takes: processes, namespaces, /run and settings."""
    for pidfile in (RUN / "lab" / STACK).iterdir():
        os.kill(int(pidfile.read_text().split()[0]), signal.SIGKILL)
    for namespace in Path("/run/netns").glob(f"steerlab-{STACK}-*"):
        subprocess.run(["ip", "netns", "del", namespace.name], check=True)
    shutil.rmtree(RUN / "lab")
    for snapshot in RUN.glob(f"{STACK}%2F*.snapshot"):
        snapshot.unlink()


def test_the_measurement_of_a_drifted_lab_names_the_repair(project: Project) -> None:
    """What plain Pulumi, which does not look at the machine, tells its user."""
    project.up(STACK, "duration=2", "omit=0")
    os.kill(int((RUN / "lab" / STACK / "iperf-server-1").read_text().split()[0]), signal.SIGKILL)
    failed = project.run("measure", "-s", STACK, code=1)
    assert "pair 1" in failed.err
    assert f"./steerlab up -s {STACK}" in failed.err
    assert "--replace" in failed.err and "::iperf-server-1" in failed.err
