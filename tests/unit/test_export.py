"""`export`: each format is read back by its reader, or by the schema that its reader documents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import junitparser
import pytest
from prometheus_client.openmetrics import parser
from typer.testing import CliRunner

from analysis.export import EXPORTS
from analysis.export.contract import NothingToExport
from analysis.limits import parse_all
from analysis.metrics import METRICS
from analysis.schema import Record
from analysis.summary import Summary, summarise
from benchmarks.synthetic import mixed, sweep, write
from experiments.cli import app
from experiments.run.tune_state import FILE
from experiments.run.tuned import CONFIRMATION

FACTORS = {
    "baseline": {},
    "rfs": {"bitrate_mbps": 1.4, "p99_us": 0.9, "cpu_s_per_gbit": 0.8},
    "rps-7": {"bitrate_mbps": 0.7, "p99_us": 1.5, "cpu_s_per_gbit": 1.3},
}
# A benchmark has measures, and a measure a value, perhaps with bounds: numbers, nothing else.
BMF = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"minLength": 1, "maxLength": 1024},
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"minLength": 1, "maxLength": 64},
        "additionalProperties": {
            "type": "object",
            "properties": {
                name: {"type": "number"} for name in ("value", "lower_value", "upper_value")
            },
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}
CUSTOM_TOOL = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string", "minLength": 1},
            "value": {"type": "number"},
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}
RFS = "configuration=rfs/traffic=mixed/path=overlay/pairs=4"
HOSTILE = 'a "b"\\\n<c>\x00\ufffe ü/d'


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return mixed(FACTORS, blocks=10, seed=3)


@pytest.fixture(scope="module")
def summary(records: list[Record]) -> Summary:
    return summarise(records)


def rfs(summary: Summary) -> tuple[float, float]:
    """Mean bitrate of rfs, and its ratio to the baseline."""
    row = summary.tradeoff.row("overlay", 4, "rfs")
    assert row
    mean, ratio = row.levels["bitrate_mbps"].estimate, row.contrasts["bitrate_mbps"].effect.estimate
    assert mean and ratio
    return mean, ratio


def test_bencher_reads_means_and_ratios(records: list[Record], summary: Summary) -> None:
    found = json.loads(EXPORTS["bencher"].text(records, summary))
    jsonschema.validate(found, BMF)
    mean, ratio = rfs(summary)
    assert found[RFS]["bitrate_mbps"]["value"] == pytest.approx(mean)
    own = found[RFS]["bitrate_mbps_ratio"]
    assert own["value"] == pytest.approx(ratio)
    assert own["lower_value"] < ratio < own["upper_value"]


@pytest.mark.parametrize(
    ("metric", "tool"),
    [("bitrate_mbps", "customBiggerIsBetter"), ("p99_us", "customSmallerIsBetter")],
)
def test_a_file_for_github_has_one_direction(records: list[Record], metric: str, tool: str) -> None:
    judged = summarise(records, metric=METRICS[metric])
    found = json.loads(EXPORTS["github"].text(records, judged))
    jsonschema.validate(found, CUSTOM_TOOL)
    named = {entry["name"].split()[0] for entry in found}
    assert {metric, f"{metric}_ratio"} <= named
    directions = {METRICS[one.removesuffix("_ratio")].better for one in named}
    assert directions == {METRICS[metric].better}
    assert len({entry["name"] for entry in found}) == len(found)
    assert tool in EXPORTS["github"].note(judged)


def test_openmetrics_are_parsed(records: list[Record], summary: Summary) -> None:
    text = EXPORTS["openmetrics"].text(records, summary)
    families = {one.name: one for one in parser.text_string_to_metric_families(text)}
    assert {one.type for one in families.values()} == {"gauge"}
    mean, ratio = rfs(summary)

    def value(name: str, **labels: str) -> float:
        (sample,) = [
            one
            for one in families[f"steerlab_{name}"].samples
            if labels.items() <= one.labels.items()
        ]
        return sample.value

    assert value("bitrate_mbps", configuration="rfs") == pytest.approx(mean)
    assert value("bitrate_mbps_ratio", configuration="rfs", baseline="baseline") == pytest.approx(
        ratio
    )
    assert value("p99_us_low", configuration="rfs") < value("p99_us_high", configuration="rfs")
    assert value("verdict", configuration="rps-7", verdict="worse", metric="bitrate_mbps") == 1
    assert value("runs", configuration="baseline") == 10
    last = max(record.start.timestamp() for record in records if record.start)
    assert value("last_run_timestamp_seconds") == last


def read(text: str) -> dict[str, str]:
    """Outcome of each test case as CI servers see it; the counts of the suite must fit."""
    suites = junitparser.JUnitXml.fromstring(text.encode())
    cases = [case for suite in suites for case in suite]
    outcomes = {
        case.name: case.result[0].__class__.__name__ if case.result else "" for case in cases
    }
    assert suites.tests == len(cases) == len(outcomes)
    assert suites.failures == list(outcomes.values()).count("Failure")
    assert suites.skipped == list(outcomes.values()).count("Skipped")
    return outcomes


def test_a_worse_configuration_is_a_failure(records: list[Record], summary: Summary) -> None:
    found = read(EXPORTS["junit"].text(records, summary))
    assert found == {
        "rfs against baseline: bitrate": "",
        "rps-7 against baseline: bitrate": "Failure",
    }


def test_limits_alone_decide(records: list[Record]) -> None:
    judged = summarise(records, limits=parse_all(["bitrate_mbps=-50%,p99_us=+20%"]))
    assert read(EXPORTS["junit"].text(records, judged)) == {
        "rfs: limit bitrate_mbps=-50%": "",
        "rfs: limit p99_us=+20%": "",
        "rps-7: limit bitrate_mbps=-50%": "",
        "rps-7: limit p99_us=+20%": "Failure",
    }


def test_what_is_inconclusive_is_skipped() -> None:
    few = mixed(FACTORS, blocks=3, seed=3)
    assert set(read(EXPORTS["junit"].text(few, summarise(few))).values()) == {"Skipped"}


def test_a_line_of_benchstat_is_a_valid_run(records: list[Record], summary: Summary) -> None:
    """Its own program reads it in tests/cluster/test_go_tools.py."""
    lines = EXPORTS["benchstat"].text(records, summary).splitlines()
    runs = [line.split() for line in lines if line.startswith("Benchmark")]
    assert len(runs) == len(records)
    assert all(run[1] == "1" and len(run) % 2 == 0 for run in runs)
    assert "Unit p99_us better=lower" in lines


@pytest.mark.parametrize("form", EXPORTS)
def test_names_of_records_stay_text(form: str) -> None:
    """Quotes, tags, line ends and characters that XML cannot have, in a configuration's name."""
    foreign = [
        record.model_copy(update={"configuration": HOSTILE}) if place % 2 else record
        for place, record in enumerate(sweep({"baseline": 1.0}, blocks=20, seed=5))
    ]
    text = EXPORTS[form].text(foreign, summarise(foreign))
    assert "\x00" not in text
    match form:
        case "bencher" | "github":
            jsonschema.validate(json.loads(text), BMF if form == "bencher" else CUSTOM_TOOL)
        case "junit":
            assert len(read(text)) == 1
        case "openmetrics":
            parsed = list(parser.text_string_to_metric_families(text))
            names = {one.labels["configuration"] for one in parsed[0].samples}
            assert names == {"baseline", 'a "b"\\ <c>\\x00\ufffe ü/d'}
        case "benchstat":
            runs = [line.split() for line in text.splitlines() if line.startswith("Benchmark")]
            assert {math.isfinite(float(run[2])) for run in runs} == {True}
            assert len(runs) == 20


@pytest.mark.parametrize("form", EXPORTS)
def test_results_without_a_valid_run_are_refused(form: str, records: list[Record]) -> None:
    broken = {"valid": False, "reasons": ["drift"]}
    invalid = [record.model_copy(update=broken) for record in records]
    with pytest.raises(NothingToExport):
        EXPORTS[form].text(invalid, summarise(invalid))


def test_the_command_writes_a_file_or_to_standard_output(
    tmp_path: Path, records: list[Record], summary: Summary
) -> None:
    results, out = write(records, tmp_path / "results"), tmp_path / "bencher.json"
    expected = EXPORTS["bencher"].text(records, summary)
    shown = CliRunner().invoke(app, ["export", "bencher", str(results)])
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, json.loads(expected))
    kept = CliRunner().invoke(app, ["export", "bencher", str(results), "--out", str(out)])
    assert (kept.exit_code, kept.stdout, out.read_text()) == (0, "", expected)


def test_of_a_tuning_its_confirmation_is_exported(
    tmp_path: Path, records: list[Record], summary: Summary
) -> None:
    write(records, tmp_path / CONFIRMATION)
    (tmp_path / FILE).write_text("{}")
    shown = CliRunner().invoke(app, ["export", "junit", str(tmp_path)])
    assert (shown.exit_code, shown.stdout) == (0, EXPORTS["junit"].text(records, summary))


def test_the_command_refuses_what_it_cannot_write(tmp_path: Path, records: list[Record]) -> None:
    results = write(records[:1], tmp_path / "results")
    for words, said in (
        (["xml", results], "benchstat, bencher, github, junit, openmetrics"),
        (["junit", results], "nothing is compared"),
        (["junit", tmp_path / "none"], "there is no directory"),
    ):
        done = CliRunner().invoke(app, ["export", *map(str, words)])
        assert done.exception and said in str(done.exception)
        assert done.exception.exit_code == 2  # type: ignore[attr-defined]


def test_help_names_every_format() -> None:
    shown = CliRunner().invoke(app, ["export", "--help"]).stdout
    assert all(name in shown for name in EXPORTS)
