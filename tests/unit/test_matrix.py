"""The words of a matrix: named ones, files, what is refused; and a sweep told as JSON lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.schema import Pair, Record
from experiments.run import matrix
from experiments.run.events import Events
from experiments.run.sweep import Done
from infra.errors import InvalidInput


def test_the_study_s_matrix_is_the_study_s() -> None:
    made = matrix.plan(matrix.named("study") | {"seed": 1})
    asked = {*made.configurations, *(name for name, _ in made.left_out)}
    assert len(asked) == 7
    assert made.replicas == (1, 2, 4, 8, 16)
    assert (made.blocks, made.duration) == (20, 30)


def test_every_named_matrix_makes_a_plan() -> None:
    for name in ("usual", "quick", "study"):
        assert matrix.plan(matrix.named(name) | {"seed": 1}).runs


def test_a_file_is_over_the_usual_and_options_over_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("configurations: [baseline, rfs]\nreplicas: [3]\npodCpuLimit: 200m\n")
    options = matrix.named(str(path)) | {"seed": 1, "runs": 2}
    made = matrix.plan(options)
    assert made.configurations == ("baseline", "rfs")
    assert made.replicas == (3,)
    assert made.duration == 5
    assert dict(made.settings)["podCpuLimit"] == "200m"
    assert matrix.plan(dict(made.asked)).digest == made.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replica: [1]", "replica: unknown key; did you mean replicas?"),
        ("replicas: [0]", "whole number from 1"),
        ("replicas: 4", "replicas"),
        ("runs: many", "runs: must be a whole number"),
        ("path: [moon]", "overlay"),
        ("isolation: some", "isolation"),
        ("config: {duration: '3'}", "duration is an option of the sweep itself"),
        ("- a", "must map"),
        ("a: [", "not readable YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="matrix") as caught:
        matrix.named(str(path))
    assert said in str(caught.value)


def test_unknown_names_and_files_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"'studdy' is unknown.*study"):
        matrix.named("studdy")
    with pytest.raises(InvalidInput, match=r"there is no file none\.yaml"):
        matrix.named("none.yaml")


def test_a_sweep_is_told_line_by_line() -> None:
    made = matrix.plan(matrix.named("quick") | {"seed": 1})
    stream = io.StringIO()
    events = Events(stream, made)
    run = made.runs[0]
    pair = Pair(index=1, values={"bitrate_mbps": 100.0})
    record = Record(
        target="lab", stack="s", configuration=run.configuration, path="overlay", duration=2,
        replicas=1, idle_pairs=0, valid=True, reasons=[], pairs=[pair],
    )  # fmt: skip
    events.planned(len(made.runs))
    events.started(run)
    events.recorded(Done(run, record, 1, len(made.runs)))
    events.restoring()
    events.ended("time", 3)
    said: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    names = ["planned", "started", "recorded", "putting back", "ended"]
    assert [one["event"] for one in said] == names
    assert all(one["at"].endswith("Z") for one in said)
    assert said[0]["plan"] == made.digest
    assert said[2]["bitrate_mbps"] == 100.0
    assert said[2]["left_s"] < said[0]["left_s"]
    assert said[4] == {"event": "ended", "at": said[4]["at"], "why": "time", "left": 3}
