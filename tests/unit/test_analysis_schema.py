"""The kept JSON Schema is the model's, and reading the model costs nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from analysis import schema
from benchmarks.synthetic import sweep

ROOT = Path(schema.__file__).parents[1]


def test_kept_schema_is_generated() -> None:
    kept = json.loads((ROOT / "analysis/record.schema.json").read_text(encoding="utf-8"))
    assert kept == schema.json_schema()


def test_schema_accepts_records_and_refuses_others() -> None:
    document = sweep({"baseline": 1.0}, blocks=1)[0].model_dump(mode="json")
    jsonschema.validate(document, schema.json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "unknown": 1}, schema.json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "replicas": 0}, schema.json_schema())


def test_a_latency_is_pairs_of_a_fraction_and_microseconds() -> None:
    pair = {"index": 1, "values": {}}
    known = [[0.5, 42.1], [1, 900.0]]
    assert schema.Pair.model_validate({**pair, "latency": known}).model_dump(mode="json")[
        "latency"
    ] == [[0.5, 42.1], [1.0, 900.0]]
    for wrong in ([[1.5, 42.1]], [[0.5]], [[0.5, -1]], [42.1]):
        with pytest.raises(ValidationError):
            schema.Pair.model_validate({**pair, "latency": wrong})


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("analysis.schema, analysis.load", {"pandas", "numpy", "scipy", "matplotlib", "jinja2"}),
        (
            "analysis.summary, analysis.compare, analysis.study.published, analysis.sequential",
            {"matplotlib", "jinja2"},
        ),
    ],
)
def test_imports_stay_light(modules: str, heavy: set[str]) -> None:
    code = f"import sys, {modules}; print(' '.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "analysis.schema" in loaded
    assert not heavy & set(loaded)


def test_analysis_imports_no_other_room() -> None:
    for path in (ROOT / "analysis").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in {"infra", "experiments", "pulumi"}, path
