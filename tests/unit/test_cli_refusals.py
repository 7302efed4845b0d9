"""Names that are not there and folders that are somebody else's: refused before anything is done."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import cli, signals
from experiments.engines import EngineError, Outcome, StackRef, choice, stacks
from experiments.engines.embedded import Embedded, state
from experiments.host import lock, nodes
from experiments.targets.lab import requirements, standing
from infra.lab import claim

Cli = Callable[..., tuple[int, str, str]]
STRANGER = 54321


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, on a machine that could run the lab."""
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stacks, "ROOT", folder)
    monkeypatch.setattr(lock, "machine", functools.partial(lock.machine, path=tmp_path / "busy"))
    monkeypatch.setattr(claim, "OWNER", str(tmp_path / "owner"))
    monkeypatch.setattr(requirements, "missing", lambda *_, **__: [])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(choice, "choose", lambda _: Engine())
    return folder


class Engine(Embedded):
    """Its outputs are the checkpoint's; it neither converges nor destroys."""

    def up(self, *_: Any, **__: Any) -> Outcome:
        raise EngineError("it was asked to converge")

    def preview(self, *_: Any, **__: Any) -> Outcome:
        return Outcome((), 0, {})

    def destroy(self, *_: Any, **__: Any) -> Outcome:
        return Outcome((), 0, {})


@pytest.fixture
def steerlab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Runs one command line: exit code, stdout, stderr."""
    before = {number: signal.getsignal(number) for number in signals.NUMBERS}

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["steerlab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out, said.err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def recorded(folder: Path, name: str) -> StackRef:
    """A stack that was up once, with a measurement."""
    urn = f"urn:pulumi:{name}::steerlab::"
    resources: list[dict[str, Any]] = [
        {
            "urn": f"{urn}pulumi:pulumi:Stack::steerlab-{name}", "custom": False,
            "type": "pulumi:pulumi:Stack",
            "outputs": {"configuration": "rps", "replicas": 1, "bitrate_mbps": 1.0},
        },
        {
            "urn": f"{urn}command:local:Command::measurement", "custom": True, "id": "x",
            "type": "command:local:Command", "inputs": {"create": "x"},
            "outputs": {"create": "x", "stdout": "{}"},
        },
    ]  # fmt: skip
    stack = StackRef(folder, folder, name)
    state.save(stack, state.render(stack, [json.dumps(one) for one in resources], [], None))
    return stack


@pytest.mark.parametrize("verb", ["destroy", "outputs"])
def test_a_stack_that_is_not_there(steerlab: Cli, project: Path, verb: str) -> None:
    recorded(project, "rps-1")
    code, out, err = steerlab(verb, "-s", "nosuch")
    assert (code, out) == (2, "")
    assert "nosuch" in err
    assert "rps-1" in err
    assert steerlab(verb, "-s", "rps-1")[0] == 0


def test_the_last_measurement_is_the_stack_s_output(steerlab: Cli, project: Path) -> None:
    from experiments.engines import remeasured

    stack = recorded(project, "rps-1")
    result = {"bitrate_mbps": 2.5, "bitrate_ci": None, "idle_percent": 1.0,
              "softirq_percent": 3.0, "directory": "/results"}  # fmt: skip
    remeasured.keep(stack, result)
    said = json.loads(steerlab("outputs", "-s", "rps-1", "--json")[1])
    assert said == {"configuration": "rps", "replicas": 1} | {
        name: value for name, value in result.items() if value is not None
    }
    measurement = state.load(stack).resources[1]
    assert json.loads(measurement["outputs"]["stdout"]) == result
    remeasured.keep(StackRef(project, project, "never-up"), result)
    assert not StackRef(project, project, "never-up").checkpoint.exists()


def test_a_name_that_its_file_overrules_is_told(steerlab: Cli, project: Path) -> None:
    recorded(project, "rfs-plus-4")
    assert "rfs-plus-4 is" not in steerlab("preview", "-s", "rfs-plus-4")[2]
    (project / "Pulumi.rfs-plus-4.yaml").write_text(
        "config:\n  steerlab:configuration: rps\n  steerlab:replicas: '2'\n"
    )
    for line in ("preview -s rfs-plus-4", "up -s rfs-plus-4"):
        _, _, err = steerlab(*line.split())
        assert "configuration is rps, not rfs-plus" in err
        assert "replicas is 2, not 4" in err
    _, _, err = steerlab("destroy", "-s", "rfs-plus-4")
    assert "Pulumi.rfs-plus-4.yaml (configuration=rps replicas=2) is kept" in err


def test_an_old_key_is_noted_once_and_not_in_json(steerlab: Cli, project: Path) -> None:
    (project / "Pulumi.rfs-plus-4.yaml").write_text("config:\n  steerlab:path: host\n")
    for verb in ("preview", "up"):
        code, out, err = steerlab(verb, "-s", "rfs-plus-4", "-c", "path=host", "--json")
        assert out == "" if code else json.loads(out)  # the engine of these tests refuses an up
        assert err.count("path is now lab.path") == 1
    assert yaml.safe_load((project / "Pulumi.rfs-plus-4.yaml").read_text())["config"] == {
        "steerlab:path": "host"
    }
    steerlab("up", "-s", "rfs-plus-4", "-c", "path=overlay")
    assert yaml.safe_load((project / "Pulumi.rfs-plus-4.yaml").read_text())["config"] == {
        "steerlab:lab": {"path": "overlay"}
    }


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labs that were taken away."""
    done: list[str] = []

    def take_away(stands: standing.Lab) -> dict[str, Any]:
        done.append(stands.folder)
        return {"stack": stands.stack, "folder": stands.folder, "restored": 0, "left": []}

    monkeypatch.setattr(standing, "take_away", take_away)
    return done


def test_the_lab_of_another_checkout_needs_force(
    steerlab: Cli, project: Path, tmp_path: Path, taken: list[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "owner").write_text(f"rfs-4 in {other}\n")
    code, _, err = steerlab("destroy", "--lab")
    assert (code, taken) == (2, [])
    assert f"rfs-4 in {other}" in err
    assert "--force" in err
    assert steerlab("destroy", "--lab", "--force")[0] == 0
    assert taken == [str(other)]
    # nobody can destroy it in a folder that is gone
    shutil.rmtree(other)
    assert steerlab("destroy", "--lab")[0] == 0
    (tmp_path / "owner").write_text(f"rfs-4 in {project}\n")
    assert steerlab("destroy", "--lab")[0] == 0


SHORT = "--configurations baseline,rps --replicas 1 --runs 1 --duration 1 --omit 0"


@pytest.mark.parametrize("line", [f"sweep {SHORT} --out docs", "import raw --out docs"])
def test_a_folder_that_holds_something_else_is_not_filled(
    steerlab: Cli, project: Path, line: str
) -> None:
    (project / "docs").mkdir()
    (project / "docs/page.md").write_text("mine")
    (project / "raw").mkdir()
    (project / "raw/baseline-1.txt").write_text(_raw())
    code, _, err = steerlab(*line.split())
    assert code == 2
    assert "docs" in err
    assert [path.name for path in (project / "docs").iterdir()] == ["page.md"]


def _raw() -> str:
    from study_text import write_text

    return write_text([[801], [802]], cores=2)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sweep --configurations rps,rfs --plan", "baseline"),
        ("sweep --configurations rps,rfs --baseline nope --plan", "nope"),
        (f"sweep {SHORT} --out file", "not a directory"),
        (f"sweep {SHORT} --events none/there", "events"),
    ],
)
def test_refused_with_2(steerlab: Cli, project: Path, line: str, words: str) -> None:
    (project / "file").write_text("")
    code, _, err = steerlab(*line.split())
    assert code == 2
    assert words in err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("baseline", ["rps", "none"])
def test_another_baseline_or_none_is_a_choice(steerlab: Cli, baseline: str) -> None:
    line = f"sweep --configurations rps,rfs --baseline {baseline} --plan"
    assert steerlab(*line.split())[0] == 0


def given_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def open_to_all(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("spoil", [given_away, open_to_all])
@pytest.mark.parametrize("name", [".", "plan.json", ".pulumi", ".pulumi/stacks/steerlab/x.json"])
def test_a_sweep_of_somebody_else_s_directory_is_refused(
    steerlab: Cli, project: Path, spoil: Callable[[Path], None], name: str
) -> None:
    assert steerlab("sweep", *SHORT.split(), "--seed", "1", "--out", "out")[0] == 1
    recorded(project / "out", "x")
    spoil(project / "out" / name)
    code, _, err = steerlab("sweep", "--resume", "--out", "out")
    assert code == 2
    assert str(Path("out") / name) in err
    assert ("chown -R" if spoil is given_away else "chmod -R go-w") in err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_sudo_s_caller_owns_is_trusted(
    steerlab: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steerlab("sweep", *SHORT.split(), "--seed", "1", "--out", "out")[0] == 1
    given_away(project / "out")
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    monkeypatch.setenv("SUDO_GID", str(STRANGER))
    assert steerlab("sweep", "--resume", "--out", "out")[0] == 1  # as far as the engine


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("line", ["up -s rps-1 -c runs=0", "destroy -s rps-1"])
def test_a_state_that_somebody_else_wrote_is_refused(
    steerlab: Cli, project: Path, line: str
) -> None:
    given_away(recorded(project, "rps-1").checkpoint)
    code, _, err = steerlab(*line.split())
    assert code == 2
    assert "rps-1.json" in err


def test_control_characters_do_not_reach_the_terminal(steerlab: Cli, project: Path) -> None:
    (project / "dir").mkdir()
    (project / "dir/run-\x1b[31m.json").write_text("{")
    _, _, err = steerlab("report", "dir")
    assert "\x1b" not in err
    assert "run-\\x1b[31m.json" in err


@pytest.mark.parametrize(
    "words",
    [("--context", "prod"), ("--kubeconfig", "f"), ("--selector", "a=b", "--all")],
)
def test_restore_of_a_cluster_s_nodes_and_of_this_one_are_not_mixed(
    steerlab: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    del project
    monkeypatch.setattr(nodes, "restore", lambda *_, **__: pytest.fail("this node is restored"))
    code, out, err = steerlab("nodes", "restore", *words)
    assert (code, out) == (2, "")
    assert "selector: " in err
