"""Episodes without a lab: records of what the agent answers, and a sweep of them that is resumed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any

import jsonschema
import pytest
from test_sweep import Engine

from analysis import machine as conditions
from analysis import schema, sequential
from analysis.load import load
from analysis.metrics import METRICS
from analysis.schema import Confounders, Machine, Pair, Record
from experiments.host import calls, machine, procstat
from experiments.run import episodes, matrix, switchback
from experiments.run.attempts import RunsInvalid
from experiments.run.episodes import Timing
from experiments.run.measure import Place
from experiments.run.plan import SweepPlan
from experiments.run.sweep import Sweep
from experiments.targets import windows
from experiments.targets.contract import Topology
from experiments.targets.lab import clients
from experiments.targets.lab.backend import LabBackend
from infra import config, traffic
from infra.errors import PrerequisiteMissing
from infra.lab import measurement
from infra.lab.measurement import Measurement
from infra.traffic import pingpong
from infra.traffic.contract import Kind

SCHEMA = json.loads((Path(schema.__file__).parent / "record.schema.json").read_text())
DATA = Path(__file__).parent / "data"
NAMES = ("rfs", "baseline", "rps")
TIMING = Timing(0.4, 0.1)
SETTLES = (0.1, 0.3, 0.2)
SERVERS = {1: 71, 2: 72}
READ = procstat.CounterSample.read


def edge(folder: str, at: float) -> dict[str, Any]:
    read = READ(DATA / folder)
    return {
        "at": at, "own_cpu": at / 1000, "tasks": [], "own": None, "tick": 100,
        "stat": read.stat, "softirqs": read.softirqs, "softnet": read.softnet,
    }  # fmt: skip


class Lab:
    """Stands for agent and clients: the windows of the schedule, each changed by `spoil`."""

    def __init__(self) -> None:
        self.schedules: list[dict[str, Any]] = []
        self.spoil: Callable[[dict[str, Any]], None] = lambda _: None
        self.refuses: Exception | None = None
        self.drift: list[Any] = []
        self.seconds: list[int] = []
        self.early: set[int] = set()
        self.printed = b""  # by the client that measures latency
        self.lasts = 60.0  # seconds between the counters around an episode

    @contextmanager
    def episode(self, schedule: dict[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
        self.schedules.append(schedule)
        if self.refuses:
            raise self.refuses
        yield lambda: self.answer(schedule)

    def answer(self, schedule: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for number, window in enumerate(schedule["windows"]):
            at, first = 100 + window["at"], 100 + window["at"] + window["settle"]
            sizes = [[moment * 10**6 * index for index in SERVERS] for moment in (0, 2, 7)]
            row = {
                **window,
                "edges": [edge("proc-before", first), edge("proc-after", first + 0.4)],
                "received": [
                    {"bytes": 5e6 * (number + 1) * index, "seconds": 0.4} for index in SERVERS
                ],
                "trace": [
                    {"at": moment, "bytes": size}
                    for moment, size in zip((at, first, first + 0.4), sizes, strict=True)
                ],
                "spoiled": [],
            }
            self.spoil(row)
            rows.append(row)
        plans = {
            name: {
                "queues": [{
                    "role": "nic", "device": "eth1", "queue": "rx-0",
                    "rps_cpus": "3" if name == "rps" else "0", "rps_flow_cnt": 0,
                }],
                "sock_flow_entries": 0, "warnings": [],
            }
            for name in schedule["plans"]
        }  # fmt: skip
        answer = {"owner": "rfs-2/server", "start": 100, "windows": rows, "plans": plans}
        return calls.read("switchback", 0, json.dumps(answer), "")

    def verify(self, *_: str, plan: dict[str, Any]) -> dict[str, Any]:
        del plan
        return {"queues": [], "sock_flow_entries": 0, "drift": self.drift, "warnings": []}

    def read(self, own: Sequence[int]) -> procstat.CounterSample:
        """The counters before an episode, then those after it; the experiment itself used no time."""
        folder, at = self.around.pop(0)
        tasks = [f"{pid} 1 5 0 0 0 0 iperf3" for pid in own]
        return procstat.CounterSample.of({**edge(folder, at), "own": own, "tasks": tasks})

    def barrier(self, what: Measurement, endpoints: Sequence[Any], *, lasting: bool) -> Lab:
        assert lasting
        self.seconds.append(what.duration)
        kinds = traffic.of(what.traffic).pairs(what.replicas)
        self.clients = [
            Client(one.index, kinds[one.index], one.index in self.early, self.printed)
            for one in endpoints
        ]
        self.around = [("proc-before", 100), ("proc-after", 100 + self.lasts)]
        return self

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def release(self) -> float:
        return 0.0


class Client:
    """A client that still runs, or has ended early."""

    def __init__(self, index: int, kind: Kind, ended: bool, printed: bytes) -> None:
        self.endpoint = self
        self.kind = kind
        self.printed = printed
        self.told: list[int] = []
        self.process = self
        self.index = index
        self.pid = 900 + index
        self.ended = ended

    def poll(self) -> int | None:
        return 1 if self.ended else None

    def finish(self, _: float, what: Measurement) -> Any:
        outcome = self.kind.parse(b"", b"iperf3: cannot connect", 1, what)
        return type("Result", (), {"outcome": outcome})

    def send(self, number: int) -> None:
        self.told.append(number)

    def read(self, _: float, parse: Callable[[bytes, bytes, int], Any]) -> Any:
        assert self.told == [signal.SIGTERM]
        if self.ended:
            return parse(b"", b"192.0.2.1 port 5201: Connection refused", 1), b""
        return parse(self.printed, b"", 0), self.printed


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab()
    monkeypatch.setattr(calls, "episode", lab.episode)
    monkeypatch.setattr(calls, "call", lab.verify)
    monkeypatch.setattr(clients, "Barrier", lab.barrier)
    monkeypatch.setattr(procstat.CounterSample, "read", lab.read)
    monkeypatch.setattr(machine, "confounders", Confounders)
    monkeypatch.setattr(
        machine, "describe", lambda _: Machine(kernel="6.18", cpu="AMD EPYC", cores=2)
    )
    monkeypatch.setattr(LabBackend, "_server", lambda _, pair: {**SERVERS, 4: 74}.get(pair.index))
    monkeypatch.setattr(
        LabBackend, "topology", lambda self, _: Topology((), self._what.pod_cpu_limit)
    )
    return lab


STREAMS, MIXED = "stream:congestion=cubic", "mixed:congestion=cubic,rate=300M"


def whats(kind: str = STREAMS) -> list[Measurement]:
    values = {"traffic": kind, "replicas": "3"}
    return [
        measurement.of(config.state("sweep-x", {**values, "configuration": name}, (0, 1)))
        for name in NAMES
    ]


def measured(pairs: int = 2, kind: str = STREAMS, timing: Timing = TIMING) -> dict[str, Record]:
    """The records of an episode by configuration, as they are written and read back."""
    places = [Place(3, 10 + number, 7, "abc", 2) for number in range(len(NAMES))]
    made = switchback.run(whats(kind), "baseline", replicas=pairs, timing=timing, places=places)
    for record in made:
        jsonschema.validate(json.loads(record.model_dump_json()), SCHEMA)
    return {one.configuration: Record.model_validate_json(one.model_dump_json()) for one in made}


# records


def printed(every: float, took: Callable[[float], float], seconds: float = 4.0) -> bytes:
    """The output of a client from the start of the episode: trips by their time and length in seconds."""
    trips = pingpong.Trips()
    for number in range(round(seconds / every)):
        trips.began.append(round((100 + number * every) * 1e9))
        trips.took.append(round(took(number * every) * 1e9))
    return json.dumps(trips.document()).encode()


def test_a_window_of_mixed_traffic_has_the_latency_in_it(lab: Lab) -> None:
    """Windows from 0.5, 1.01 and 1.52 s after the start, of 0.4 s; the second one is slow."""
    lab.printed = printed(0.0005, lambda at: 200e-6 if 0.92 < at < 1.43 else 80e-6)
    records = measured(2, MIXED)
    assert {record.configuration: record.valid for record in records.values()} == dict.fromkeys(
        NAMES, True
    )
    assert lab.schedules[0]["receivers"] == [71, 72]
    for record in records.values():
        assert [pair.kind for pair in record.pairs] == ["stream", "stream", "rr"]
        assert [pair.index for pair in record.pairs] == [1, 2, 4]
        assert (record.replicas, record.idle_pairs, record.congestion) == (2, 1, "cubic")
        assert [[*pair.values] for pair in record.pairs[:2]] == [["bitrate_mbps"]] * 2
        probe = record.pairs[2]
        slow = record.configuration == "baseline"
        assert probe.values["p50_us"] == probe.values["p99_us"] == (100 if slow else 40)
        assert probe.values["p999_us"] is None  # of 800 trips
        assert probe.values["requests_per_second"] == pytest.approx(2000, rel=0.01)
        assert dict(probe.latency)[0.99] == probe.values["p99_us"]
        assert probe.halves == (probe.values["p50_us"],) * 2
        assert any("p999_us" in warning for warning in record.warnings)
        assert METRICS["p99_us"].value(record) == probe.values["p99_us"]
        assert METRICS["bitrate_mbps"].value(record) is not None


def test_a_window_without_latency_does_not_count(lab: Lab) -> None:
    lab.printed = printed(0.001, lambda _: 1e-4, seconds=1.3)
    records = measured(2, MIXED)
    assert [record.valid for record in records.values()] == [True, True, False]
    (reason,) = records["rps"].reasons
    assert reason.startswith("pair 4: no two requests")
    assert records["rps"].pairs[2].values["p99_us"] is None
    lab.early = {4}
    assert {reason for record in measured(2, MIXED).values() for reason in record.reasons} == {
        "pair 4: 192.0.2.1 port 5201: Connection refused"
    }
    lab.refuses = PrerequisiteMissing("no agent")
    for record in measured(2, MIXED).values():
        assert [pair.kind for pair in record.pairs] == ["stream", "stream", "rr"]


@pytest.mark.usefixtures("lab")
def test_each_window_is_a_record() -> None:
    found = measured()
    assert list(found) == list(NAMES)
    for number, (name, record) in enumerate(found.items()):
        assert (record.valid, record.reasons) == (True, [])
        assert (record.method, record.block, record.order) == ("switchback", 3, 10 + number)
        assert (record.seed, record.plan, record.attempt) == (7, "abc", 2)
        assert (record.duration, record.omit, record.window) == (0.4, 0.1, pytest.approx(0.4))
        assert (record.replicas, record.idle_pairs, record.congestion) == (2, 1, "cubic")
        assert record.definition == whats()[number].definition
        rates = [pair.values for pair in record.pairs]
        assert rates == [{"bitrate_mbps": 100.0 * (number + 1) * index} for index in (1, 2)]
        assert [core.soft for core in record.cores] == [70.995, 61.657]
        assert [row.received_rps for row in record.softnet] == [50357, 60738]
        assert record.harness
        assert record.harness.cpu_seconds == pytest.approx(0.0004)
        assert record.steering_before == record.steering_after
        assert record.steering_before
        (queue,) = record.steering_before.queues
        assert (queue.node, queue.rps_cpus) == ("server", "3" if name == "rps" else "0")
        settling, window = record.goodput
        assert settling.at == pytest.approx(episodes.WARM_UP_S + number * TIMING.period, abs=0.001)
        assert window.at == pytest.approx(settling.at + 0.1)
        assert (settling.mbps, window.mbps) == (pytest.approx(480), pytest.approx(300))
    starts = [record.start for record in found.values() if record.start]
    assert starts == sorted(set(starts))
    assert len(starts) == len(found)
    # the clock of the agent's readings is the node's own, which here began long ago or later
    ahead = [(start - datetime.now(UTC)).total_seconds() for start in starts]
    assert all(-30 < seconds < 30 for seconds in ahead)


def test_windows_settle_as_long_as_their_changes_need(lab: Lab) -> None:
    found = measured(timing=Timing(0.4, 0.3, settles=SETTLES))
    windows = lab.schedules[0]["windows"]
    assert [window["settle"] for window in windows] == [*SETTLES]
    assert [record.omit for record in found.values()] == [*SETTLES]
    for before, after in pairwise(windows):
        free = after["at"] - before["at"] - before["settle"] - before["seconds"]
        assert free == pytest.approx(episodes.BETWEEN_S)


def test_a_part_of_a_window_without_all_its_connections_is_left_out() -> None:
    bytes_of = [[0, 0], [1e6, None], [2e6, 5e6], [3e6, 6e6], [3e6, 5e6]]
    trace = [{"at": 7 + n / 8, "bytes": each} for n, each in enumerate(bytes_of)]
    (part,) = windows.over_time(trace, 5)
    assert (part.at, part.seconds, part.mbps) == (2.25, 0.125, 128)


def test_the_schedule_is_the_episode_s(lab: Lab) -> None:
    measured()
    (schedule,) = lab.schedules
    assert [window["plan"] for window in schedule["windows"]] == list(NAMES)
    assert schedule["plans"] == {what.configuration: what.plans[0] for what in whats()}
    assert (schedule["receivers"], schedule["connections"]) == ([71, 72], 2)
    last = schedule["windows"][-1]
    assert lab.seconds[0] > last["at"] + last["settle"] + last["seconds"] + 1


@pytest.mark.parametrize(
    ("spoiled", "cause", "words"),
    [
        ({"kind": "late", "message": "it lasted 9 s"}, "window", "the window is late: it lasted"),
        ({"kind": "value", "message": "eth1"}, "steering", "steering in the window: eth1"),
        ({"kind": "receiver", "receiver": 1, "message": "ended"}, "traffic", "pair 2: ended"),
    ],
)
def test_a_spoiled_window_is_not_valid_alone(
    lab: Lab, spoiled: dict[str, Any], cause: str, words: str
) -> None:
    def spoil(row: dict[str, Any]) -> None:
        if row["plan"] == "rfs":
            row["spoiled"].append(spoiled)
            row["received"][1] = None

    lab.spoil = spoil
    found = measured()
    assert [record.valid for record in found.values()] == [False, True, True]
    assert found["rfs"].reasons[0].startswith(words)
    assert cause in found["rfs"].causes
    assert found["rfs"].pairs[1].values == {"bitrate_mbps": None}
    assert found["rfs"].pairs[1].reason


def test_a_window_without_any_data_is_not_valid(lab: Lab) -> None:
    def spoil(row: dict[str, Any]) -> None:
        for got in row["received"]:
            got["bytes"] *= row["plan"] != "rps"

    lab.spoil = spoil
    found = measured()
    assert [record.valid for record in found.values()] == [True, True, False]
    assert found["rps"].causes == ["traffic"]


def test_without_the_baseline_s_window_nothing_counts(lab: Lab) -> None:
    lab.spoil = lambda row: row["spoiled"].extend(
        [{"kind": "late", "message": "it lasted 9 s"}] * (row["plan"] == "baseline")
    )
    found = measured()
    assert not any(record.valid for record in found.values())
    assert {cause for record in found.values() for cause in record.causes} == {"window"}
    assert found["rps"].reasons[0].startswith("the episode has no valid window of baseline")


def test_an_agent_that_refuses_leaves_records_with_its_words(lab: Lab) -> None:
    lab.refuses = PrerequisiteMissing("eth1 is not here")
    found = measured()
    for record in found.values():
        assert (record.valid, record.causes) == (False, ["agent"])
        assert record.reasons == ["episode: eth1 is not here"]
        assert [pair.values for pair in record.pairs] == [{"bitrate_mbps": None}] * 2
        assert record.start
    assert len({record.start for record in found.values()}) == 3


@pytest.mark.usefixtures("lab")
def test_a_server_that_does_not_run_is_a_reason() -> None:
    found = measured(pairs=3)
    assert found["rfs"].reasons == ["the server of pair 3 does not run"]
    assert found["rfs"].causes == ["start"]


def test_a_client_that_ends_early_is_a_reason(lab: Lab) -> None:
    def spoil(row: dict[str, Any]) -> None:
        if row["plan"] != "rfs":
            row["spoiled"] = [{"kind": "receiver", "receiver": 1, "message": "no connection"}]
            row["received"][1] = None

    lab.early, lab.spoil = {2}, spoil
    found = measured()
    assert not any(record.valid for record in found.values())
    first, second = found["rps"].reasons
    assert first.startswith("pair 2: the client ended before the last window")
    assert "cannot connect" in first
    assert second == "pair 2: no connection"


def test_a_client_that_ends_while_the_agent_restores_spoils_nothing(lab: Lab) -> None:
    lab.early = {2}
    assert all(record.valid for record in measured().values())


def test_other_programs_are_counted_over_the_episode(lab: Lab) -> None:
    """29.63 s of user and system time on both cores, 60 s of which no process is the experiment's."""
    for record in measured().values():
        assert record.valid
        assert record.foreign_cpu == pytest.approx(29.63 / 60, abs=1e-4)
    lab.lasts = 15.0
    found = measured()
    assert not any(record.valid for record in found.values())
    assert {tuple(record.causes) for record in found.values()} == {("foreign-load",)}


def test_drift_around_an_episode_is_a_reason_against_it(lab: Lab) -> None:
    lab.drift = [{"message": "eth1 rx-0: rps_cpus is 3, not 1"}]
    found = measured()
    assert {tuple(record.causes) for record in found.values()} == {("steering",)}


@pytest.mark.usefixtures("lab")
def test_the_method_is_a_condition() -> None:
    record = measured()["rps"]
    other = record.model_copy(update={"method": "isolated"})
    found = conditions.differences(conditions.conditions([record]), conditions.conditions([other]))
    assert found == ["method: switchback against isolated"]


# sweeps


class Rig:
    """A results directory; `bad` are the windows (block, configuration) that are not valid."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = Engine()
        self.bad: set[tuple[int, str]] = set()
        self.done: list[tuple[int, int]] = []  # block, attempt
        self.dies: Callable[[int], None] = lambda _: None
        self.rate: Callable[[int], float] = lambda _: 100.0
        self.seen: list[list[str]] = []

    def run(self, what: Sequence[Measurement], key: str, **given: Any) -> list[Record]:
        places: Sequence[Place] = given["places"]
        block = places[0].block
        assert block is not None
        self.done.append((block, places[0].attempt))
        self.seen.append([one.configuration for one in what])
        self.dies(block)
        bad = {one.configuration for one in what if (block, one.configuration) in self.bad}
        if key in bad:
            bad = {one.configuration for one in what}
        return [
            Record(
                target="lab", method="switchback", stack=one.stack, definition=one.definition,
                configuration=one.configuration, replicas=given["replicas"],
                valid=one.configuration not in bad,
                reasons=["late"] * (one.configuration in bad),
                causes=["window"] * (one.configuration in bad),
                pairs=[
                    Pair(index=index, values={"bitrate_mbps": self.rate(place.order or 0)})
                    for index in range(1, given["replicas"] + 1)
                ],
                duration=0.4, block=place.block, order=place.order, seed=place.seed,
                plan=place.plan, attempt=place.attempt,
            )
            for one, place in zip(what, places, strict=True)
        ]  # fmt: skip

    def sweep(self, made: SweepPlan, resume: bool = False, **more: Any) -> list[tuple[int, int]]:
        self.done.clear()
        self.seen.clear()
        job = Sweep(self.directory, made, self.engine, **more)
        job.run(job.prepare(resume=resume))
        return self.done

    @property
    def records(self) -> list[Record]:
        return load(self.directory).records


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path / "out")
    monkeypatch.setattr(switchback, "run", rig.run)
    return rig


def make(**changes: Any) -> SweepPlan:
    fields: dict[str, Any] = {
        "configurations": ",".join(NAMES), "replicas": "2", "runs": 3, "seed": 7,
        "method": "switchback",
    }  # fmt: skip
    return matrix.plan(fields | changes)


def once(records: Sequence[Record]) -> bool:
    """Each run has one valid record."""
    return set(Counter(record.order for record in records if record.valid).values()) == {1}


def test_episodes_follow_the_plan_and_the_baseline_stands(rig: Rig) -> None:
    made = make()
    assert rig.sweep(made) == [(0, 1), (1, 1), (2, 1)]
    assert rig.engine.verbs == ["up", "destroy"]
    assert rig.engine.asked[0][1].config["steerlab:configuration"] == "baseline"
    assert [name for names in rig.seen for name in names] == [
        run.configuration for run in made.runs
    ]
    assert len(rig.records) == 9
    assert once(rig.records)


def test_a_spoiled_window_stays_one_and_its_episode_is_not_repeated(rig: Rig) -> None:
    rig.bad = {(1, "rps")}
    made = make()
    assert rig.sweep(made) == [(0, 1), (1, 1), (2, 1)]
    assert [(r.block, r.configuration) for r in rig.records if not r.valid] == [(1, "rps")]
    assert rig.sweep(made, resume=True) == []


def test_an_episode_that_failed_is_repeated_and_later_again(rig: Rig) -> None:
    rig.bad = {(1, "baseline")}
    made = make()
    assert rig.sweep(made) == [(0, 1), (1, 1), (1, 2), (2, 1)]
    rig.bad = set()
    assert rig.sweep(made, resume=True) == [(1, 3)]
    assert once(rig.records)
    assert Counter(r.attempt for r in rig.records if r.block == 1) == {1: 3, 2: 3, 3: 3}


def test_three_failed_episodes_in_a_row_end_the_sweep(rig: Rig) -> None:
    rig.bad = {(block, "baseline") for block in (1, 2, 3)}
    with pytest.raises(RunsInvalid, match="window"):
        rig.sweep(make(runs=6))
    assert rig.done[-1] == (3, 2)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_an_episode_that_was_interrupted_is_repeated_without_duplicates(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Killed before its records, and between two of them."""
    from experiments.run import records

    write, left = records.write, iter(range(3 + written))

    def dying(*given: Any) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return write(*given)

    monkeypatch.setattr(records, "write", dying)
    made = make()
    with pytest.raises(KeyboardInterrupt):
        rig.sweep(made)
    assert len(rig.records) == 3 + written
    monkeypatch.setattr(records, "write", write)
    kept = [record for record in rig.records if record.block == 0]
    job = Sweep(rig.directory, made, rig.engine)
    assert len(job.prepare(resume=True)) == 6
    assert rig.records == kept  # nothing of an episode that is not complete
    assert rig.sweep(made, resume=True) == [(1, 1), (2, 1)]
    assert len(rig.records) == 9
    assert once(rig.records)


def test_until_ci_leaves_out_what_is_known(rig: Rig) -> None:
    made = make(runs=20, until_ci=0.1)
    wide = {run.order for run in made.runs if run.configuration == "rfs"}
    rig.rate = lambda order: 100 + 80 * (order % 2) if order in wide else 100 + order % 5 / 10
    assert len(rig.sweep(made)) == 20
    fewest = sequential.FEWEST
    assert [sorted(names) for names in rig.seen[fewest:]] == [["baseline", "rfs"]] * (20 - fewest)
    assert rig.sweep(made, resume=True) == []


def test_no_episode_begins_that_would_end_late(rig: Rig) -> None:
    made = make()
    one = made.seconds_of(made.together)
    assert one == pytest.approx(3 * 0.61 + episodes.WARM_UP_S + episodes.OVERHEAD_S, abs=0.1)
    assert rig.sweep(made, max_seconds=one / 2) == []
    assert rig.engine.verbs == ["destroy"]


def test_an_agent_that_ends_before_its_start_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = "read -r _; exec <&-; echo ready; echo steer: another owner steers eth1 >&2; exit 3"
    monkeypatch.setattr(calls, "COMMAND", ["sh", "-c", script])
    with calls.episode({}) as start:
        sleep(0.2)
        with pytest.raises(PrerequisiteMissing, match="another owner"):
            start()
