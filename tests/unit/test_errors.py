"""A refusal reaches the command line through an engine as a code, not as text."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embedded_project import Project
from pulumi import automation
from pulumi.automation import errors as automation_errors
from steer_tree import Tree, on_tree, plan, rule

from experiments.engines import EngineError, StackRef, backend, locks, pulumi_cli, trust
from experiments.engines.embedded import Embedded
from infra import errors

LEAVE = 'echo {0} >> "$STEERLAB_REFUSALS"; exit {0}'


def code_of(project: Project, script: str) -> int:
    project.write(f"thing('a', create={script!r})")
    with pytest.raises(EngineError) as failure:
        project.engine.up(project.stack)
    return failure.value.exit_code


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (LEAVE.format(3), 3),
        (LEAVE.format(2), 2),
        ("exit 3", 1),  # any program's status, which means nothing here
        ("echo steer-server failed: exit status 3 >&2; exit 1", 1),
        ('true > "$STEERLAB_REFUSALS"; exit 2', 1),
    ],
)
def test_a_command_s_refusal_is_the_code_of_the_engine_s_error(
    tmp_path: Path, script: str, code: int
) -> None:
    assert code_of(Project(tmp_path), script) == code
    assert errors.VARIABLE not in os.environ


@pytest.mark.parametrize(("words", "code"), [("apply --plan '{'", 2), ("verify", 2)])
def test_the_agent_leaves_its_refusal(tmp_path: Path, words: str, code: int) -> None:
    Tree(tmp_path / "root")
    script = f"{shlex.join(on_tree(tmp_path / 'root'))} {words} </dev/null"
    assert code_of(Project(tmp_path), script) == code


def test_the_program_leaves_its_refusal(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(
        "from infra import errors\n"
        "errors.leave(errors.PrerequisiteMissing.exit_code)\n"
        "raise pulumi.RunError('no cores')"
    )
    with pytest.raises(EngineError, match="no cores") as failure:
        project.engine.preview(project.stack)
    assert failure.value.exit_code == 3


def test_a_destroy_tells_what_a_restore_left_to_others(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "root")
    tree.device("eth1")
    tree.apply(plan(rule("nic", "eth1", cpus="all"), owner="x"))
    (tree.queue("eth1") / "rps_cpus").write_text("2\n")
    project = Project(tmp_path)
    restore = shlex.join(on_tree(tree.root, "restore", "--owner", "x"))
    project.write(f"thing('a', create='true', delete={restore!r})")
    project.engine.up(project.stack)
    with errors.noted() as notes:
        project.engine.destroy(project.stack)
        (left,) = notes()
    assert "rps_cpus of eth1 rx-0" in left
    assert "somebody else" in left
    assert errors.NOTES not in os.environ


def test_without_an_engine_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors.leave(3)
    stray = tmp_path / "stray"
    monkeypatch.setenv(errors.VARIABLE, str(stray))
    errors.leave(3)
    assert not stray.exists()


# --- the Pulumi CLI ---

PULUMI = """#!{python}
import os
with open({calls!r}, "a") as calls:
    calls.write(f"{{os.getsid(0)}}\\n")
print("v3.999.0")
"""


@pytest.mark.parametrize("home", [None, "/proc/none"])
def test_a_user_without_name_and_home_gets_both_for_the_cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    for name in ("USER", "HOME", "PULUMI_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(trust, "user", lambda _: "12345")
    given = pulumi_cli.environment(tmp_path)
    assert given["USER"] == "12345"
    assert Path(given["PULUMI_HOME"]).is_relative_to(tmp_path)
    monkeypatch.setenv("USER", "maria")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not pulumi_cli.environment(tmp_path).keys() & {"USER", "PULUMI_HOME"}


def test_no_call_of_the_cli_is_the_terminal_s_to_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one neither, which the clean-up after Ctrl-C begins with."""
    program, calls = tmp_path / "pulumi", tmp_path / "calls"
    program.write_text(PULUMI.format(python=sys.executable, calls=str(calls)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    pulumi_cli.Program({}).run(["whoami"], "/", {})
    sessions = calls.read_text().split()
    assert len(sessions) == 2
    assert str(os.getsid(0)) not in sessions


Up = Callable[..., object]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Up], EngineError]:
    """The engine's error where the CLI's `up` does so."""
    stack = StackRef(tmp_path, tmp_path / "100% a?b#c", "dev", project="tried")

    def failure(up: Up) -> EngineError:
        selected = type("Stack", (), {"up": staticmethod(up)})()
        monkeypatch.setattr(pulumi_cli, "Program", lambda _: type("Program", (), {"stop": None})())
        monkeypatch.setattr(automation, "create_or_select_stack", lambda *_, **__: selected)
        with pytest.raises(EngineError) as failed:
            pulumi_cli.PulumiCli().up(stack)
        return failed.value

    return failure


def raising(error: Exception) -> Up:
    def up(**_: Any) -> None:
        raise error

    return up


def test_a_refusal_passes_through_the_pulumi_cli_as_its_code(
    cli: Callable[[Up], EngineError],
) -> None:
    def up(**_: Any) -> None:
        done = subprocess.run(["/bin/sh", "-c", LEAVE.format(3)], check=False)
        result = automation.CommandResult(stdout="", stderr=f"error: {done}", code=255)
        raise automation_errors.create_command_error(result)

    assert cli(up).exit_code == 3


@pytest.mark.parametrize(
    "error",
    [
        automation_errors.InvalidVersionError("Could not parse the Pulumi CLI version."),
        FileNotFoundError(2, "No such file", "pulumi"),
        ValueError("Expecting value"),
        KeyError("summary"),
    ],
)
def test_whatever_the_automation_raises_is_one_sentence(
    cli: Callable[[Up], EngineError], error: Exception
) -> None:
    said = str(cli(raising(error)))
    assert "--engine embedded" in said
    assert "\n" not in said


def test_a_lock_of_the_cli_is_named_with_its_cure(
    cli: Callable[[Up], EngineError],
) -> None:
    said = cli(
        raising(
            automation_errors.ConcurrentUpdateError(
                automation.CommandResult("", "error: held", 255)
            )
        )
    )
    assert isinstance(said, locks.StackLocked)
    assert "rm -- " in str(said)


def test_the_cli_gets_the_project_s_passphrase_and_a_quoted_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "the caller's")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "/the/caller's")
    given = os.environ | pulumi_cli.environment(Path("/home/me/100% a?b#c"))
    assert given["PULUMI_CONFIG_PASSPHRASE"] == ""
    assert given["PULUMI_CONFIG_PASSPHRASE_FILE"] == ""
    assert given["PULUMI_BACKEND_URL"] == "file:///home/me/100%25%20a%3Fb%23c"
    # a team's backend has the team's
    team = pulumi_cli.environment(Path("/home/me"), "s3://team")
    assert team["PULUMI_BACKEND_URL"] == "s3://team"
    assert "PULUMI_CONFIG_PASSPHRASE" not in team
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE")
    team = pulumi_cli.environment(Path("/home/me"), "s3://team")
    assert team["PULUMI_CONFIG_PASSPHRASE"] == ""


def test_stacks_of_the_project_are_in_the_team_s_backend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, sweep = (
        StackRef(tmp_path, tmp_path, "rfs-2"),
        StackRef(tmp_path, tmp_path / "out", "rfs-2"),
    )
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    assert not backend.shared(own)
    monkeypatch.setenv("PULUMI_BACKEND_URL", tmp_path.as_uri())
    assert not backend.shared(own)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://user:secret@team/states")
    assert backend.shared(own)
    assert not backend.shared(sweep)
    for call in (Embedded().up, Embedded().destroy):
        with pytest.raises(EngineError, match="s3://team/states") as refused:
            call(own)
        assert refused.value.exit_code == 3
        assert "secret" not in str(refused.value)
