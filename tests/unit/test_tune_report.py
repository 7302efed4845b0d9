"""The page of a tuning: the answer first, the race, and its confirmation; also from `report` alone."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_analysis_report import Page
from test_shown_commands import takes
from tune_rig import Interrupt, Rig, made, plan
from typer.testing import CliRunner

from analysis.race import Race, Track
from experiments import cli
from experiments.run import tune_answer, tune_state, tuned
from experiments.run.tune_values import BASELINE
from experiments.run.tuned import Tuned
from infra import configurations
from infra.errors import InvalidInput

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return made(tmp_path, monkeypatch)


def report(directory: Path, *words: str) -> Any:
    return CliRunner().invoke(cli.app, ["report", str(directory), *words])


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished tuning with its report, and what the terminal got."""
    with pytest.MonkeyPatch.context() as patch:
        rig = made(tmp_path_factory.mktemp("tuning"), patch)
        rig.tune(plan("rps,rfs,rps-plus,pipeline")).run()
    done = report(rig.directory)
    assert done.exit_code == 0, done.output
    return rig.directory, done.stdout


@pytest.fixture
def tuning(reported: tuple[Path, str]) -> Path:
    return reported[0]


def test_the_page_opens_with_the_answer_and_shows_the_race(tuning: Path) -> None:
    found = tune_answer.document(Tuned.read(tuning))
    for name in ("report.html", "report.md"):
        text = (tuning / name).read_text()
        order = [
            "rfs is recommended", f"the simplest first: {', '.join(found['set'])}", "form stock",
            "--lease 2h", "nodes restore", "What rfs sets", "95 % simultaneous", "Confirmation",
            "tune --minutes 3",
        ]  # fmt: skip
        places = [text.find(one) for one in order]
        assert -1 not in places, (name, order[places.index(-1)])
        assert places == sorted(places), name
    page = Page((tuning / "report.html").read_text())
    assert max(page.ids.values()) == 1
    assert {attrs.get("data-of") for attrs in page.every("tr")} >= {"rps", "rfs", "pipeline"}
    assert {attrs.get("data-of") for attrs in page.every("g")} >= {"rps", "rfs", "pipeline"}
    labels = [attrs["aria-label"] for attrs in page.every("svg")]
    assert labels[0] == "The race"
    assert len(labels) > 2
    assert (tuning / "plots/race.png").is_file()


def test_the_terminal_has_the_answer_and_the_race(reported: tuple[Path, str]) -> None:
    _, said = reported
    places = [said.find(one) for one in ("rfs is recommended", "--lease 2h", "simultaneous")]
    assert -1 not in places
    assert places == sorted(places)
    assert yaml.safe_load(said[said.index("\nrfs:\n") : said.index("\nconfiguration ")])


def test_the_report_is_what_the_tuning_said(rig: Rig) -> None:
    job = rig.tune(plan("rps,rfs"))
    job.run()
    before = (rig.directory / tune_state.FILE).read_bytes()
    found = json.loads(report(rig.directory, "--json").stdout)
    said = tune_answer.document(job)
    for key in ("recommended", "set", "baseline", "metrics", "race", "confirmation", "undo"):
        assert found[key] == json.loads(json.dumps(said[key])), key
    assert (rig.directory / tune_state.FILE).read_bytes() == before


def test_the_csv_has_every_configuration_of_the_race(tuning: Path) -> None:
    rows = {row["configuration"]: row for row in csv.DictReader((tuning / "race.csv").open())}
    assert rows.keys() == {BASELINE, "rps", "rfs", "rps-plus", "pipeline"}
    assert rows["rfs"]["in_set"] == "True"
    assert float(rows["rfs"]["to_leader"]) == 1
    assert float(rows["rfs"]["ratio"]) == pytest.approx(1.2, rel=0.1)
    assert float(rows[BASELINE]["ratio"]) == 1
    assert rows["rps"]["left_after"]
    assert float(rows["rps"]["episodes"]) <= float(rows["rps"]["left_after"])


def test_where_the_baseline_is_kept_the_page_has_the_race(rig: Rig) -> None:
    rig.factors = {"gro": 0.8, "rps_flow_cnt": 0.9, "rps_cpus": 0.7}
    rig.tune(plan("rps,rfs,pipeline")).run()
    done = report(rig.directory)
    assert done.exit_code == 0, done.output
    text = (rig.directory / "report.md").read_text()
    assert text.index("Keep the baseline") < text.index("nothing to set") < text.index("## Race")
    assert "nodes apply" not in text
    assert "Confirmation" not in text


@pytest.mark.parametrize("number", [0, 3])
def test_a_tuning_that_was_interrupted_has_a_page_of_what_it_has(rig: Rig, number: int) -> None:
    rig.before = Interrupt(number)
    job = rig.tune(plan())
    with contextlib.suppress(KeyboardInterrupt):
        job.run()
    done = report(rig.directory, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["race"]["episodes"] == number
    assert bool(found["report"]) == (number > 0)
    assert (rig.directory / "report.html").exists() == (number > 0)


def test_damaged_records_are_named_and_the_others_used(tuning: Path, tmp_path: Path) -> None:
    tuning = shutil.copytree(tuning, tmp_path / "copy")
    damaged = sorted((tuning / tuned.RACE / "records").glob("run-*"))[0]
    damaged.write_text("{")
    done = report(tuning)
    assert done.exit_code == 1
    assert damaged.name in done.stderr
    assert damaged.name in (tuning / "report.md").read_text()


@pytest.mark.parametrize("words", [("--metric", "p99_us"), ("--limit", "p99_us=200")])
def test_a_tuning_has_its_own_metric_and_limits(tuning: Path, words: tuple[str, ...]) -> None:
    done = report(tuning, *words)
    assert isinstance(done.exception, InvalidInput)
    assert words[0] in str(done.exception)


# the commands of the answer


def test_the_commands_and_the_yaml_are_taken(rig: Rig) -> None:
    job = rig.tune(plan())
    job.run()
    found = tune_answer.document(job)
    name = found["recommended"]["configuration"]
    for line in (*found["apply"], found["undo"]):
        words = shlex.split(line)
        assert words[0].endswith("steerlab")
        assert takes(words[1:])
    assert all(name in line for line in found["apply"])
    report(rig.directory)
    page = (rig.directory / "report.md").read_text()
    assert (
        page.index("## Not raced")
        < page.index("transmit queue")
        < page.index("## How to reproduce")
    )
    text = tune_answer.as_yaml(found)
    own = rig.directory / "mine.yaml"
    own.write_text(text)
    mine = configurations.load(own)[name]
    kept = configurations.load(rig.directory / tune_state.ARMS)[name]
    assert mine.definition == kept.definition


def test_the_repeat_line_is_that_of_the_tuning(rig: Rig) -> None:
    wanted = {"traffic": "mixed:congestion=cubic,rate=300M", "limits": ["p99_us=+20%"]}
    job = rig.tune(plan("rps,rfs", config=["lab.form=study"], minutes=2.0, **wanted))
    job.run()
    report(rig.directory)
    lines = (rig.directory / "report.md").read_text().splitlines()
    (line,) = [one for one in lines if one.startswith("./steerlab tune ")]
    assert takes(shlex.split(line)[1:])
    for part in (
        "--minutes 2 ",
        "rps,rfs",
        "rate=300M",
        "p99_us=+20%",
        "lab.form=study",
        "--seed 7",
    ):
        assert part in line


# the race itself


def tracks(values: list[list[float]], arms: int, **more: Any) -> list[Track]:
    race = Race([0, *([1] * (arms - 1))], **more)
    for number, logs in enumerate(values):
        del number
        race.add(range(arms), logs)
    return race.tracks()


def test_a_track_has_the_estimates_and_the_exit_of_an_arm() -> None:
    noise = [0.01, -0.01, 0.02, 0.0, -0.02, 0.01, 0.0, 0.02]
    found = tracks([[0.0, 0.3 + one, 0.2 - one] for one in noise], 3)
    assert [one.joined for one in found] == [0, 0, 0]
    assert found[0].level == 0
    assert found[1].level == pytest.approx(0.3, abs=0.02)
    assert (found[1].behind, found[1].half) == (0, None)
    assert found[1].left is None
    behind, half = found[2].behind, found[2].half
    assert behind == pytest.approx(-0.1, abs=0.02)
    assert half is not None
    assert behind is not None
    assert behind - half < -0.1 < behind + half
    left = found[0].left
    assert left is not None
    assert (left.why, left.by) == ("beaten", 1)
    assert len(found[0].measured) == len(noise)


def test_an_arm_that_the_baseline_never_met_has_a_level_over_others() -> None:
    race = Race([0, 1], most=3)
    for one in (0.01, -0.01, 0.02):
        race.add([0, 1], [0.0, 0.3 + one])
    race.join([2])
    race.add([1, 2], [0.3, 0.5])
    race.add([1, 2], [0.2, 0.4])
    found = race.tracks()
    assert found[2].joined == 3
    assert found[2].measured == (4, 5)
    assert found[2].level == pytest.approx(0.5, abs=0.03)
    assert dict(enumerate(race.rounds)) == {0: (0, 1), 1: (0, 1), 2: (0, 1), 3: (1, 2), 4: (1, 2)}


def test_what_is_not_known_is_none() -> None:
    race = Race([0, 1, 1])
    race.add([1, 2], [0.1, 0.2])
    race.drop(0)
    found = race.tracks()
    assert found[0].level is None
    assert found[1].level is None
    assert found[0].left is not None
    assert found[0].left.why == "unmeasured"
    assert all(one.half is None or math.isfinite(one.half) for one in found)
