"""A sweep with a stand-in for the engine and the measurement: order, retries, ends and resumption."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from analysis import sequential
from analysis.load import load
from analysis.schema import Machine, Pair, Record
from experiments.engines import EngineError, Outcome, StackRef
from experiments.run import measure, options, plan, sweep
from experiments.run.attempts import RunsInvalid
from experiments.run.measure import Place
from experiments.run.plan import SweepPlan
from experiments.run.sweep import Done, Sweep
from experiments.validity import REMEDIES, Cause
from infra import configurations
from infra.errors import InvalidInput
from infra.lab.measurement import Measurement


class Engine:
    """Notes what it is asked for; `fails` is raised by the next `up`, `stays` by `destroy`."""

    name = "embedded"

    def __init__(self) -> None:
        self.asked: list[tuple[str, StackRef]] = []
        self.replaced: list[list[str]] = []
        self.known: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.stays: Exception | None = None

    def up(self, stack: StackRef, *, replace: Sequence[str] = (), **_: Any) -> Outcome:
        self.asked.append(("up", stack))
        self.replaced.append(list(replace))
        if self.fails:
            raise self.fails
        return Outcome((), 0, {})

    def destroy(self, stack: StackRef, **_: Any) -> Outcome:
        self.asked.append(("destroy", stack))
        if self.stays:
            raise self.stays
        return Outcome((), 0, {})

    def preview(self, *_: object, **__: object) -> Outcome:
        raise AssertionError("a sweep previews nothing")

    def outputs(self, _: StackRef) -> dict[str, Any]:
        raise AssertionError("a sweep asks for no outputs")

    def resources(self, _: StackRef) -> list[dict[str, Any]]:
        return self.known

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]


@dataclasses.dataclass
class Rig:
    """One results directory, the engine, and the runs that were measured, by their order."""

    directory: Path
    engine: Engine
    measured: list[int] = dataclasses.field(default_factory=list)
    before: Callable[[int], None] = lambda _: None
    invalid: set[int] = dataclasses.field(default_factory=set)  # at the first attempt
    causes: dict[int, list[str]] = dataclasses.field(default_factory=dict)  # at every attempt
    held: list[Measurement] = dataclasses.field(default_factory=list)
    described: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    rate: Callable[[int], float] = lambda _: 100

    def measure(
        self, what: Measurement, *, replicas: int, place: Place, on: Machine | None
    ) -> tuple[Record, list[bytes]]:
        assert place.order is not None
        self.before(place.order)
        tries = self.measured.count(place.order)
        self.measured.append(place.order)
        self.held.append(what)
        valid = place.order not in self.invalid or tries > 0
        valid = valid and place.order not in self.causes
        reasons = [] if valid else ["the server died"]
        record = Record(
            target="lab", stack=what.stack, configuration=what.configuration, path=what.path,
            replicas=replicas, idle_pairs=what.replicas - replicas, valid=valid,
            reasons=reasons, causes=self.causes.get(place.order, reasons),
            attempt=place.attempt, definition=what.definition, duration=what.duration,
            machine=on or self.describe(what),
            pairs=[Pair(index=1, values={"bitrate_mbps": self.rate(place.order)})],
            block=place.block, order=place.order, seed=place.seed, plan=place.plan,
        )  # fmt: skip
        return record, [b"{}"]

    def describe(self, what: Measurement) -> Machine:
        self.described.append((what.path, what.configuration))
        return Machine(kernel=" ".join(self.described[-1]), cpu="x", cores=2)

    def sweep(self, made: SweepPlan, resume: bool = False) -> list[int]:
        """Runs a sweep to its end; the orders that it measured."""
        self.measured.clear()
        self.engine.asked.clear()
        job = Sweep(self.directory, made, self.engine)
        job.run(job.prepare(resume=resume))
        return self.measured

    @property
    def kept(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (self.directory / "records").glob("run-*.json")}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig(tmp_path / "out", Engine())
    monkeypatch.setattr(measure, "run", rig.measure)
    return rig


def make(**changes: Any) -> SweepPlan:
    fields: dict[str, Any] = {
        "seed": 7, "blocks": 2, "configurations": ["baseline", "rfs"], "replicas": [1, 2],
        "paths": ["overlay"], "duration": 2, "omit": 1, "streams": 1,
    }  # fmt: skip
    asked = options.read(fields | changes)
    return plan.make(asked, known=configurations.load(asked.own), cpus=2)


def test_runs_follow_the_plan_and_leave_its_records(rig: Rig) -> None:
    made = make(paths=["overlay", "host"])
    assert rig.sweep(made) == list(range(16))
    records = load(rig.directory).records
    for record, run in zip(records, made.runs, strict=True):
        assert record.plan == made.digest
        assert (record.order, record.block, record.path, record.replicas, record.configuration) == (
            dataclasses.astuple(run)
        )
        assert record.replicas + record.idle_pairs == 2
        assert record.machine is not None
        assert record.machine.kernel == f"{run.path} {run.configuration}"
    # once for each path and configuration: one of them may set an offload
    assert len(rig.described) == len(set(rig.described)) == 4
    assert sorted(path.name for path in rig.directory.iterdir()) == ["plan.json", "records"]


def test_the_engine_is_asked_only_where_the_steering_changes(rig: Rig) -> None:
    """Pods stand for the largest count throughout: another replica count is no new state."""
    made = make()
    rig.sweep(made)
    names = [run.configuration for run in made.runs]
    changes = 1 + sum(a != b for a, b in pairwise(names))
    assert rig.engine.verbs == ["up"] * changes + ["destroy"]
    assert changes < len(names)
    assert {stack.config["steerlab:replicas"] for _, stack in rig.engine.asked} == {"2"}


def test_the_stack_is_the_sweeps_own(rig: Rig) -> None:
    made = make(pod_cpu_limit="200m")
    rig.sweep(made)
    stacks = [stack for _, stack in rig.engine.asked]
    assert {(stack.home, stack.name) for stack in stacks} == {
        (rig.directory, f"sweep-{made.digest}")
    }
    assert stacks[0].config == {
        "steerlab:configuration": made.runs[0].configuration,
        "steerlab:replicas": "2",
        "steerlab:lab": '{"path": "overlay"}',
        "steerlab:runs": "0",
        "steerlab:duration": "2",
        "steerlab:omit": "1",
        "steerlab:streams": "1",
        "steerlab:podCpuLimit": "200m",
    }


def test_an_invalid_run_is_repaired_and_made_once_more(rig: Rig) -> None:
    urn = "urn:pulumi:x::steerlab::command:local:Command::claim-file"
    rig.invalid = {3}

    def break_it(order: int) -> None:
        stdout = f'{{"file": "{rig.directory / "none"}"}}'
        lost = {"urn": urn, "type": "command:local:Command", "outputs": {"stdout": stdout}}
        rig.engine.known = [lost] if order == 3 else []

    rig.before = break_it
    assert rig.sweep(make()) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert rig.engine.replaced.count([urn]) == 1
    records = load(rig.directory).records
    assert [(r.order, r.attempt) for r in records if not r.valid] == [(3, 1)]
    assert [(r.order, r.attempt) for r in records if r.attempt > 1] == [(3, 2)]
    assert len({r.order for r in records if r.valid}) == 8


def test_a_run_that_stays_invalid_is_kept_and_the_sweep_goes_on(rig: Rig) -> None:
    rig.causes = {3: ["traffic"]}
    made = make()
    assert rig.sweep(made) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    invalid = [r for r in load(rig.directory).records if not r.valid]
    assert sorted((r.order, r.attempt) for r in invalid) == [(3, 1), (3, 2)]

    # what was wrong is put right: only that run is left, and its attempts count on
    rig.causes = {}
    assert rig.sweep(made, resume=True) == [3]
    third = [r for r in load(rig.directory).records if r.order == 3 and r.valid]
    assert [r.attempt for r in third] == [3]
    assert rig.sweep(made, resume=True) == []


def test_three_invalid_runs_in_a_row_of_one_cause_end_a_sweep(rig: Rig) -> None:
    rig.causes = {2: ["traffic", "window"], 3: ["traffic"], 4: ["cores", "traffic"]}
    made = make()
    with pytest.raises(RunsInvalid) as ended:
        rig.sweep(made)
    assert ended.value.exit_code == 1
    assert "(traffic)" in str(ended.value)
    assert REMEDIES[Cause.TRAFFIC] in str(ended.value)
    assert rig.measured == [0, 1, 2, 2, 3, 3, 4, 4]
    assert rig.engine.verbs[-1] == "destroy"
    assert len([r for r in load(rig.directory).records if not r.valid]) == 6

    rig.causes = {}
    assert rig.sweep(made, resume=True) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "causes",
    [
        {2: ["traffic"], 3: ["window"], 4: ["traffic"]},  # no cause in common
        {1: ["traffic"], 2: ["traffic"], 4: ["traffic"], 5: ["traffic"]},  # a valid run between
    ],
)
def test_other_invalid_runs_end_no_sweep(rig: Rig, causes: dict[int, list[str]]) -> None:
    rig.causes = causes
    rig.sweep(make())
    assert rig.measured[-1] == 7


OWN = "{name}:\n  nic: {{cpus: {cpus}}}\n"


def test_a_configurations_file_that_changes_ends_the_sweep(rig: Rig, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(OWN.format(name="mine", cpus="all"))

    def edit(order: int) -> None:
        if order == 2:
            own.write_text(OWN.format(name="mine", cpus="first"))

    rig.before = edit
    made = make(configurations=["baseline", "mine"], own=str(own))
    with pytest.raises(InvalidInput, match=r"mine was .* --resume"):
        rig.sweep(made)
    assert rig.engine.verbs[-1] == "destroy"
    planned = dict(made.definitions)
    records = load(rig.directory).records
    assert len(records) >= 3
    assert all(record.definition == planned[record.configuration] for record in records)

    own.unlink()  # and one that is lost keeps no lab standing
    rig.before = lambda _: None
    with pytest.raises(InvalidInput):
        rig.sweep(made, resume=True)
    own.write_text(OWN.format(name="mine", cpus="all"))
    rig.sweep(made, resume=True)
    assert len({record.order for record in load(rig.directory).records}) == 8


def test_each_run_is_held_against_the_steering_that_it_claims(rig: Rig) -> None:
    made = make()
    rig.sweep(made)
    for run, what in zip(made.runs, rig.held, strict=True):
        [plan] = what.plans
        steering = configurations.load()[run.configuration]
        assert plan["sock_flow_entries"] == steering.machine.knobs["rps_sock_flow_entries"]
        assert [rule["flows"] for rule in plan["rules"] if rule["role"] == "pod"] == [
            steering.pod.knobs["rps_flow_cnt"]
        ] * 2


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space"), RuntimeError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_ends_a_sweep_the_lab_is_taken_away_and_the_rest_can_be_done(
    rig: Rig, error: BaseException
) -> None:
    def end(order: int) -> None:
        if order == 5:
            raise error

    made = make()
    rig.before = end
    with pytest.raises(type(error)):
        rig.sweep(made)
    assert rig.engine.verbs.count("destroy") == 1
    assert rig.engine.verbs[-1] == "destroy"
    assert not (rig.directory / sweep.RESERVE).exists()
    first = rig.kept
    assert len(first) == 5

    rig.before = lambda _: None
    assert rig.sweep(made, resume=True) == [5, 6, 7]
    assert rig.engine.verbs[-1] == "destroy"
    assert len(rig.kept) == 8
    assert rig.kept.items() >= first.items()


def test_an_engine_that_cannot_converge_ends_the_sweep_with_its_words(rig: Rig) -> None:
    def fail(order: int) -> None:
        rig.engine.fails = EngineError("steer-server: EINVAL") if order == 2 else None

    rig.before = fail
    made = make()
    with pytest.raises(EngineError, match=r"^steer-server: EINVAL$"):
        rig.sweep(made)
    assert rig.engine.verbs[-2:] == ["up", "destroy"]
    done = len(rig.kept)
    assert 3 <= done < 8

    rig.engine.fails = None
    rig.before = lambda _: None
    assert rig.sweep(made, resume=True) == list(range(done, 8))


def test_a_lab_that_cannot_be_taken_away_hides_no_earlier_error(rig: Rig) -> None:
    rig.engine.fails = EngineError("steer-server: EINVAL")
    rig.engine.stays = EngineError("wire-veth: busy")
    with pytest.raises(EngineError) as ended:
        rig.sweep(make())
    first, last = str(ended.value).splitlines()
    assert first == "steer-server: EINVAL"
    assert last.endswith("wire-veth: busy")


def test_a_lab_left_by_a_sweep_that_was_killed_at_its_end_is_taken_away(rig: Rig) -> None:
    rig.engine.stays = EngineError("killed")
    made = make()
    with pytest.raises(EngineError, match="killed"):
        rig.sweep(made)
    rig.engine.stays = None
    assert rig.sweep(made, resume=True) == []
    assert rig.engine.verbs == ["destroy"]


def test_a_sweep_over_another_is_refused(rig: Rig) -> None:
    rig.sweep(made := make())
    kept = rig.kept
    for other, resume, words in (
        (made, False, "--resume"),
        (make(blocks=3), True, rf"{made.digest}, not {make(blocks=3).digest}"),
    ):
        with pytest.raises(InvalidInput, match=words):
            rig.sweep(other, resume=resume)
        assert rig.engine.verbs == []
        assert rig.kept == kept


@pytest.mark.parametrize("spoil", ["truncated", "empty", "foreign"])
def test_only_a_whole_record_of_this_plan_counts(rig: Rig, spoil: str) -> None:
    rig.sweep(made := make())
    path = min((rig.directory / "records").glob("run-00004-*.json"))
    text = path.read_text()
    spoiled = {"truncated": text[:99], "empty": "", "foreign": text.replace(made.digest, "0" * 12)}
    path.write_text(spoiled[spoil])
    assert rig.sweep(made, resume=True) == [4]
    assert path.read_text() == text


def test_a_resumed_sweep_first_repairs_what_an_earlier_one_left(rig: Rig) -> None:
    rig.engine.fails = EngineError("killed")
    made = make()
    with pytest.raises(EngineError):
        rig.sweep(made)
    rig.engine.fails = None
    stdout = f'{{"file": "{rig.directory / "none"}"}}'
    rig.engine.known = [
        {"urn": "a::b", "type": "command:local:Command", "outputs": {"stdout": stdout}}
    ]
    rig.engine.replaced.clear()
    rig.sweep(made, resume=True)
    assert rig.engine.replaced[0] == ["a::b"]
    assert all(replaced == [] for replaced in rig.engine.replaced[1:])


def test_whoever_watches_is_told(rig: Rig) -> None:
    made = make(blocks=1)
    told: list[str] = []

    def done(what: Done) -> None:
        told.append(f"{what.finished}/{what.total} {what.run.order} {what.record.order}")

    job = Sweep(
        rig.directory,
        made,
        rig.engine,
        on_run=lambda run: told.append(f"run {run.order}"),
        on_done=done,
        on_cleanup=lambda: told.append("cleanup"),
    )
    job.run(job.prepare()[2:])
    assert told == ["run 2", "3/4 2 2", "run 3", "4/4 3 3", "cleanup"]


def test_until_ci_ends_a_state_that_is_known_well_enough(rig: Rig) -> None:
    """Nearly equal rates: after the fewest blocks that count, nothing is open."""
    rig.rate = lambda order: 100 + order % 5 / 10
    made = make(blocks=20, replicas=[1], until_ci=0.1)
    assert rig.sweep(made) == list(range(2 * sequential.FEWEST))


def test_until_ci_goes_on_where_the_interval_is_wide(rig: Rig) -> None:
    rig.rate = lambda order: 100 if order % 3 else 10
    made = make(blocks=10, replicas=[1], until_ci=0.01)
    assert len(rig.sweep(made)) == 20


def test_a_resumed_sweep_counts_the_runs_that_were_made(rig: Rig) -> None:
    rig.rate = lambda order: 100 + order % 5 / 10
    made = make(blocks=20, replicas=[1], until_ci=0.1)
    rig.sweep(made)
    assert rig.sweep(made, resume=True) == []


def test_a_fresh_sweep_makes_each_run_a_lab_of_its_own(rig: Rig) -> None:
    made = make(isolation="fresh")
    assert made.digest != make().digest
    rig.sweep(made)
    runs = len(made.runs)
    assert rig.engine.verbs == ["up", *(["destroy", "up"] * (runs - 1)), "destroy"]
    ups = [stack for verb, stack in rig.engine.asked if verb == "up"]
    counts = [int(stack.config["steerlab:replicas"]) for stack in ups]
    assert counts == [run.replicas for run in made.runs]
    assert all(record.idle_pairs == 0 for record in load(rig.directory).records)


def test_a_sweep_begins_no_run_that_would_end_late(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def takes_its_time(_: int) -> None:
        nonlocal now
        now += 3.6

    rig.before = takes_its_time
    made = make()
    job = Sweep(rig.directory, made, rig.engine, max_seconds=11.0)
    assert job.run(job.prepare()) == len(made.runs) - 3
    assert rig.measured == [0, 1, 2]
    assert rig.engine.verbs[-1] == "destroy"
    assert len(Sweep(rig.directory, made, rig.engine).prepare(resume=True)) == len(made.runs) - 3
