"""What the first version wrote is read, planned, reported, resumed, refreshed and destroyed.

The files of `data/first_version` were made with it (`up -s kept-2 -c runs=0 ...`, a sweep of two
configurations, its plan of a matrix); only paths, the kernel's release and the boot id are edited.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.load import load
from analysis.schema import Machine
from experiments import cli, signals, targets
from experiments.engines import StackRef, stacks
from experiments.engines.embedded import Embedded
from experiments.run import matrix, options, plan, sweep
from experiments.run.sweep import Sweep
from experiments.targets import TARGETS
from experiments.targets.lab import drift
from infra import checkpoint, config, configurations, keys
from infra.cores import Cores
from infra.lab import layout

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("data") / "first_version"
STACK = "kept-2"
BOOT = "00000000-0000-4000-8000-000000000000"
DIGESTS = json.loads((KEPT / "digests.json").read_text())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with the kept stack in it."""
    monkeypatch.setattr(stacks, "ROOT", tmp_path)
    monkeypatch.setattr(config, "_ROOT", tmp_path)
    shutil.copy(KEPT / "stack.yaml", tmp_path / f"Pulumi.{STACK}.yaml")
    shutil.copy(KEPT / "own.yaml", tmp_path)
    path = checkpoint.path_of(tmp_path, "steerlab", STACK)
    path.parent.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path.write_text((KEPT / "state.json").read_text().replace(BOOT, boot))
    return tmp_path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / "sweep", tmp_path / "sweep"))


# --- a stack: its file, its state, its measurement ---


@pytest.mark.usefixtures("project")
def test_the_file_of_a_stack_is_read_with_a_note_on_its_old_keys() -> None:
    ref, settings = stacks.load(STACK)
    assert (settings.configuration, settings.replicas, settings.runs) == ("wide", 2, 0)
    assert (settings.duration, settings.omit, settings.lease) == (7, 2, "3h")
    assert (settings.pod_cpu_limit, settings.steer_nodes) == ("500m", "both")
    assert settings.lab.cpus == Cores(server=(0, 1), client=(1,), irq=0)
    assert settings.steering.definition == "d7d53ae40cc7"
    assert stacks.renamed(STACK, {}) == "cpus is now lab.cpus"
    assert "steerlab:cpus" not in ref.config


@pytest.mark.parametrize("kept", DIGESTS, ids=lambda kept: kept["stack"])
def test_no_stack_is_measured_again_for_the_version_alone(kept: dict[str, Any]) -> None:
    values = kept["values"]
    assert config.state(kept["stack"], values, (0, 1)).digest() == kept["digest"]
    nested = {".".join(keys.path_of(key)): value for key, value in values.items()}
    assert config.state(kept["stack"], nested, (0, 1)).digest() == kept["digest"]


@pytest.mark.usefixtures("project")
def test_the_state_of_a_lab_is_recognised_and_its_drift_found() -> None:
    resources = stacks.recorded(STACK)
    assert targets.of(resources) is TARGETS["lab"]

    def there(namespace: str) -> set[str]:
        return {device for facts in made for device in facts.get(namespace, ())}

    stdouts = [str(one.get("outputs", {}).get("stdout") or "{}") for one in resources]
    made = [json.loads(text).get("namespaces", {}) for text in stdouts]
    assert sum(map(len, made)) > 4
    asked: list[str] = []
    study = Machine(
        kernel="6",
        cpu="x",
        cores=2,
        offloads={name: dict(of) for name, of in layout.OFFLOADS["study"].items()},
    )
    standing = drift.drifted(
        resources, there, lambda owner: asked.append(owner) or [], lambda *_: study
    )
    assert sorted(asked) == [f"{STACK}/client", f"{STACK}/server"]
    # its processes and files are of the machine on which it was made
    assert {one.name for one in standing} <= {"claim-file", "iperf-server-1", "iperf-server-2"}
    gone = drift.drifted(resources, lambda _: None, lambda _: [])
    assert {"server-namespace", "client-namespace", "pods-1", "pods-2"} <= {
        one.name for one in gone
    }


def test_an_up_of_today_has_the_same_resources(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts may differ, so that resources are replaced; none is left over, and none is there twice."""
    monkeypatch.chdir(ROOT)
    ref, _ = stacks.load(STACK)
    outcome = Embedded().preview(StackRef(ROOT, project, STACK, ref.config))
    assert {step.operation for step in outcome.changes} <= {"update", "replace"}
    kept = {one["urn"] for one in stacks.recorded(STACK)}
    assert {step.urn for step in outcome.changes} <= kept
    steering = {step.name: step.operation for step in outcome.changes if "steer-" in step.name}
    assert steering == {"steer-server": "update", "steer-client": "update"}


@pytest.mark.usefixtures("project")
def test_the_agent_that_its_scripts_name_is_there() -> None:
    scripts = [
        str(one["inputs"].get("delete"))
        for one in stacks.recorded(STACK)
        if "::steer-" in one["urn"]
    ]
    assert len(scripts) == 2
    for script in scripts:
        words = [*shlex.split(script), "--help"]
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, check=False
        )
        assert (words[0], done.returncode) == ("python3", 0), done.stderr


# --- a sweep: its plan, its records, what is left of it ---


def test_a_sweep_is_loaded_and_its_plan_is_that_of_its_records(results: Path) -> None:
    found = load(results)
    assert not found.faults
    made = sweep.kept_plan(results)
    assert {record.plan for record in found.records} == {made.digest}
    assert len(found.records) == len(made.runs) == 4
    assert all(record.valid for record in found.records)
    assert plan.from_json(plan.to_json(made)) == made


def call(words: list[str]) -> int:
    """The exit code of a command line."""
    before, sys.argv = sys.argv, ["steerlab", *words]
    handlers = {number: signal.getsignal(number) for number in signals.NUMBERS}
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(end.value.code or 0)


def test_a_report_of_it_repeats_it(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", str(results)]) == 0
    assert "rfs" in capsys.readouterr().out
    lines = (results / "report.md").read_text().splitlines()
    (line,) = [line for line in lines if "steerlab sweep" in line]
    assert call([*shlex.split(line)[1:], "--plan", "--json"]) == 0
    said = capsys.readouterr()
    assert plan.from_json(said.out).digest == sweep.kept_plan(KEPT / "sweep").digest
    assert "cpus is now lab.cpus" in said.err


def test_a_sweep_is_resumed_where_it_ended(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = matrix.plan(options.given(sweep.kept_plan(results).asked))
    job = Sweep(results, made, Embedded())
    assert job.prepare(resume=True) == []
    (results / "records" / "run-00002-rfs-1-overlay.json").unlink()
    (left,) = job.prepare(resume=True)
    assert (left.order, left.configuration) == (2, "rfs")
    _, settings = job._stack(left)  # its configurations are what they were
    assert settings.lab.cpus == Cores(server=(0, 1), client=(1,), irq=0)
    assert (settings.lease, settings.pod_cpu_limit) == ("3h", "800m")
    assert call(["sweep", "--resume", "--out", str(results), "--plan", "--json"]) == 0
    assert plan.from_json(capsys.readouterr().out).digest == made.digest


# --- files of the user ---


def test_a_matrix_makes_the_plan_that_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.yaml", "matrix.yaml"):
        shutil.copy(KEPT / name, tmp_path)
    text = (KEPT / "plan-of-matrix.json").read_text().replace("OWN", str(tmp_path / "own.yaml"))
    made = matrix.plan(matrix.named("matrix.yaml") | {"seed": 7})
    assert made == plan.from_json(text)
    assert json.loads(plan.to_json(made)) == json.loads(text)


def test_a_user_s_configurations_mean_what_they_meant() -> None:
    document = json.loads((KEPT / "plan-of-matrix.json").read_text())
    known = configurations.load(KEPT / "own.yaml")
    for name, definition in document["definitions"]:
        assert known[name].definition == definition
