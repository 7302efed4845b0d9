"""The commands of a report that set a configuration on nodes and undo it: right, and as measured."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_shown_commands import takes

from analysis.schema import Record
from benchmarks.synthetic import sweep
from experiments.run import keep, options
from experiments.run import plan as plans
from experiments.run.plan import SweepPlan
from infra import configurations

ROOT = Path(__file__).resolve().parents[2]
IMAGES = '{"iperf3": "registry/iperf3:1", "steering": "registry/steering:a"}'
CLUSTER = {
    "kubernetes.images": IMAGES, "kubernetes.context": "my cluster", "kubernetes.kubeconfig": "/k",
    "kubernetes.overlayDevice": "flannel.1",
}  # fmt: skip


def planned(own: str = "", **more: Any) -> SweepPlan:
    asked = {"seed": 0, "blocks": 3, "configurations": ["baseline", "rfs", "pipeline"],
             "replicas": [1], "own": own, **more}  # fmt: skip
    return plans.make(options.read(asked), known=configurations.load(own or None), cpus=8)


def measured(plan: SweepPlan, target: str) -> list[Record]:
    """Records of what the plan's configurations are defined as."""
    return [
        record.model_copy(
            update={"target": target, "definition": dict(plan.definitions)[record.configuration]}
        )
        for record in sweep(dict.fromkeys(plan.configurations, 1.0), blocks=1)
    ]


def words(line: str) -> list[str]:
    program, *rest = shlex.split(line)
    assert program == "./steerlab"
    return rest


def test_a_node_is_tried_kept_and_restored(tmp_path: Path) -> None:
    own = tmp_path / "my own.yaml"
    own.write_text("rfs:\n  nic: {cpus: all}\n")
    plan = planned(str(own))
    found = keep.commands(["rfs"], measured(plan, "lab"), plan)
    assert not found.reason
    lines = [words(one.line) for one in found.lines]
    assert lines == [
        ["nodes", "apply", "rfs", "--own", str(own), "--lease", "2h"],
        ["nodes", "apply", "rfs", "--own", str(own), "--persist"],
        ["nodes", "restore"],
    ]
    assert all(takes(line) for line in lines)


def test_each_of_several_has_its_commands_and_the_undo_is_one() -> None:
    plan = planned()
    found = keep.commands(["rfs", "pipeline"], measured(plan, "lab"), plan)
    assert [words(one.line)[1] for one in found.lines] == ["apply"] * 4 + ["restore"]
    assert all(name in one.purpose for name, one in zip(
        ("rfs", "rfs", "pipeline", "pipeline"), found.lines, strict=False))  # fmt: skip


def test_with_nothing_to_set_what_is_set_can_be_undone() -> None:
    plan = planned()
    (one,) = keep.commands([], measured(plan, "lab"), plan).lines
    assert words(one.line) == ["nodes", "restore"]


def run(line: str, folder: Path) -> list[str]:
    """Run a line in a shell with a kubectl that keeps its input; the words it got."""
    shim = folder / "bin/kubectl"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/words\ncat >{folder}/input </dev/stdin\n'
    )
    shim.chmod(0o755)
    steerlab = folder / "bin/steerlab"
    steerlab.write_text(f'#!/bin/sh\nexec {ROOT}/.venv/bin/python -m experiments "$@"\n')
    steerlab.chmod(0o755)
    path = f"{folder}/bin:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", line.replace("./steerlab", str(steerlab))], check=True, cwd=ROOT,
        env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return (folder / "words").read_text().splitlines()


def test_a_cluster_gets_a_daemonset_and_loses_it_again(tmp_path: Path) -> None:
    plan = planned(target="kubernetes", config=CLUSTER)
    found = keep.commands(["rfs"], measured(plan, "kubernetes"), plan)
    assert not found.reason
    apply, undo = (one.line for one in found.lines)
    where = ["--kubeconfig", "/k", "--context", "my cluster"]
    assert run(apply, tmp_path) == [*where, "apply", "-f", "-"]
    namespace, files, daemons = yaml.safe_load_all((tmp_path / "input").read_text())
    pod = daemons["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry/steering:a"
    assert "flannel.1" in files["data"]["plan.json"]
    name = namespace["metadata"]["name"]
    assert run(undo, tmp_path) == [*where, "delete", "namespace", name, "--ignore-not-found"]
    assert {files["metadata"]["namespace"], daemons["metadata"]["namespace"]} == {name}


def test_without_a_plan_the_image_is_the_reader_s() -> None:
    records = measured(planned(), "kubernetes")
    apply, undo = keep.commands(["rfs"], records, None).lines
    assert "--image IMAGE | kubectl apply" in apply.line
    assert undo.line.startswith("kubectl delete")


@pytest.mark.parametrize("settings", [{"kubernetes.images": "[]"}, {"kubernetes.nope": "1"}])
def test_a_cluster_whose_settings_cannot_be_read_has_no_command(settings: dict[str, str]) -> None:
    plan = planned(target="kubernetes", config=settings)
    found = keep.commands(["rfs"], measured(planned(), "kubernetes"), plan)
    assert not found.lines
    assert "images" in found.reason or "nope" in found.reason
