"""One run without a lab: what makes it invalid, with what words, and the record it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from analysis import schema
from analysis.schema import Confounders, Core, Machine, Pair, Record
from experiments import agent, edges, iperf, lab_site, machine, measure
from experiments.agent import AgentFailed
from experiments.iperf import BarrierBroken
from infra import config
from infra.lab import measurement
from infra.lab.measurement import Endpoint, Measurement

SCHEMA = json.loads((Path(schema.__file__).parent / "record.schema.json").read_text())
DATA = Path(__file__).parent / "data"
MACHINE = Machine(kernel="6.18", cpu="AMD EPYC", cores=2)
QUEUE = {
    "role": "nic", "pod": None, "namespace": "/run/netns/x", "device": "eth1", "queue": "rx-0",
    "rps_cpus": "1", "rps_flow_cnt": 0,
}  # fmt: skip

Results = list[tuple[Pair, bytes]]


class Lab:
    """Stands for the machine: the agent's next answers and the pairs' results."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.drift: list[list[Any] | Exception] = []
        self.pairs: Callable[[Sequence[Endpoint]], Results] = lambda active: [
            (Pair(index=pair.index, bitrate_mbps=100.0 * pair.index, retransmits=2), b"{}")
            for pair in active
        ]
        self.interrupts = iter(range(0, 10_000, 5000))

    def call(self, *words: str) -> dict[str, Any]:
        self.asked.append(words)
        drift = self.drift.pop(0) if self.drift else []
        if isinstance(drift, Exception):
            raise drift
        return {"queues": [QUEUE], "sock_flow_entries": 32768, "drift": drift, "warnings": []}

    def run(
        self, _: Measurement, active: Sequence[Endpoint], at: Callable[[float], None]
    ) -> Results:
        at(0.0)
        return self.pairs(active)

    def confounders(self) -> Confounders:
        count = next(self.interrupts)
        return Confounders(nic_interrupts={"38 virtio2-input.0": [count, count]})


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab()
    read = edges.Edge.read
    proc = iter(["proc-before", "proc-after"])
    monkeypatch.setattr(edges.Edge, "read", lambda: read(DATA / next(proc)))
    monkeypatch.setattr(agent, "call", lab.call)
    monkeypatch.setattr(iperf, "run", lab.run)
    monkeypatch.setattr(machine, "confounders", lab.confounders)
    monkeypatch.setattr(machine, "describe", lambda _: MACHINE)
    monkeypatch.setattr(lab_site, "_sleep_until", lambda _: None)
    return lab


@pytest.fixture
def what() -> Measurement:
    return measurement.of(config.state("rfs-4", {"duration": "2", "omit": "1"}, (0, 1)))


def test_a_sound_run(lab: Lab, what: Measurement) -> None:
    place = measure.Place(block=3, order=17, seed=7, plan="abc")
    record, raw = measure.run(what, place=place)
    assert (record.valid, record.reasons) == (True, [])
    assert (record.configuration, record.replicas, record.idle_pairs) == ("rfs", 4, 0)
    assert (record.block, record.order, record.seed, record.plan) == (3, 17, 7, "abc")
    assert (record.duration, record.omit, record.streams) == (2, 1, 1)
    assert record.machine == MACHINE
    assert [pair.bitrate_mbps for pair in record.pairs] == [100, 200, 300, 400]
    assert measure.mean_bitrate(record) == 250
    assert raw == [b"{}"] * 4
    # the accounts of the two edges, under the name of the one kernel
    assert [(core.node, core.core, core.soft) for core in record.cores] == [
        ("lab", 0, 70.995),
        ("lab", 1, 61.657),
    ]
    assert [row.received_rps for row in record.softnet] == [50357, 60738]
    assert record.window is not None
    assert record.harness is not None
    # read back on both sides, and the lease renewed each time
    assert lab.asked == [("verify", "--owner", "rfs-4/server", "--saved", "--renew")] * 2
    assert record.steering_before == record.steering_after
    assert record.steering_before is not None
    assert record.steering_before.sock_flow_entries == 32768
    assert record.steering_before.queues[0].model_dump() == {
        "node": "server", "role": "nic", "device": "eth1", "queue": "rx-0", "rps_cpus": "1",
        "rps_flow_cnt": 0, "pod": None,
    }  # fmt: skip
    assert record.warnings == [
        "interrupt 38 virtio2-input.0 moved between cores [0, 1] during the run"
    ]


@pytest.mark.usefixtures("lab")
def test_the_record_is_what_the_kept_schema_says(what: Measurement) -> None:
    record, _ = measure.run(what, replicas=2, place=measure.Place(1, 2, 3, "abc"))
    document = json.loads(record.model_dump_json())
    jsonschema.validate(document, SCHEMA)
    assert Record.model_validate(document) == record


@pytest.mark.usefixtures("lab")
def test_fewer_pairs_leave_the_others_idle(what: Measurement) -> None:
    record, _ = measure.run(what, replicas=1)
    assert [pair.index for pair in record.pairs] == [1]
    assert (record.replicas, record.idle_pairs, record.valid) == (1, 3, True)


DRIFT = {"kind": "value", "message": "eth1 rx-0: rps_cpus is 3, not 1"}


@pytest.mark.parametrize(
    ("drift", "reasons"),
    [
        ([[DRIFT]], ["steering before the run: eth1 rx-0: rps_cpus is 3, not 1"]),
        ([[], [DRIFT]], ["steering after the run: eth1 rx-0: rps_cpus is 3, not 1"]),
        ([[], AgentFailed("exit 1")], ["steering after the run: exit 1"]),
        (
            [[DRIFT], [DRIFT]],
            [f"steering {when} the run: {DRIFT['message']}" for when in ("before", "after")],
        ),
    ],
    ids=["before", "after", "agent failed", "both"],
)
def test_drift_makes_a_run_invalid(
    lab: Lab, what: Measurement, drift: list[Any], reasons: list[str]
) -> None:
    lab.drift = drift
    record, _ = measure.run(what)
    assert (record.valid, record.reasons) == (False, reasons)
    assert measure.mean_bitrate(record) == 250


def test_a_pair_that_fails_makes_the_run_invalid_and_is_not_zero(
    lab: Lab, what: Measurement
) -> None:
    dead = Pair(index=2, bitrate_mbps=None, reason="iperf3: control socket has closed")
    lab.pairs = lambda _: [(Pair(index=1, bitrate_mbps=90), b"{}"), (dead, b"")]
    record, raw = measure.run(what, replicas=2)
    assert (record.valid, record.reasons) == (
        False,
        ["pair 2: iperf3: control socket has closed"],
    )
    assert record.pairs[1].bitrate_mbps is None
    assert measure.mean_bitrate(record) is None
    assert raw == [b"{}", b""]


@pytest.mark.usefixtures("lab")
def test_a_broken_barrier_is_one_reason_and_no_number(
    what: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Results:
        raise BarrierBroken("the client of pair 2 did not start")

    monkeypatch.setattr(iperf, "run", broken)
    record, _ = measure.run(what)
    assert (record.valid, record.reasons) == (False, ["the client of pair 2 did not start"])
    assert [(pair.bitrate_mbps, pair.reason) for pair in record.pairs] == [
        (None, "the client of pair 2 did not start")
    ] * 4
    assert (record.cores, record.softnet, record.window) == ([], [], None)
    jsonschema.validate(json.loads(record.model_dump_json()), SCHEMA)


@pytest.mark.usefixtures("lab")
def test_the_window_begins_after_what_is_omitted(
    what: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []
    monkeypatch.setattr(lab_site, "_sleep_until", moments.append)
    measure.run(what)
    assert moments == [1, 3]


def test_throttling_of_limited_pods(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cpu.stat as cgroup v2 has it; what had no number before has none now."""
    what = measurement.of(config.state("rfs-2", {"podCpuLimit": "200m"}, (0, 1)))
    monkeypatch.setattr(iperf, "cgroup_directory", lambda path: tmp_path / Path(path).name)
    stat = tmp_path / "iperf-server-1/cpu.stat"
    stat.parent.mkdir()
    stat.write_text("usage_usec 7\nnr_periods 9\nnr_throttled 5\nthrottled_usec 1\n")
    pairs = lab.pairs

    def throttle(active: Sequence[Endpoint]) -> Results:
        stat.write_text(stat.read_text().replace("nr_throttled 5", "nr_throttled 12"))
        return pairs(active)

    lab.pairs = throttle
    # the second pod's, as a cgroup v2 whose cpu controller is off has it
    other = tmp_path / "iperf-server-2/cpu.stat"
    other.parent.mkdir()
    other.write_text("usage_usec 7\nuser_usec 3\nsystem_usec 4\n")
    record, _ = measure.run(what)
    assert [pair.throttled_periods for pair in record.pairs] == [7, None]
    assert record.pod_cpu_limit == "200m"


def test_an_interrupt_is_not_taken_for_an_invalid_run(lab: Lab, what: Measurement) -> None:
    def interrupted(_: object) -> Results:
        raise KeyboardInterrupt

    lab.pairs = interrupted
    with pytest.raises(KeyboardInterrupt):
        measure.run(what)


def test_means_of_what_is_known() -> None:
    cores = [
        Core(node="n", core=0, idle=10), Core(node="n", core=1, idle=30), Core(node="n", core=2),
    ]  # fmt: skip
    assert measure.mean_of(cores, "idle") == 20
    assert measure.mean_of(cores, "soft") is None
