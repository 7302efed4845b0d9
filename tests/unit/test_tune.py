"""Tunings without a lab: race, confirmation, answer, interrupt, resume, and the command."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tune_rig import Interrupt, Rig, made, plan
from typer.testing import CliRunner

from agent.knobs import KNOBS
from analysis.load import load
from analysis.schema import Record
from experiments import cli
from experiments.engines import choice
from experiments.run import (
    episodes,
    tune_answer,
    tune_plan,
    tune_state,
    tune_values,
    tuned,
)
from experiments.run.attempts import RunsInvalid
from experiments.run.sweep import kept_plan
from experiments.run.tune import Tune
from experiments.run.tune_values import BASELINE
from experiments.targets.lab import target as lab_target
from infra import configurations
from infra.errors import InvalidInput
from infra.settings import Lab


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return made(tmp_path, monkeypatch)


def test_the_best_is_found_confirmed_and_nothing_stays(rig: Rig) -> None:
    job = rig.tune(plan())
    job.run()
    found = tune_answer.document(job)
    name = found["recommended"]["configuration"]
    settings = found["recommended"]["settings"]
    assert settings["nic"]["rps_flow_cnt"]
    assert any(part.get("gro") == "on" for part in settings.values())
    ratio = found["recommended"]["ratio"]
    assert ratio["low"] < 1.8 < ratio["high"]
    assert found["set"][0] == name or name in found["set"]
    assert not found["baseline"]["in_set"]
    assert found["metrics"]["bitrate_mbps"]["low"] > 1.5
    assert rig.engine.verbs[-1] == "destroy"
    assert rig.now <= 180 + 20
    assert [done.phase for done in rig.told] == sorted(
        (done.phase for done in rig.told), reverse=True
    )


def test_what_the_node_cannot_have_or_already_has_is_left_out(rig: Rig) -> None:
    job = rig.tune(plan())
    job.run()
    left_out = dict(job.state.left_out)
    assert "transmit queue" in left_out["xps"]
    assert "the same as" in left_out["gro-overlay-off"]
    assert not {"xps", "gro-overlay-off"} & {name for names in rig.episodes for name in names}


def test_what_helped_is_combined_and_joins(rig: Rig) -> None:
    job = rig.tune(plan())
    job.run()
    assert job.state.joined
    pairs = job.state.names[job.state.joined.first :]
    assert 0 < len(pairs) <= tuned.JOINING
    assert all("-with-" in name for name in pairs)
    known = configurations.load(rig.directory / tune_state.ARMS)
    assert set(pairs) <= known.keys()


def test_the_confirmation_is_a_sweep_of_its_own(rig: Rig) -> None:
    job = rig.tune(plan())
    job.run()
    made = kept_plan(rig.directory / tuned.CONFIRMATION)
    assert made.configurations == (BASELINE, job.state.recommended)
    assert made.blocks == job.state.planned
    records = load(rig.directory / tuned.CONFIRMATION).records
    assert {record.plan for record in records} == {made.digest}
    assert len(records) == 2 * made.blocks
    assert [done.phase for done in rig.told].count("confirmation") == made.blocks
    found = tune_answer.document(job)
    assert found["apply"]
    assert found["undo"]
    assert str(rig.directory / tune_state.ARMS) in found["apply"][0]


def test_a_window_settles_as_long_as_its_change_needs_unless_told(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    job.run()
    assert {settle for timing in rig.timings for settle in timing.settles} == {
        KNOBS["rps_cpus"].settle
    }
    rig.timings.clear()
    rig.directory = rig.directory.with_name("all")
    job = rig.tune(plan())
    job.run()
    race = [timing for timing in rig.timings if timing.settles]
    times = {settle for timing in race for settle in timing.settles}
    assert min(times) < max(times) <= job.asked.settle
    assert job.tuning.costs.window < race[0].period
    made = kept_plan(rig.directory / tuned.CONFIRMATION)
    known = configurations.load(rig.directory / tune_state.ARMS)
    assert made.settle == episodes.settle_of([known[name] for name in made.configurations])
    rig.timings.clear()
    rig.directory = rig.directory.with_name("fixed")
    rig.tune(plan("rps,rfs", settle=0.5)).run()
    assert {(timing.settle, timing.settles) for timing in rig.timings} == {(0.5, ())}


def test_where_nothing_helps_the_baseline_is_kept_without_confirmation(rig: Rig) -> None:
    rig.factors = {"gro": 0.8, "rps_flow_cnt": 0.9, "rps_cpus": 0.7}
    job = rig.tune(plan("rps,rfs,pipeline"))
    job.run()
    found = tune_answer.document(job)
    assert found["recommended"] == {"configuration": BASELINE, "settings": {}, "ratio": None}
    assert found["apply"] == []
    assert found["undo"] is None
    assert found["metrics"] == {}
    assert not (rig.directory / tuned.CONFIRMATION).exists()
    assert BASELINE in tune_answer.sentences(found)[1]


def test_where_time_is_short_the_first_candidates_race(rig: Rig) -> None:
    job = rig.tune(plan(minutes=0.8))
    job.run()
    late = [name for name, why in job.state.left_out if "no time" in why]
    assert late
    assert "rps" in rig.episodes[0]
    assert not {*late} & {name for names in rig.episodes for name in names}
    assert len(rig.episodes[0]) == len(rig.episodes[1])
    assert job.tuning.race.episodes >= 3
    assert rig.now <= 60
    with pytest.raises(InvalidInput, match="minutes"):
        plan("rps,rfs,pipeline,rps-plus,rfs-plus", minutes=0.2)


def test_only_the_chosen_race(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    job.run()
    assert {name for names in rig.episodes for name in names} == {"baseline", "rps", "rfs"}
    assert job.state.joined is None
    assert tune_answer.document(job)["recommended"]["configuration"] == "rfs"


def test_a_file_of_configurations_races(rig: Rig, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("mine:\n  overlay: {gro: 'on'}\nother:\n  nic: {rps_cpus: all}\n")
    job = rig.tune(plan(str(own)))
    own.unlink()  # the results directory has what it needs
    job.run()
    found = tune_answer.document(job)["recommended"]
    assert found["configuration"] == "mine"
    assert found["settings"] == {"overlay": {"gro": "on"}}


@pytest.mark.parametrize("names", ["nothing-such", "baseline", ","])
def test_a_race_against_nothing_is_refused(names: str) -> None:
    with pytest.raises(InvalidInput, match="configurations"):
        tune_plan.chosen(names)


def test_the_lab_has_the_kernels_offloads_unless_told(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    job.run()
    found = tune_answer.document(job)
    assert found["lab"] == {"form": "stock", "queues": 1}
    assert "form stock" in tune_answer.sentences(found)[-1]
    for told in (["lab.form=study"], ['lab={"form": "study"}']):
        study = plan("rps,rfs", config=told)
        assert Tune(rig.directory, study, rig.engine).lab == Lab(
            form="study", cpus=job.lab and job.lab.cpus
        )


def test_what_undoes_the_form_study_does_not_race(tmp_path: Path) -> None:
    study = plan(config=["lab.form=study"])
    left_out = dict(study.left_out)
    assert "undoes the form study" in left_out["gro-overlay-on"]
    assert left_out.keys() >= {"gro-nic-on", "threaded"}
    assert not left_out.keys() & set(study.names)
    assert {"gro-pod-on", "gro-nic-off", "rfs"} <= set(study.names)
    assert "gro-overlay-on" in plan().names
    own = tmp_path / "mine.yaml"
    own.write_text("mine: {nic: {tso: 'on'}}")
    with pytest.raises(InvalidInput, match=r"nothing races .* mine undoes .* \(nic tso\)"):
        plan(str(own), config=["lab.form=study"])
    assert plan(str(own)).names == [BASELINE, "mine"]


def test_lower_is_better_for_a_latency(rig: Rig) -> None:
    rig.factors = {}
    rig.latency = lambda name: {"rfs": 50.0, "rps": 200.0}.get(name, 100.0)
    job = rig.tune(plan("rps,rfs", by="p99_us", traffic="mixed:congestion=cubic,rate=300M"))
    job.run()
    found = tune_answer.document(job)["recommended"]
    assert found["configuration"] == "rfs"
    assert found["ratio"]["low"] < found["ratio"]["estimate"] < found["ratio"]["high"] < 1
    assert found["ratio"]["estimate"] == pytest.approx(0.5, rel=0.1)


def test_an_arm_that_exceeds_a_limit_is_not_the_answer(rig: Rig) -> None:
    rig.factors = {"rps_cpus": 1.5, "rps_flow_cnt": 1.2}
    rig.latency = lambda name: 300.0 if name == "rps" else 100.0
    wanted = {"traffic": "mixed:congestion=cubic,rate=300M", "limits": ["p99_us=+20%"]}
    job = rig.tune(plan("rps,rfs", **wanted))
    job.run()
    found = tune_answer.document(job)
    assert found["recommended"]["configuration"] == "rfs"
    assert found["confirmation"]["limits_kept"] is True
    assert "rps" not in found["set"]
    assert all(BASELINE in names for names in rig.episodes)


def test_a_limit_of_what_is_not_measured_is_refused() -> None:
    with pytest.raises(InvalidInput, match="p99_us"):
        plan("rps", limits=["p99_us=+20%"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replicas": "1,4"}, "replicas"),
        ({"minutes": 0.1}, "minutes"),
        ({"target": "moon"}, "target"),
        ({"window": 0.01}, "window"),
    ],
)
def test_what_cannot_be_raced_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        plan(**changes)


def test_a_spoiled_window_is_left_out_and_a_failed_episode_repaired(rig: Rig) -> None:
    bad = {(1, "rps"), (2, BASELINE)}
    rig.bad = lambda block, name: len(rig.episodes) < 5 and (block, name) in bad
    job = rig.tune(plan("rps,rfs"))
    job.run()
    problems = [done.problem for done in rig.told if done.problem]
    assert problems == ["late"]
    assert rig.engine.verbs.count("up") == 2
    assert tune_answer.document(job)["recommended"]["configuration"] == "rfs"


@pytest.mark.parametrize("resumed", [False, True])
def test_an_arm_without_any_valid_window_is_taken_out(rig: Rig, resumed: bool) -> None:
    rig.bad = lambda _, name: name == "rps"
    rig.before = Interrupt(4 if resumed else 10**6)
    job = rig.tune(plan("rps,rfs,pipeline"))
    with contextlib.suppress(KeyboardInterrupt):
        job.run()
    rig.before = lambda: None
    if resumed:
        job = rig.tune(tune_state.read(rig.directory), resume=True)
        job.run()
    assert sum("rps" in names for names in rig.episodes) == tuned.FAILURES
    found = tune_answer.document(job)
    assert found["left_out"][-1] == {"configuration": "rps", "why": "late"}
    assert "rps" not in found["set"]
    assert found["recommended"]["configuration"] == "rfs"


def test_three_failed_episodes_in_a_row_end_it(rig: Rig) -> None:
    rig.bad = lambda *_: True
    job = rig.tune(plan("rps,rfs"))
    with pytest.raises(RunsInvalid, match="window"):
        job.run()
    assert rig.engine.verbs[-1] == "destroy"
    assert "no episode" in tune_answer.sentences(tune_answer.document(job))[0]


@pytest.mark.parametrize("number", [0, 3, 7])
def test_an_interrupt_gives_the_answer_so_far_and_it_continues(rig: Rig, number: int) -> None:
    rig.before = Interrupt(number)
    job = rig.tune(plan())
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert rig.engine.verbs[-1] == "destroy"
    so_far = tune_answer.document(job)
    assert so_far["recommended"]["configuration"] == BASELINE
    assert so_far["race"]["episodes"] == number
    assert tune_answer.sentences(so_far)
    rig.before = lambda: None
    kept = tune_state.read(rig.directory)
    assert kept.model_dump_json() == job.state.model_dump_json()
    again = rig.tune(kept, resume=True)
    assert again.tuning.race.episodes == number
    assert again.tuning.standing == job.tuning.standing
    assert again.used == pytest.approx(kept.used)
    again.run()
    assert len(load(rig.directory / tuned.RACE).faults) == 0
    settings = tune_answer.document(again)["recommended"]["settings"]
    assert settings["nic"]["rps_flow_cnt"]


def test_an_interrupted_confirmation_continues_with_what_is_missing(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    done = 0

    def before() -> None:
        nonlocal done
        if job.state.planned:
            done += 1
            if done > 8:
                raise KeyboardInterrupt

    rig.before = before
    with pytest.raises(KeyboardInterrupt):
        job.run()
    so_far = tune_answer.document(job)
    wide = so_far["confirmation"]["ratio"]
    assert so_far["confirmation"]["episodes"] > 8
    rig.before = lambda: None
    rig.episodes.clear()
    again = rig.tune(tune_state.read(rig.directory), resume=True)
    again.run()
    assert len(rig.episodes) == so_far["confirmation"]["episodes"] - 8
    ratio = tune_answer.document(again)["recommended"]["ratio"]
    assert math.log(ratio["high"] / ratio["low"]) < math.log(wide["high"] / wide["low"])


def test_a_finished_tuning_measures_nothing_more(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    job.run()
    first = tune_answer.document(job)
    rig.episodes.clear()
    again = rig.tune(tune_state.read(rig.directory), resume=True)
    again.run()
    assert rig.episodes == []
    second = tune_answer.document(again)
    assert second["recommended"] == first["recommended"]
    assert second["set"] == first["set"]


def test_another_directory_is_not_overwritten(rig: Rig) -> None:
    rig.tune(plan("rps,rfs"))
    with pytest.raises(InvalidInput, match="out"):
        rig.tune(plan("rps,rfs"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1, "arms": 5}', "\0", '{"version": 1e999}']
)
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / tune_state.FILE).write_text(text)
    with pytest.raises(InvalidInput, match="resume"):
        tune_state.read(tmp_path)


def test_there_must_be_a_state(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="resume"):
        tune_state.read(tmp_path)


def test_a_race_of_unmeasured_records_counts_nothing() -> None:
    from analysis.metrics import BITRATE

    record = Record(
        target="lab", configuration="rfs", replicas=1, duration=1, valid=False, pairs=[]
    )  # fmt: skip
    assert tune_values.measured([record], BITRATE, ()) is None


# the command


@pytest.fixture
def command(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @contextmanager
    def free(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(choice, "choose", lambda _: rig.engine)
    monkeypatch.setattr(lab_target, "require", lambda *_, **__: None)
    monkeypatch.setattr(lab_target, "busy", free)
    monkeypatch.setattr(lab_target, "refuse_foreign", lambda _: None)
    monkeypatch.setattr(lab_target, "leftover", lambda: "")
    monkeypatch.setattr("time.monotonic", lambda: rig.now)

    def invoke(*words: str) -> Any:
        return CliRunner().invoke(cli.app, ["tune", *words])

    return invoke


def test_the_command_prints_its_answer_as_json(
    rig: Rig, command: Callable[..., Any], tmp_path: Path
) -> None:
    events = tmp_path / "events"
    done = command(
        "--configurations", "rps,rfs", "--seed", "7", "--out", str(rig.directory), "--json",
        "--events", str(events),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["recommended"]["configuration"] == "rfs"
    assert found.keys() >= {"recommended", "set", "baseline", "apply", "undo", "metrics"}
    assert found["recommended"].keys() == {"configuration", "settings", "ratio"}
    assert found["recommended"]["ratio"].keys() == {"estimate", "low", "high"}
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["planned", "ended"]
    sizes = [len(line["open"]) for line in lines if line["event"] == "episode"]
    assert sizes[0] == 3
    assert sizes == sorted(sizes, reverse=True)


def test_the_plan_races_nothing(rig: Rig, command: Callable[..., Any]) -> None:
    done = command("--plan", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["arms"][0]["name"] == BASELINE
    assert rig.episodes == []
    assert not rig.directory.exists()
    assert "rfs" in command("--plan").stdout


def test_an_interrupt_prints_what_is_known(rig: Rig, command: Callable[..., Any]) -> None:
    rig.before = Interrupt(6)
    done = command("--configurations", "rps,rfs", "--out", str(rig.directory), "--seed", "7")
    assert done.exit_code == 130
    assert "rfs" in done.stdout
    again = command("--resume", "--out", str(rig.directory), "--json")
    rig.before = lambda: None
    again = command("--resume", "--out", str(rig.directory), "--json")
    assert json.loads(again.stdout)["recommended"]["configuration"] == "rfs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--by retransmits", "by:"),
        ("--by speed", "by:"),
        ("--minutes 0", "minutes:"),
        ("--minutes -1", "minutes:"),
        ("--minutes nan", "minutes:"),
        ("--minutes 601", "minutes:"),
        ("--minutes 0.1", "minutes:"),
        ("--replicas 0", "replicas:"),
        ("--replicas 1,4", "replicas:"),
        ("--limit p99_us", "limit:"),
        ("--limit speed=+10%", "limit:"),
        ("--limit p99_us=+10%", "limit:"),
        ("--configurations fast", "configurations:"),
        ("--configurations rps,fast", "configurations:"),
        ("--configurations baseline", "configurations:"),
        ("--configurations=", "configurations:"),
        ("--configurations none.yaml", "configurations:"),
        ("--traffic smoke", "traffic:"),
        ("--target moon", "target:"),
        ("--window 0", "window:"),
        ("--settle=-1", "settle:"),
        ("-c lab.form=wood", "form:"),
        ("-c colour=red", "colour"),
        ("--resume", "resume:"),
        ("--out used", "out:"),
        ("--out tuned", "out: .*--resume"),
        ("--out file", "out:"),
        ("--out file/below", "out:"),
        ("--resume --out used", "resume:"),
        ("--resume --out tuned --minutes 5", "resume: .*minutes"),
        ("--resume --out tuned --seed 5 --configurations rps", "resume: .*seed, configurations"),
        ("--events used/none/events", "events:"),
    ],
)
def test_wrong_options_touch_nothing(
    rig: Rig,
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("text")
    rig.directory = tmp_path / "tuned"
    rig.tune(plan("rps,rfs"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    given = words.split()
    for name in ("out", "events"):
        if not {"--resume", f"--{name}"} & {*given}:
            given += [f"--{name}", f"{name}.new"]
    done = command(*given)
    assert isinstance(done.exception, InvalidInput), done.output
    assert re.search(said, str(done.exception))
    assert done.exit_code != 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out.new").exists()
    assert rig.engine.verbs == []


def test_an_interrupt_has_the_answer_so_far_as_json(rig: Rig, command: Callable[..., Any]) -> None:
    rig.before = Interrupt(2)
    done = command("--configurations", "rps,rfs", "--out", str(rig.directory), "--json")
    assert done.exit_code == 130
    found = json.loads(done.stdout)
    assert found["race"]["episodes"] == 2
    assert found["recommended"]["configuration"] == BASELINE
    assert found["apply"] == []


def test_a_tuning_that_continues_has_the_settings_and_limits_it_began_with(
    rig: Rig, command: Callable[..., Any]
) -> None:
    rig.latency = lambda name: 300.0 if name == "rps" else 100.0
    words = (
        "--configurations", "rps,rfs", "--traffic", "mixed:rate=300M", "--limit", "p99_us=+20%",
        "--minutes", "2", "--seed", "7",
    )  # fmt: skip
    rig.before = Interrupt(3)
    assert command(*words, "--out", str(rig.directory)).exit_code == 130
    rig.before = lambda: None
    found = json.loads(command("--resume", "--out", str(rig.directory), "--json").stdout)
    whole = rig.directory.with_name("whole")
    other = json.loads(command(*words, "--out", str(whole), "--json").stdout)
    for key in ("metric", "limits", "lab"):
        assert found[key] == other[key]
    assert found["recommended"]["configuration"] == other["recommended"]["configuration"] == "rfs"
    blocks = [record.block for record in load(rig.directory / tuned.RACE).records]
    assert sorted({*blocks}) == [*range(found["race"]["episodes"])]
