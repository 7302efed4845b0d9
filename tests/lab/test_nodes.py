"""`./steerlab nodes` as a command, on a veth pair in the first namespace of this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import veth_pair

from benchmarks.synthetic import sweep
from experiments.run import keep, tune_state
from experiments.run.arms import candidates
from infra import configurations

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
QUEUES = 64  # so that an apply takes long enough to be hit in the middle
CPUS = os.cpu_count() or 1
HERE = ("--nic", "stlb0", "--overlay", "none", "--no-pods")


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", "nodes", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def nodes(*words: str, status: int = 0) -> str:
    """What the command says (stdout where it succeeds), having ended as expected."""
    with start(*words) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == status, complaint
    return complaint if status else said


def apply(configuration: str, *words: str, status: int = 0) -> str:
    return nodes("apply", configuration, *HERE, *words, status=status)


def owners() -> list[str]:
    return [snapshot["owner"] for snapshot in json.loads(nodes("show", "--json"))["snapshots"]]


def queue(number: int) -> Path:
    return Path(f"/sys/class/net/stlb0/queues/rx-{number}")


def values() -> list[str]:
    """All that apply may touch, and the device's other end, which it may not."""
    files = sorted(Path("/sys/class/net/stlb0/queues").glob("rx-*/rps_*"))
    other = sorted(Path("/sys/class/net/stlb1/queues").glob("rx-*/rps_*"))
    return [file.read_text() for file in (*files, *other, TABLE)]


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def make_pair(queues: int) -> None:
    veth_pair.make(queues)
    for number in range(queues):
        (queue(number) / "rps_cpus").write_text("2")
        (queue(number) / "rps_flow_cnt").write_text("64")


@pytest.fixture
def queues() -> int:
    return 2


@pytest.fixture(autouse=True)
def pair(queues: int) -> Iterator[None]:
    """A veth pair that holds mask 2 and 64 flows, and a machine's table of 4096."""
    if held := owners():
        pytest.skip(f"{', '.join(held)} steers this machine: restore or destroy that first")
    before = TABLE.read_text()
    make_pair(queues)
    TABLE.write_text("4096")
    try:
        yield
    finally:
        for owner in ("nodes", "first"):
            nodes("restore", "--owner", owner)
        veth_pair.remove()
        TABLE.write_text(before)


def test_restore_after_two_plans_gives_exactly_back_what_was_before_the_first() -> None:
    before = values()
    assert before[-1] == "4096\n"
    said = apply("rfs")
    assert "nic   stlb0   -          rx 0-1  0         32768" in said
    assert TABLE.read_text() == "32768\n"
    assert (queue(1) / "rps_flow_cnt").read_text() == "32768\n"
    apply("rps")
    assert (queue(1) / "rps_flow_cnt").read_text() == "0\n"
    assert int((queue(0) / "rps_cpus").read_text().replace(",", ""), 16) == (1 << CPUS) - 1
    assert TABLE.read_text() == "0\n"
    assert "nodes since" in nodes("show")
    assert "restored 5 values of nodes; rps_sock_flow_entries is 4096" in nodes("restore")
    assert values() == before


def test_apply_and_restore_may_each_be_said_twice() -> None:
    before = values()
    first = json.loads(apply("rfs", "--json"))
    assert first["changed"] == 5
    assert json.loads(apply("rfs", "--json")) == {**first, "changed": 0}
    nodes("restore")
    assert "nothing to restore" in nodes("restore")
    assert (values(), owners()) == (before, [])


def test_a_device_that_was_made_anew_keeps_what_it_has() -> None:
    before = values()
    apply("rfs")
    veth_pair.remove()
    make_pair(2)
    said = nodes("restore")
    assert "skipped stlb0 rx-0 in this namespace: " in said
    assert values() == before  # its own presets, and the table's

    apply("rfs")
    veth_pair.remove()
    make_pair(2)
    apply("rps")  # as at every minute of steering that is kept
    nodes("restore")
    assert values() == before


def test_a_lease_that_lapses_restores_by_itself() -> None:
    before = values()
    assert "lease for another" in apply("rfs", "--lease", "2s") + nodes("show")
    eventually(lambda: values() == before)
    assert owners() == []


def test_the_commands_of_a_report_set_a_configuration_and_undo_it() -> None:
    definition = configurations.load()["rfs"].definition
    records = [
        record.model_copy(update={"definition": definition})
        for record in sweep({"rfs": 1.0}, blocks=1)
    ]
    found = keep.commands(["rfs"], records, None)
    trial, _, undo = (shlex.split(one.line) for one in found.lines)
    assert trial[:2] == undo[:2] == ["./steerlab", "nodes"]
    before = values()
    nodes(*trial[2:], *HERE)
    assert (queue(0) / "rps_flow_cnt").read_text() == "32768\n"
    nodes(*undo[2:])
    assert (values(), owners()) == (before, [])


def test_an_arm_of_a_tuning_is_set_and_undone(tmp_path: Path) -> None:
    arms = {arm.name: arm for arm in candidates(CPUS)}
    tune_state.write_arms(tmp_path, arms.values())
    budget, before = Path("/proc/sys/net/core/netdev_budget"), values()
    was = budget.read_text()
    trial = ("--own", str(tmp_path / tune_state.ARMS), "--lease", "2h")
    apply("budget", *trial)
    assert budget.read_text() == f"{arms['budget'].settings['machine', 'netdev_budget']}\n" != was
    nodes("restore")
    assert (budget.read_text(), values(), owners()) == (was, before, [])
    apply("rfs-nic", *trial)
    assert (queue(0) / "rps_flow_cnt").read_text() == "32768\n"
    nodes("restore")
    assert (values(), owners()) == (before, [])


def test_a_refusal_touches_nothing(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f'beyond: {{nic: {{cpus: "{1 << CPUS:x}"}}}}\n')
    before = values()
    assert "'nope' is unknown (known: baseline," in apply("nope", status=2)
    assert f"CPU {CPUS} does not exist" in apply("beyond", "--own", str(own), status=2)
    assert "lease: write a number" in apply("rfs", "--lease", "soon", status=2)
    assert "no nic device" in nodes("apply", "rfs", "--nic", "stlb9", "--no-pods", status=3)
    two = ("--nic", "stlb0", "--nic", "stlb9", "--overlay", "none", "--no-pods")
    assert "matches stlb9" in nodes("apply", "rfs", *two, status=3)
    assert (values(), owners()) == (before, [])

    apply("rfs", "--owner", "first")
    steered = values()
    assert "stlb0 rx-0 in this namespace is steered by owner first" in apply("rps", status=3)
    assert "nothing to restore" in nodes("restore")
    assert (values(), owners()) == (steered, ["first"])
    assert "restored 5 values of first" in nodes("restore", "--all")
    assert values() == before


def interrupted(number: signal.Signals) -> tuple[int, str]:
    """Apply, hit as soon as it has written something; its exit status and complaint."""
    before = (queue(0) / "rps_flow_cnt").read_bytes()
    with start("apply", "rfs", *HERE) as process:
        while process.poll() is None and (queue(0) / "rps_flow_cnt").read_bytes() == before:
            pass
        if process.poll() is None:
            # the agent too is killed, but is left to hear of SIGTERM from the command
            whole = number == signal.SIGKILL
            (os.killpg if whole else os.kill)(process.pid, number)
        _, complaint = process.communicate(timeout=60)
    return process.returncode, complaint


@pytest.mark.parametrize("queues", [QUEUES])
def test_an_apply_that_was_killed_is_restored() -> None:
    before = values()
    half = False
    for _ in range(20):
        interrupted(signal.SIGKILL)
        steered = [(queue(n) / "rps_flow_cnt").read_text() for n in range(QUEUES)]
        half = half or len(set(steered)) == 2
        assert owners() == ["nodes"]
        nodes("restore")
        assert values() == before
        if half:
            break
    assert half, "no kill came in the middle of the writes: raise QUEUES"


@pytest.mark.parametrize("queues", [QUEUES])
def test_an_apply_that_was_asked_to_end_leaves_all_or_nothing() -> None:
    before = values()
    status, complaint = interrupted(signal.SIGTERM)
    assert (status, "interrupted" in complaint) == (130, True)
    # it had put back what it began, or the signal came after the last write
    assert values() == before if owners() == [] else len(set(values()[1 : 2 * QUEUES : 2])) == 1
    nodes("restore")
    assert values() == before
