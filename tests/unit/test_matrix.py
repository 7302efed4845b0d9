"""The words of a matrix: named ones, files, what is refused; and a sweep told as JSON lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from agent.knobs import KNOBS
from analysis.schema import Pair, Record
from experiments.run import matrix, options
from experiments.run.events import Events
from experiments.run.options import WINDOW_S
from experiments.run.plan import SweepPlan
from experiments.run.sweep import Done
from infra import traffic
from infra.errors import InvalidInput


def test_the_study_s_matrix_is_the_study_s() -> None:
    made = matrix.plan(matrix.named("study") | {"seed": 1})
    asked = {*made.configurations, *(name for name, _ in made.left_out)}
    assert len(asked) == 7
    assert made.replicas == (1, 2, 4, 8, 16)
    assert (made.method, made.blocks, made.duration) == ("isolated", 20, 30)


def test_the_study_s_matrix_can_be_switched_if_wanted() -> None:
    made = matrix.plan(matrix.named("study") | {"seed": 1, "method": "switchback"})
    assert made.method == "switchback"
    assert made.blocks == matrix.plan(matrix.named("usual") | {"seed": 1}).blocks


def test_every_named_matrix_makes_a_plan() -> None:
    for name in ("usual", "quick", "study"):
        assert matrix.plan(matrix.named(name) | {"seed": 1}).runs


def test_a_file_is_over_the_usual_and_options_over_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("configurations: [baseline, rfs]\nreplicas: [3]\npodCpuLimit: 200m\n")
    made = matrix.plan(matrix.named(str(path)) | {"seed": 1, "runs": 2})
    assert made.configurations == ("baseline", "rfs")
    assert made.replicas == (3,)
    assert made.duration == 5
    assert dict(made.settings)["podCpuLimit"] == "200m"
    assert made.method == "isolated"
    assert matrix.plan(options.given(made.asked)).digest == made.digest


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("replicas: [3]", "isolated"),
        ("omit: 2", "isolated"),
        ("settle: 0.3", "switchback"),
        ("method: switchback", "switchback"),
    ],
)
def test_a_file_is_isolated_unless_it_has_an_option_of_switchback(
    tmp_path: Path, text: str, method: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert matrix.plan(matrix.named(str(path)) | {"seed": 1}).method == method


def planned(**changes: Any) -> tuple[SweepPlan, list[str]]:
    """The plan of a quick sweep with these options, and the lines that it tells."""
    told: list[str] = []
    return matrix.plan(matrix.named("quick") | {"seed": 1} | changes, told.append), told


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"traffic": "stream:congestion=bbr"},
        {"traffic": "mixed:rate=300M"},
        {"paths": "overlay,host"},
        {"window": WINDOW_S},
        {"until_ci": 0.05},
        {"method": "switchback", "baseline": "none"},
        {"method": "switchback", "pod_cpu_limit": "200m"},
    ],
)
def test_what_can_be_switched_is_switched(given: dict[str, Any]) -> None:
    made, told = planned(**given)
    assert (made.method, told) == ("switchback", [])


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"traffic": "udp"}, "udp"),
        ({"traffic": "rr"}, "rr"),
        ({"isolation": "fresh"}, "fresh"),
        ({"config": {"steerNodes": "both"}}, "steerNodes"),
        ({"config": {"lease": "13s"}}, "13s"),
        ({"baseline": "none"}, "compare"),
        ({"configurations": "rfs"}, "compare"),
        ({"pod_cpu_limit": "200m"}, "--pod-cpu-limit"),
    ],
)
def test_what_cannot_be_switched_is_isolated_and_told(given: dict[str, Any], word: str) -> None:
    made, told = planned(**given)
    assert (made.method, made.blocks, made.duration) == ("isolated", 6, 2)
    assert made.traffic == given.get("traffic", "stream")
    (line,) = told
    assert word in line


@pytest.mark.parametrize("given", [{"duration": 2}, {"omit": 1}, {"method": "isolated"}])
def test_who_asks_for_isolated_runs_gets_them_without_a_word(given: dict[str, Any]) -> None:
    made, told = planned(**given)
    assert (made.method, told) == ("isolated", [])


@pytest.mark.parametrize(
    ("given", "flag", "owner"),
    [
        ({"method": "isolated", "window": WINDOW_S}, "--window", "switchback"),
        ({"method": "isolated", "settle": 0.5}, "--settle", "switchback"),
        ({"method": "switchback", "duration": 5}, "--duration", "isolated"),
        ({"method": "switchback", "omit": 0}, "--omit", "isolated"),
        ({"duration": 5, "window": 0.5}, "--window", "switchback"),
    ],
)
def test_an_option_of_the_other_method_is_refused(
    given: dict[str, Any], flag: str, owner: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{flag}.* --method {owner}"):
        planned(**given)


@pytest.mark.parametrize(
    ("text", "typed", "key", "flag"),
    [
        ("duration: 3", {"method": "switchback"}, "duration", "--method"),
        ("duration: 3", {"window": "0.5"}, "duration", "--window"),
        ("{method: switchback, settle: 1}", {"omit": "0"}, "settle", "--omit"),
    ],
)
def test_a_file_with_an_option_of_another_method_than_the_typed_one_is_named(
    tmp_path: Path, text: str, typed: dict[str, Any], key: str, flag: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        matrix.refuse_other_method(str(path), matrix.named(str(path)), typed)
    said = str(error.value)
    assert str(path) in said
    assert f"{key} applies to" in said
    assert f"{flag} asks for" in said
    assert f"--{key}" not in said


@pytest.mark.parametrize("typed", [{}, {"omit": "0"}, {"method": "isolated"}, {"replicas": "4"}])
def test_a_file_with_options_of_the_same_method_is_taken(
    tmp_path: Path, typed: dict[str, Any]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("duration: 3")
    matrix.refuse_other_method(str(path), matrix.named(str(path)), typed)


def test_many_pairs_in_short_windows_are_told() -> None:
    made, told = planned(replicas="4,64")
    assert made.method == "switchback"
    (line,) = told
    assert "--window" in line


def test_configurations_settle_as_long_as_the_knobs_that_differ_need(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("merging: {nic: {gro: on, threaded: on}}")
    steering, threads = KNOBS["rps_cpus"].settle, KNOBS["threaded"].settle
    with_threads = {"configurations": "baseline,merging", "own": str(file)}
    found = [planned()[0], planned(**with_threads)[0], planned(**with_threads, settle=steering)[0]]
    assert [plan.settle for plan in found] == [steering, threads, steering]
    for plan in found:
        given = options.given(plan.asked)
        assert matrix.plan(given).digest == plan.digest
    assert "--settle" not in options.words(found[0].asked)
    assert [options.words(plan.asked)[-2:] for plan in found[1:]] == [
        ["--settle", f"{threads:g}"],
        ["--settle", f"{steering:g}"],
    ]


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("calm: {nic: {lro: off}}", "isolated"),
        ("calm: {nic: {rx_queues: 2}}", "isolated"),
        ("calm: {nic: {gro: off, threaded: on}, machine: {netdev_budget: 600}}", "switchback"),
    ],
)
def test_knobs_that_cannot_be_switched_under_traffic_decide_the_method(
    tmp_path: Path, text: str, method: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    wanted = {"configurations": "baseline,calm", "own": str(file)}
    made, told = planned(**wanted)
    assert (made.method, len(told)) == (method, int(method == "isolated"))
    if method == "isolated":
        with pytest.raises(InvalidInput, match="under traffic"):
            planned(**wanted, method="switchback")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "stream:congestion=cubic"),
        ({"traffic": "stream"}, "stream:congestion=cubic"),
        ({"traffic": "stream:rate=300M"}, "stream:congestion=cubic,rate=300M"),
        ({"traffic": "mixed:rate=300M"}, "mixed:congestion=cubic,rate=300M"),
        ({"traffic": "mixed:congestion=reno"}, "mixed:congestion=reno"),
        ({"traffic": "stream:congestion=bbr"}, "stream:congestion=bbr"),
        ({"method": "isolated"}, "stream"),
        ({"traffic": "mixed:rate=300M", "isolation": "fresh"}, "mixed:rate=300M"),
    ],
)
def test_senders_use_cubic_under_switchback_unless_the_traffic_names_another(
    given: dict[str, Any], wanted: str
) -> None:
    assert traffic.of(planned(**given)[0].traffic) == traffic.of(wanted)


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
    assert (said[0]["plan"], said[0]["method"]) == (made.digest, "switchback")
    assert said[2]["bitrate_mbps"] == 100.0
    assert said[2]["left_s"] < said[0]["left_s"]
    assert said[4] == {"event": "ended", "at": said[4]["at"], "why": "time", "left": 3}


def test_a_sweep_without_a_bitrate_does_not_stop_at_its_interval() -> None:
    with pytest.raises(InvalidInput, match=r"until_ci: .*rr.*--until-ci out"):
        planned(traffic="rr", until_ci=0.05)
    assert planned(traffic="mixed", until_ci=0.05)[0].until_ci == 0.05
