"""A cluster's stack belongs to the engine that made it; the other says so and touches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import declared_graph
import pytest
from test_cluster_graph import NODES, declared, state

from experiments.engines import StackRef
from experiments.engines.embedded import Embedded
from experiments.engines.pulumi_cli import PulumiCli
from infra.errors import InvalidInput
from infra.kubernetes import cluster, made_by

NAME = "rfs-plus-4"
ROOT = "urn:pulumi:rfs-plus-4::steerlab::"


def resources(engine: str) -> list[dict[str, Any]]:
    stack = {"urn": f"{ROOT}pulumi:pulumi:Stack::x", "custom": False, "type": "pulumi:pulumi:Stack"}
    urn = f"{ROOT}{made_by.COMPONENT}::cluster"
    inputs = {"engine": engine}
    return [stack, {"urn": urn, "custom": False, "type": made_by.COMPONENT, "inputs": inputs}]


def kept(home: Path, engine: str) -> Path:
    path = home / f".pulumi/stacks/steerlab/{NAME}.json"
    path.parent.mkdir(parents=True)
    latest = {"resources": resources(engine)}
    path.write_text(json.dumps({"version": 3, "checkpoint": {"latest": latest}}))
    return path


@pytest.mark.parametrize(("engine", "made"), [(Embedded(), "pulumi"), (PulumiCli(), "embedded")])
@pytest.mark.parametrize("verb", ["up", "preview", "destroy"])
def test_an_engine_refuses_the_other_s_stack(
    engine: Any, made: str, verb: str, tmp_path: Path
) -> None:
    path = kept(tmp_path, made)
    before = path.read_bytes()
    with pytest.raises(
        InvalidInput, match=f"created on its cluster by the {made} engine: use --engine"
    ):
        getattr(engine, verb)(StackRef(tmp_path, tmp_path, NAME))
    assert path.read_bytes() == before


def test_its_own_stack_and_the_lab_s_are_refused_by_none() -> None:
    made_by.refuse_other(NAME, resources("embedded"), "embedded")
    made_by.refuse_other(NAME, [{"type": "steerlab:lab:Lab", "inputs": {}}], "pulumi")


def test_plain_pulumi_refuses_before_it_declares_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, "embedded")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="--engine embedded"):
        declared_graph.declared(NAME, lambda: cluster.declare(state(), NODES))


def test_the_program_records_the_engine_that_runs_it() -> None:
    graph = declared(state(NAME))
    assert graph.components["cluster"] == {"engine": "pulumi"}
