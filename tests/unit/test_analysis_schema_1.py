"""Records of schema 1 lead to the conclusions that the code of their time drew from them."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import compare
from analysis.load import load
from analysis.metrics import find
from analysis.older_schema import SINCE_SCHEMA_2
from analysis.schema import Core, Pair, Record
from analysis.summary import Summary, summarise
from analysis.verdict import Contrast, PathRatio

SAMPLES = Path(__file__).parent / "data/schema-1"
# lab: measured; kubernetes: synthetic, with both paths; older: without sides of cores and
# definitions; published: imported. expected.json is what the last code of schema 1 concluded.
EXPECTED = json.loads((SAMPLES / "expected.json").read_text())


def documents(kind: str) -> list[str]:
    return gzip.decompress((SAMPLES / f"{kind}.jsonl.gz").read_bytes()).decode().splitlines()


def records(kind: str, folder: Path) -> list[Record]:
    for number, document in enumerate(documents(kind)):
        (folder / f"run-{number:05}.json").write_text(document)
    loaded = load(folder)
    assert loaded.faults == []
    return loaded.records


def approx(value: Any) -> Any:
    """JSON as the test compares it: floats to nine digits, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): approx(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [approx(one) for one in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def known(effect: dict[str, Any]) -> dict[str, Any]:
    """The fields of an effect that schema 1's time had, without its text."""
    return {name: effect[name] for name in effect if name not in ("problem", "scale", "mean_a")}


def flat(one: Contrast | PathRatio) -> dict[str, Any]:
    row = asdict(one)
    effect = known(row.pop("effect"))
    row["doubted"] = bool(row.pop("doubt"))
    return {**row, **effect}


MEANS = (
    "total_mbps", "softirq_cores", "idle_percent", "softirq_s_per_gbit", "retransmits_per_gbit",
    "dropped_per_gbit", "squeezed_per_gbit", "slowest_share",
)  # fmt: skip


def conclusions(summary: Summary) -> dict[str, Any]:
    states = [
        {
            "path": one.path,
            "replicas": one.replicas,
            "configuration": one.configuration,
            "runs": one.runs,
            "invalid": one.invalid,
            "value": one.value,
            "half": one.half,
            "soft_busiest": one.soft_busiest,
            "lag1": one.lag1,
            "drift": asdict(one.drift),
            "drift_p_holm": one.drift_p_holm,
            "means": {name: one.means[name] for name in MEANS},
        }
        for one in summary.states
    ]
    recommended = summary.recommendation
    return {
        "states": states,
        "comparisons": [flat(one) for one in summary.contrasts],
        "pairwise": [flat(one) for one in summary.pairwise],
        "overlay_over_host": [flat(one) for one in summary.paths],
        "dependence": asdict(summary.check),
        "keep": summary.keep,
        "recommended": recommended and [recommended.configuration, recommended.by_count],
        "invalid": len(summary.invalid),
    }


def compared(found: Sequence[Record], metric: str) -> dict[str, Any]:
    answer = compare(found, found, "baseline", "rfs", metric=find(metric))
    names = ("verdict", "p_holm", "family", "replicas", "path", "exit_code")
    return {name: getattr(answer, name) for name in names} | known(asdict(answer.effect))


@pytest.mark.parametrize("kind", EXPECTED)
def test_schema_1_leads_to_the_same_conclusions(kind: str, tmp_path: Path) -> None:
    found = records(kind, tmp_path)
    summary = summarise(found)
    assert approx(conclusions(summary)) == approx(EXPECTED[kind]["summary"])
    for metric, expected in EXPECTED[kind]["compare"].items():
        assert approx(compared(found, metric)) == approx(expected)


@pytest.mark.parametrize("kind", EXPECTED)
def test_schema_1_is_upgraded_without_loss(kind: str) -> None:
    for text in documents(kind):
        old, record = json.loads(text), Record.model_validate_json(text)
        assert old["schema_version"] == 1
        assert record.schema_version == 2
        for before, pair in zip(old["pairs"], record.pairs, strict=True):
            assert pair.values["bitrate_mbps"] == before["bitrate_mbps"]
            assert pair.values.get("retransmits") == before.get("retransmits")
        for before, core in zip(old["cores"], record.cores, strict=True):
            assert core.server == bool(before.get("server"))
        assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": 1},
        {"pairs": [1]},
        {"pairs": None},
        {"pairs": [{"index": 1, "bitrate_mbps": "fast"}]},
        {"pairs": [{"index": 1, "bitrate_mbps": 1.0, "x": 1}]},
        {"cores": {}},
        {"cores": [{"node": "n", "core": 0, "server": "yes"}]},
        {"cores": [{"node": "n", "core": 0, "server": []}]},
    ],
)
def test_what_is_wrong_in_schema_1_stays_wrong(wrong: dict[str, Any]) -> None:
    document = json.loads(documents("lab")[0]) | wrong
    with pytest.raises(ValueError, match=r"pairs|cores"):
        Record.model_validate(document)


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ((), "traffic", "udp"),
        ((), "method", "switchback"),
        (("pairs", 0), "values", {"bitrate_mbps": 1.0}),
        (("pairs", 0), "server_node", "a"),
        (("pairs", 0), "kind", None),
        (("pairs", 0), "latency", []),
        (("pairs", 0), "halves", None),
        (("cores", 0), "side", None),
    ],
)
def test_a_mixed_document_is_refused(
    where: tuple[str | int, ...], field: str, value: object, tmp_path: Path
) -> None:
    document = json.loads(documents("lab")[0])
    place = document
    for key in where:
        place = place[key]
    place[field] = value
    (tmp_path / "run-00001.json").write_text(json.dumps(document))
    (fault,) = load(tmp_path).faults
    assert field in fault.message
    assert "schema_version" in fault.message


def test_the_fields_since_schema_1_are_known() -> None:
    """A new field of the record, of a pair or of a core is one that schema 1 does not have."""
    document = json.loads(documents("lab")[0])
    rows = (document, document["pairs"][0], document["cores"][0])
    for model, new, row in zip((Record, Pair, Core), SINCE_SCHEMA_2, rows, strict=True):
        moved = {"bitrate_mbps", "retransmits", "server"}
        assert set(model.model_fields) - new == row.keys() - moved
