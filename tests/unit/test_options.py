"""An option of a sweep is one field: asked, kept, repeated and asked again, it is the same sweep."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.metrics import METRICS
from benchmarks.synthetic import sweep as synthetic
from experiments import cli, signals
from experiments.run import matrix, options, plan
from experiments.run.measurable import Way
from infra.errors import InvalidInput
from infra.traffic import TRAFFIC

OWN = "mine: {nic: {flows: 64}}\nbaseline: {}\n"
# Another value than the usual one, for each option, as the command line has it.
OTHER = {
    "configurations": "rps-plus,baseline",
    "replicas": "3,7",
    "blocks": "3",
    "duration": "4",
    "omit": "0",
    "streams": "2",
    "traffic": "stream:congestion=reno",
    "paths": "host",
    "own": "{folder}/mine here.yaml",
    "pod_cpu_limit": "200m",
    "target": "lab",
    "config": "lease=3h",
    "until_ci": "0.07",
    "isolation": "fresh",
    "seed": "77",
    "baseline": "rps",
    "limits": "cpu=+10%,total_mbps=200",
    "method": "isolated",
    "window": "0.5",
    "settle": "0.3",
}
# What an option needs beside it, so that it alone makes the difference.
ISOLATED = ["--method", "isolated"]
NEEDS = dict.fromkeys(("duration", "omit", "pod_cpu_limit", "isolation"), ISOLATED)
BASE = ["--configurations", "baseline,rps", "--replicas", "1", "--runs", "2", "--seed", "5"]

Digest = Callable[[list[str]], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine here.yaml").write_text(OWN)
    return tmp_path


@pytest.fixture
def planned(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[list[str]], plan.SweepPlan]]:
    """The plan of these words, as the command line makes it."""
    handlers = {number: signal.getsignal(number) for number in signals.NUMBERS}

    def run(words: list[str]) -> plan.SweepPlan:
        before, sys.argv = sys.argv, ["steerlab", "sweep", *words, "--plan", "--json"]
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        finally:
            sys.argv = before
        said = capsys.readouterr()
        assert end.value.code == 0, said.err
        return plan.from_json(said.out)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_every_option_has_a_value_to_try() -> None:
    assert set(OTHER) == {field for field, _ in options.declared()}


@pytest.mark.parametrize("field", OTHER)
def test_asked_kept_repeated_and_asked_again(
    folder: Path, planned: Callable[[list[str]], plan.SweepPlan], field: str
) -> None:
    base = [*BASE, *NEEDS.get(field, ())]
    made = planned([*base, options.flag(field), OTHER[field].format(folder=folder)])
    assert made.digest != planned(base).digest, "the option changes nothing"
    kept = plan.from_json(plan.to_json(made))
    assert kept == made
    assert planned(options.words(kept.asked)).digest == made.digest
    assert matrix.plan(options.given(kept.asked)).digest == made.digest


@pytest.mark.parametrize("field", OTHER)
def test_a_yaml_matrix_says_the_same(
    folder: Path, planned: Callable[[list[str]], plan.SweepPlan], field: str
) -> None:
    name = options.alias(field)
    value = OTHER[field].format(folder=folder)
    document = {name: dict([value.split("=")]) if field == "config" else value}
    document.setdefault("method", "isolated" if NEEDS.get(field) else "switchback")
    (folder / "m.yaml").write_text(yaml.safe_dump(document))
    words = [*BASE, *NEEDS.get(field, ())]
    base = [
        word
        for pair in zip(words[::2], words[1::2], strict=True)
        if pair[0] != options.flag(field)
        for word in pair
    ]
    by_file = planned([*base, "--matrix", "m.yaml"])
    assert by_file.digest == planned([*base, options.flag(field), value]).digest


def test_the_default_traffic_is_the_same_sweep(
    planned: Callable[[list[str]], plan.SweepPlan],
) -> None:
    base = [*BASE, *ISOLATED]
    assert planned([*base, "--traffic", "stream:"]).digest == planned(base).digest
    base = [*BASE, "--method", "switchback", "--traffic"]
    assert planned([*base, "stream:"]).digest == planned([*base, "stream"]).digest
    assert planned([*base, "stream"]).digest == planned(BASE).digest


asked = st.fixed_dictionaries(
    {
        "configurations": st.permutations(["baseline", "rps", "rfs", "rps-7"]).map(tuple),
        "replicas": st.lists(st.integers(1, 1024), min_size=1, max_size=4, unique=True),
        "blocks": st.integers(1, 3),
        "seed": st.integers(-(2**40), 2**40),
    },
    optional={
        "duration": st.integers(2, 60),
        "omit": st.integers(0, 1),
        "window": st.floats(0.1, 3),
        "settle": st.floats(0, 1),
        "streams": st.integers(1, 128),
        "traffic": st.sampled_from(["stream", "stream:congestion=cubic"]),
        "paths": st.permutations(["overlay", "host"]),
        "pod_cpu_limit": st.sampled_from(["200m", "1", "0.5"]),
        "until_ci": st.floats(0.001, 1),
        "isolation": st.sampled_from(["incremental", "fresh"]),
        "baseline": st.sampled_from(["baseline", "rps", "none"]),
        "limits": st.lists(
            st.sampled_from(["cpu=+10%", "total_mbps=200", "bitrate=-5%", "retransmits=-3"]),
            max_size=3,
        ),
        "method": st.sampled_from(["isolated", "switchback"]),
        "config": st.fixed_dictionaries(
            {},
            optional={
                "lease": st.sampled_from(["3h", "none"]),
                "cpus": st.just('{"server": [0], "client": [0], "irq": 0}'),
            },
        ),
    },
)


@given(asked)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_sweep_is_repeated_by_its_own_line(
    planned: Callable[[list[str]], plan.SweepPlan], asked: dict[str, object]
) -> None:
    try:
        made = matrix.plan(asked)
    except InvalidInput:
        return
    line = shlex.join(options.words(made.asked))
    assert planned(shlex.split(line)).digest == made.digest


@pytest.mark.usefixtures("sketched")
def test_the_report_has_that_line(
    folder: Path, planned: Callable[[list[str]], plan.SweepPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    made = planned([*BASE, "--isolation", "fresh", "--own", "mine here.yaml"])
    results = folder / "results of mine"
    (results / "records").mkdir(parents=True)
    (results / "plan.json").write_text(plan.to_json(made))
    for one, run in zip(
        synthetic({"baseline": 1.0}, blocks=len(made.runs)), made.runs, strict=True
    ):
        record = one.model_copy(update=asdict(run) | {"plan": made.digest, "seed": made.seed})
        (results / "records" / f"run-{run.order}.json").write_text(record.model_dump_json())
    sys.argv = ["steerlab", "report", str(results)]
    with pytest.raises(SystemExit):
        cli.main()
    capsys.readouterr()
    text = (results / "report.md").read_text()
    (line,) = [line for line in text.splitlines() if "steerlab sweep" in line]
    assert planned(shlex.split(line)[2:]).digest == made.digest


def test_an_option_that_may_be_repeated(
    planned: Callable[[list[str]], plan.SweepPlan],
) -> None:
    made = planned([*BASE, "--limit", "cpu=+10%", "--limit", "bitrate=200,retransmits=+5"])
    assert made.limits == ("cpu_s_per_gbit=+10%", "bitrate_mbps=200", "retransmits=+5")
    document = {"limit": ["cpu=+10%", "bitrate=200", "retransmits=+5"]}
    assert options.layer(document) == {"limits": document["limit"]}


@pytest.mark.parametrize("limit", ["taste=+10%", "p99_us", "retransmits=+10%", 5, ["p99_us", 5]])
def test_a_limit_that_cannot_be_read_is_refused(limit: object) -> None:
    with pytest.raises(InvalidInput, match="limit"):
        matrix.plan({"configurations": "baseline,rps", "replicas": "1", "blocks": 2, "seed": 1,
                     "limits": limit})  # fmt: skip


LIMITED = {"configurations": "baseline,rps", "replicas": "2,4", "blocks": 2, "seed": 1}


@pytest.mark.parametrize(
    ("limit", "given", "remedy"),
    [
        ("p99_us=+10%", {"traffic": "stream"}, {"traffic": "mixed"}),
        ("p99_us=+10%", {"traffic": "udp:rate=100M"}, {"traffic": "mixed"}),
        ("p99_us=+10%", {"traffic": "stream", "method": "switchback"}, {"traffic": "mixed"}),
        ("bitrate=-5%", {"traffic": "rr"}, {"traffic": "mixed"}),
        ("cpu_s_per_gbit=+5%", {"traffic": "rr"}, {"traffic": "mixed"}),
        ("retransmits=+5", {"traffic": "udp"}, {"traffic": "mixed"}),
        ("retransmits=+5", {"traffic": "mixed", "method": "switchback"}, {"method": "isolated"}),
        ("retransmits_per_gbit=+50", {"method": "switchback"}, {"method": "isolated"}),
        ("loss_percent=1", {}, {"traffic": "udp"}),
        ("loss_percent=1", {"method": "switchback"}, {"method": "isolated", "traffic": "udp"}),
        ("loss_socket_percent=1", {"traffic": "stream"}, {"traffic": "udp"}),
        (
            "loss_socket_percent=1",
            {"traffic": "mixed:protocol=udp", "method": "switchback"},
            {"method": "isolated"},
        ),
        ("slowest_share=0.5", {"replicas": "1,4"}, {"replicas": "4"}),
        ("slowest_share=0.5", {"replicas": "1", "traffic": "mixed"}, {"replicas": "2"}),
    ],
)
def test_a_limit_of_what_the_sweep_does_not_measure_is_refused_with_a_remedy(
    limit: str, given: dict[str, Any], remedy: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match=limit.partition("=")[0]) as error:
        matrix.plan({**LIMITED, **given, "limits": limit})
    for name, value in remedy.items():
        words = "--replicas without 1" if name == "replicas" else f"--{name} {value}"
        assert words in str(error.value)
    assert matrix.plan({**LIMITED, **given, **remedy, "limits": limit}).limits


@pytest.mark.parametrize("name", sorted(METRICS))
def test_each_metric_can_be_measured_and_so_limited(name: str) -> None:
    methods: list[Literal["isolated", "switchback"]] = ["isolated", "switchback"]
    ways = [Way(kind(), method, 2) for kind in TRAFFIC.values() for method in methods]
    found = [way for way in ways if way.has(METRICS[name])]
    assert found
    for way in found:
        given = {"traffic": str(way.traffic), "method": way.method, "limits": f"{name}=1"}
        assert matrix.plan({**LIMITED, **given}).method == way.method


def test_a_limit_that_isolated_runs_alone_measure_makes_the_sweep_isolated() -> None:
    told: list[str] = []
    made = matrix.plan({**LIMITED, "limits": "retransmits_per_gbit=+50"}, told.append)
    assert made.method == "isolated"
    assert "retransmits_per_gbit" in told[0]
    assert matrix.plan({**LIMITED, "limits": "cpu=+5%,dropped_per_gbit=+1"}).method == "switchback"


def test_plans_of_the_first_version_are_the_same_experiments() -> None:
    """What `plan.json` held then, and the digest that its records carry."""
    document = {
        "seed": 7, "blocks": 1, "configurations": ["baseline", "rfs"], "replicas": [1],
        "paths": ["overlay"], "duration": 2, "omit": 1, "streams": 1,
        "settings": [["podCpuLimit", "200m"], ["target", "lab"]],
        "left_out": [["rps-7", "needs 3 CPUs"]],
        "definitions": [["baseline", "36f39b0a6d04"], ["rfs", "8a1b9cd7c0ae"]],
        "until_ci": None, "isolation": "incremental",
        "runs": [
            {"order": 0, "block": 0, "path": "overlay", "replicas": 1, "configuration": "rfs"},
            {"order": 1, "block": 0, "path": "overlay", "replicas": 1, "configuration": "baseline"},
        ],
    }  # fmt: skip
    kept = plan.from_json(json.dumps(document))
    assert kept.digest == "4b6084f7abe1"
    assert (kept.pod_cpu_limit, kept.target, kept.config) == ("200m", "lab", ())
    assert kept.asked.configurations == ("baseline", "rfs", "rps-7")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"config": {"target": "kubernetes"}, "target": "lab"}, "target"),
        ({"config": {"replicas": "3"}}, "--replicas"),
        ({"config": {"configurations": "x"}}, "--own"),
        ({"config": {"lab.path": "host"}}, "--path"),
        ({"untilci": 3}, "until"),
        ({"until_ci": "2"}, "untilCi: must be less than or equal to 1"),
        ({"until_ci": "nan"}, "untilCi: must be a finite"),
        ({"blocks": 0}, "runs: must be"),
        ({"seed": "x"}, "seed"),
        ({"replicas": "1,1"}, "replicas: .* twice"),
        ({"replicas": "1,01"}, "replicas: .* twice"),
        ({"config": {"lease": b"2h"}}, "config: must map"),
        ({"paths": "moon"}, "path: must be"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, object], words: str) -> None:
    base = {"configurations": "baseline", "replicas": "1", "runs": 1, "duration": 2, "omit": 0}
    with pytest.raises(InvalidInput, match=words):
        options.read(options.layer({"seed": 1, **base, **given}))


def test_a_target_among_the_keys_is_the_target() -> None:
    assert options.layer({"config": ["target=kubernetes", "lease=3h"]}) == {
        "target": "kubernetes", "config": {"lease": "3h"},
    }  # fmt: skip
