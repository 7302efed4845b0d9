"""One run without a lab: what makes it invalid, with what words, and the record it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import procstat
from analysis import schema, tables
from analysis.metrics import BITRATE, METRICS
from analysis.schema import Confounders, Machine, Record
from experiments.host import calls, machine
from experiments.host.calls import AgentFailed
from experiments.run import measure, readback
from experiments.targets.contract import BarrierBroken, PairResult, Topology
from experiments.targets.lab import clients
from experiments.targets.lab.backend import LabBackend
from infra import config
from infra.lab import measurement
from infra.lab.measurement import Endpoint, Measurement
from infra.traffic.contract import Failure, Values
from infra.traffic.stream import Stream

SCHEMA = json.loads((Path(schema.__file__).parent / "record.schema.json").read_text())
DATA = Path(__file__).parent / "data"
MACHINE = Machine(kernel="6.18", cpu="AMD EPYC", cores=2)
QUEUE = {
    "role": "nic", "pod": None, "namespace": "/run/netns/x", "device": "eth1", "queue": "rx-0",
    "rps_cpus": "1", "rps_flow_cnt": 0,
}  # fmt: skip

Results = list[PairResult]


COUNTERS = procstat.Counters


class Lab:
    """Stands for the machine: the agent's next answers and the pairs' results."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.drift: list[list[Any] | Exception] = []
        self.pairs: Callable[[Sequence[Endpoint]], Results] = lambda active: [
            PairResult(
                pair.index,
                Values({"bitrate_mbps": 100.0 * pair.index, "retransmits": 2}, "cubic"),
                b"{}",
            )
            for pair in active
        ]
        self.interrupts = iter(range(0, 10_000, 5000))
        self.plans: list[dict[str, Any]] = []
        self.moments: list[float] = []
        self.proc = iter(["proc-before", "proc-after"])
        self.late = 0.0
        self.stat: Callable[[str], str] = lambda text: text

    def call(self, *words: str, plan: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(words)
        self.plans.append(plan)
        drift = self.drift.pop(0) if self.drift else []
        if isinstance(drift, Exception):
            raise drift
        return {"queues": [QUEUE], "sock_flow_entries": 32768, "drift": drift, "warnings": []}

    def run(
        self,
        _: Measurement,
        active: Sequence[Endpoint],
        at: Callable[[float, Sequence[int]], None],
    ) -> Results:
        at(0.0, [])
        return self.pairs(active)

    def sleep_until(self, moment: float) -> None:
        self.moments.append(moment)

    def read(self, own: list[int] | None) -> procstat.Sample:
        with ExitStack() as stack:
            read = COUNTERS(DATA / next(self.proc), stack).read(own)
        stat = self.stat(read.texts["stat"].decode()).encode()
        at = self.moments[-1] + self.late
        return read._replace(at=at, texts={**read.texts, "stat": stat})

    def confounders(self) -> Confounders:
        count = next(self.interrupts)
        return Confounders(nic_interrupts={"38 virtio2-input.0": [count, count]})


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab()
    monkeypatch.setattr(procstat, "Counters", lambda *_: lab)
    monkeypatch.setattr(procstat, "listed", dict)
    monkeypatch.setattr(procstat, "sleep_until", lab.sleep_until)
    monkeypatch.setattr(calls, "call", lab.call)
    monkeypatch.setattr(clients, "run", lab.run)
    monkeypatch.setattr(machine, "confounders", lab.confounders)
    monkeypatch.setattr(machine, "describe", lambda _: MACHINE)
    monkeypatch.setattr(LabBackend, "_server", lambda *_: 1)
    monkeypatch.setattr(
        LabBackend, "topology", lambda self, _: Topology((), self._what.pod_cpu_limit)
    )
    return lab


@pytest.fixture
def what() -> Measurement:
    return measurement.of(config.state("rfs-4", {"duration": "2", "omit": "1"}, (0, 1)))


def test_a_sound_run(lab: Lab, what: Measurement) -> None:
    place = measure.Place(block=3, order=17, seed=7, plan="abc", attempt=2)
    record, raw = measure.run(what, place=place)
    assert (record.valid, record.reasons) == (True, [])
    assert (record.configuration, record.replicas, record.idle_pairs) == ("rfs", 4, 0)
    assert (record.block, record.order, record.seed, record.plan) == (3, 17, 7, "abc")
    assert (record.attempt, record.congestion, record.causes) == (2, "cubic", [])
    assert record.definition == config.state("rfs-4", {}, (0, 1)).steering.definition
    assert (record.duration, record.omit, record.streams) == (2, 1, 1)
    assert record.machine == MACHINE
    assert [pair.values["bitrate_mbps"] for pair in record.pairs] == [100, 200, 300, 400]
    assert BITRATE.value(record) == 250
    assert raw == [b"{}"] * 4
    assert {(pair.server_node, pair.client_node) for pair in record.pairs} == {("lab", "lab")}
    assert (record.traffic, list(record.metrics)) == ("stream", ["bitrate_mbps", "retransmits"])
    # the accounts of the two edges, under the name of the one kernel
    assert [(core.node, core.core, core.soft, core.server) for core in record.cores] == [
        ("lab", 0, 70.995, True),
        ("lab", 1, 61.657, True),
    ]
    assert [row.received_rps for row in record.softnet] == [50357, 60738]
    assert record.window == 2
    assert record.harness is not None
    # read back on both sides, and the lease renewed each time
    assert lab.asked == [("verify", "--renew")] * 2
    assert lab.plans == [*what.plans, *what.plans]
    assert record.steering_before == record.steering_after
    assert record.steering_before is not None
    assert record.steering_before.sock_flow_entries == 32768
    assert record.steering_before.queues[0].model_dump() == {
        "node": "server", "role": "nic", "device": "eth1", "queue": "rx-0", "rps_cpus": "1",
        "rps_flow_cnt": 0, "pod": None,
    }  # fmt: skip
    assert record.foreign_cpu is None  # these edges have no processes
    moved, others = record.warnings
    assert moved == "interrupt 38 virtio2-input.0 moved between cores [0, 1] during the run"
    assert "other programs" in others


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
        ([[], KeyError("eth7")], ["steering after the run: KeyError: 'eth7'"]),
        (
            [[DRIFT], [DRIFT]],
            [f"steering {when} the run: {DRIFT['message']}" for when in ("before", "after")],
        ),
    ],
    ids=["before", "after", "agent failed", "a bug", "both"],
)
def test_drift_makes_a_run_invalid(
    lab: Lab, what: Measurement, drift: list[Any], reasons: list[str]
) -> None:
    lab.drift = drift
    record, _ = measure.run(what)
    assert (record.valid, record.reasons) == (False, reasons)
    assert BITRATE.value(record) == 250


def test_a_pair_that_fails_makes_the_run_invalid_and_is_not_zero(
    lab: Lab, what: Measurement
) -> None:
    dead = PairResult(2, Failure("traffic", "iperf3: control socket has closed"))
    lab.pairs = lambda _: [PairResult(1, Values({"bitrate_mbps": 90}), b"{}"), dead]
    record, raw = measure.run(what, replicas=2)
    assert (record.valid, record.reasons, record.causes) == (
        False,
        ["pair 2: iperf3: control socket has closed"],
        ["traffic"],
    )
    assert record.pairs[1].values == {"bitrate_mbps": None, "retransmits": None}
    assert BITRATE.value(record) is None
    assert raw == [b"{}", b""]


def test_a_value_that_a_pair_lacks_has_a_reason(lab: Lab, what: Measurement) -> None:
    lab.pairs = lambda _: [
        PairResult(1, Values({"bitrate_mbps": 90, "retransmits": 0})),
        PairResult(2, Values({"bitrate_mbps": 90})),
    ]
    record, _ = measure.run(what, replicas=2)
    assert record.valid
    assert record.pairs[1].values == {"bitrate_mbps": 90, "retransmits": None}
    (warning,) = [one for one in record.warnings if one.startswith("pair ")]
    assert warning.startswith("pair 2: ")
    assert "retransmits" in warning


@pytest.mark.usefixtures("lab")
def test_a_broken_barrier_is_one_reason_and_no_number(
    what: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Results:
        raise BarrierBroken("the client of pair 2 did not start")

    monkeypatch.setattr(clients, "run", broken)
    record, _ = measure.run(what)
    assert (record.valid, record.reasons) == (False, ["the client of pair 2 did not start"])
    assert [(pair.values["bitrate_mbps"], pair.reason) for pair in record.pairs] == [
        (None, "the client of pair 2 did not start")
    ] * 4
    assert (record.cores, record.softnet, record.window) == ([], [], None)
    jsonschema.validate(json.loads(record.model_dump_json()), SCHEMA)


def test_the_window_begins_after_what_is_omitted(lab: Lab, what: Measurement) -> None:
    measure.run(what)
    assert lab.moments[-2:] == [1, 3]


def test_throttling_of_limited_pods(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cpu.stat as cgroup v2 has it; what had no number before has none now."""
    what = measurement.of(config.state("rfs-2", {"podCpuLimit": "200m"}, (0, 1)))
    monkeypatch.setattr(clients, "cgroup_directory", lambda path: tmp_path / Path(path).name)
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


def test_a_counter_that_went_back_is_a_reason_and_no_negative_number(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = measurement.of(config.state("rfs-1", {"podCpuLimit": "200m", "duration": "2"}, (0, 1)))
    monkeypatch.setattr(clients, "cgroup_directory", lambda _: tmp_path)
    (tmp_path / "cpu.stat").write_text("nr_throttled 500\n")
    pairs = lab.pairs

    def recreate(active: Sequence[Endpoint]) -> Results:
        (tmp_path / "cpu.stat").write_text("nr_throttled 3\n")
        return pairs(active)

    lab.pairs = recreate
    record, _ = measure.run(what)
    assert record.pairs[0].throttled_periods is None
    assert (record.valid, record.causes) == (False, ["topology"])
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("seconds", [0.06, 1.7, 2.3, 45.0])
def test_a_window_of_another_length_is_a_reason(
    lab: Lab, what: Measurement, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(
        lab, "sleep_until", lambda _: lab.moments.append(seconds * len(lab.moments))
    )
    monkeypatch.setattr(procstat, "sleep_until", lab.sleep_until)
    record, _ = measure.run(what)
    assert record.window == seconds
    assert (record.valid, record.causes) == (False, ["window"])


@pytest.mark.parametrize("seconds", [1.9, 2.1])
def test_a_reader_that_wakes_up_late_is_no_reason(
    lab: Lab, what: Measurement, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(
        procstat, "sleep_until", lambda _: lab.moments.append(seconds * len(lab.moments))
    )
    record, _ = measure.run(what)
    assert record.valid


@pytest.mark.parametrize(
    ("when", "words"),
    [("proc-after", "core 1 of node lab went offline"), ("proc-before", "core 1 of node lab came")],
)
def test_a_core_that_comes_or_goes_is_a_reason(
    lab: Lab, what: Measurement, when: str, words: str
) -> None:
    texts = iter(("proc-before", "proc-after"))

    def without_core(text: str) -> str:
        return re.sub("(?m)^cpu1 .*\n", "", text) if next(texts) == when else text

    lab.stat = without_core
    record, _ = measure.run(what)
    assert not record.valid
    assert record.reasons[0].startswith(words)
    assert record.causes == ["cores"]


def test_a_server_core_that_was_never_there_is_a_reason(lab: Lab, what: Measurement) -> None:
    lab.stat = lambda text: re.sub("(?m)^cpu1 .*\n", "", text)
    record, _ = measure.run(what)
    assert "core 1 of node lab is not online" in record.reasons
    assert [core.core for core in record.cores] == [0]


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("method", ["drive", "confounders", "throttled", "topology", "describe"])
@pytest.mark.parametrize(
    "error", [TypeError("x"), ValueError("y"), KeyError("enp3s0"), OSError(5, "Input/output error")]
)
def test_whatever_a_site_raises_is_a_reason(
    what: Measurement, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(LabBackend, method, broken)
    record, _ = measure.run(what)
    assert not record.valid
    assert type(error).__name__ in record.reasons[0]
    jsonschema.validate(json.loads(record.model_dump_json()), SCHEMA)
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_senders_of_unlike_congestion_control_are_a_warning(lab: Lab, what: Measurement) -> None:
    lab.pairs = lambda _: [
        PairResult(index, Values({"bitrate_mbps": 9}, name), b"{}")
        for index, name in ((1, "bbr"), (2, "cubic"))
    ]
    record, _ = measure.run(what, replicas=2)
    assert record.congestion == "bbr, cubic"
    assert any("congestion" in warning for warning in record.warnings)


def test_a_line_beside_the_result_is_a_warning(lab: Lab, what: Measurement) -> None:
    lab.pairs = lambda _: [
        PairResult(
            1,
            Values({"bitrate_mbps": 9}, warnings=("warning: JSON data length overflow",)),
            b"{}",
        )
    ]
    record, _ = measure.run(what, replicas=1)
    assert record.valid
    assert "pair 1: warning: JSON data length overflow" in record.warnings


TEXTS = st.text() | st.sampled_from(["veth\udcff", "\udc80", "a\x1b[2J", "\0"])


@pytest.mark.parametrize(("rates", "valid"), [((0.0, 90.0), True), ((0.0, 0.0), False)])
def test_a_starved_pair_counts_and_a_run_without_data_does_not(
    lab: Lab, what: Measurement, rates: tuple[float, float], valid: bool
) -> None:
    lab.pairs = lambda _: [
        PairResult(index, Values({"bitrate_mbps": rate})) for index, rate in enumerate(rates, 1)
    ]
    record, _ = measure.run(what)
    assert record.valid == valid
    assert [pair.values["bitrate_mbps"] for pair in record.pairs] == list(rates)


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=True, allow_infinity=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_record_that_is_written_can_be_read(
    lab: Lab, what: Measurement, data: st.DataObject
) -> None:
    """Whatever the agent, iperf3 and /proc bring."""

    def pairs(_: Sequence[Endpoint]) -> Results:
        received = {
            key: data.draw(NUMBERS | st.none() | TEXTS)
            for key in ("bits_per_second", "bytes", "seconds")
        }
        report = {
            "end": {
                "streams": [{}],
                "sum_received": received,
                "sum_sent": {"retransmits": data.draw(NUMBERS | TEXTS)},
                "sender_tcp_congestion": data.draw(TEXTS | st.none()),
            }
        }
        return [PairResult(1, Stream().parse(json.dumps(report).encode(), b"", 0, what))]

    def answer(*_: str, **__: object) -> dict[str, Any]:
        queue = {**QUEUE, "device": data.draw(TEXTS), "rps_flow_cnt": data.draw(NUMBERS)}
        return {
            "queues": [queue],
            "sock_flow_entries": data.draw(NUMBERS | st.none()),
            "drift": [{"message": data.draw(TEXTS)}],
            "warnings": [data.draw(TEXTS)],
        }

    lab.proc = iter(["proc-before", "proc-after"])
    lab.interrupts = iter([0, 1])
    lab.pairs = pairs
    lab.stat = lambda text: re.sub(
        r"(?m)^cpu1 \d+", lambda _: f"cpu1 {data.draw(st.integers(0, 2**64))}", text
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "call", answer)
        record, _ = measure.run(what, replicas=1)
    text = record.model_dump_json()
    assert Record.model_validate_json(text) == record
    jsonschema.validate(json.loads(text), SCHEMA)


def test_an_interrupt_is_not_taken_for_an_invalid_run(lab: Lab, what: Measurement) -> None:
    def interrupted(_: object) -> Results:
        raise KeyboardInterrupt

    lab.pairs = interrupted
    with pytest.raises(KeyboardInterrupt):
        measure.run(what)


def test_a_record_has_the_value_of_every_other_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "KNOBS", ["rps_cpus", "xps_cpus", "timeout", "mask", "budget"])
    known = {"role": "nic", "pod": None, "namespace": None}
    answer = {
        "queues": [QUEUE, {**known, "device": "eth1", "queue": "tx-1", "xps_cpus": "3"}],
        "devices": [{**known, "device": "eth1", "timeout": 20}],
        "namespaces": [{**known, "mask": "f"}],
        "machine": {"budget": 600, "rps_sock_flow_entries": 1},
    }
    rows = [tuple(one.model_dump().values()) for one in readback._settings("n", answer)]
    assert rows == [
        ("n", "nic", "eth1", "tx-1", "xps_cpus", "3"),
        ("n", "nic", "eth1", "device", "timeout", "20"),
        ("n", "nic", "", "namespace", "mask", "f"),
        ("n", "machine", "", "machine", "budget", "600"),
    ]


NUMBERS = {"p50_us": 40.0, "p99_us": 90.0, "p999_us": 200.0, "requests_per_second": 1e4}


def mixed(probe: Values | Failure) -> Callable[[Sequence[Endpoint]], Results]:
    """The results of two streams and of the pair beside them."""
    stream = Values({"bitrate_mbps": 100.0, "retransmits": 0}, congestion="cubic")
    return lambda active: [PairResult(p.index, probe if p.index == 5 else stream) for p in active]


@pytest.fixture
def beside() -> Measurement:
    values = {"duration": "2", "omit": "1", "traffic": "mixed:rate=300M"}
    return measurement.of(config.state("rfs-4", values, (0, 1)))


def test_each_pair_has_the_values_of_its_kind(lab: Lab, beside: Measurement) -> None:
    lab.pairs = mixed(Values(NUMBERS, latency=((0.5, 40.0), (1, 300.0))))
    record, _ = measure.run(beside, replicas=2)
    assert record.reasons == []
    assert [(pair.index, pair.kind) for pair in record.pairs] == [
        (1, "stream"), (2, "stream"), (5, "rr"),
    ]  # fmt: skip
    assert record.pairs[0].values == {"bitrate_mbps": 100.0, "retransmits": 0}
    assert (record.pairs[2].values, record.pairs[2].latency) == (NUMBERS, [(0.5, 40), (1, 300)])
    assert (record.replicas, record.idle_pairs, record.traffic) == (2, 2, "mixed:rate=300M")
    assert record.metrics.keys() == {"bitrate_mbps", "retransmits", *NUMBERS}
    assert (METRICS["bitrate_mbps"].value(record), METRICS["p99_us"].value(record)) == (100, 90)
    assert tables.problems(record) == []
    jsonschema.validate(json.loads(record.model_dump_json()), SCHEMA)


def test_a_pair_beside_the_others_that_fails_makes_the_run_invalid(
    lab: Lab, beside: Measurement
) -> None:
    lab.pairs = mixed(Failure("traffic", "sockperf: Connection refused"))
    record, _ = measure.run(beside, replicas=2)
    assert record.reasons == ["pair 5: sockperf: Connection refused"]
    assert record.pairs[2].values == dict.fromkeys(NUMBERS)


def test_a_pair_beside_the_others_without_a_quantile_has_a_warning(
    lab: Lab, beside: Measurement
) -> None:
    lab.pairs = mixed(Values({name: NUMBERS[name] for name in NUMBERS if name != "p999_us"}))
    record, _ = measure.run(beside, replicas=2)
    assert record.valid
    assert record.pairs[2].values == NUMBERS | {"p999_us": None}
    assert [one for one in record.warnings if "p999_us" in one and one.startswith("pair 5")]


def test_streams_without_data_beside_requests_are_a_reason(lab: Lab, beside: Measurement) -> None:
    starved = Values({"bitrate_mbps": 0.0, "retransmits": 0})
    lab.pairs = lambda active: [
        PairResult(p.index, Values(NUMBERS) if p.index == 5 else starved) for p in active
    ]
    record, _ = measure.run(beside)
    assert record.causes == ["traffic"]
