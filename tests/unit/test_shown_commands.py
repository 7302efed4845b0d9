"""Every command that the program prints is one that its own command line takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from experiments.cli import app, hook, terminal
from experiments.cli.terminal import pasted
from infra.commands import command, how_ended

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "experiments", "infra", "analysis", "docker")
# Placeholder in a text for a value that is known when it is printed.
VALUE = "X1"
# In a sentence a command ends where the sentence or its part does, or at a comment beside it.
_COMMAND = re.compile(r"\./steerlab (?:(?! #| \(|&&| \||: |[;,)`\n]|\.$).)+")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module; what an f-string fills in is `VALUE`."""
    tree = ast.parse(path.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else VALUE
                    for part in node.values
                ),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


def printed() -> Iterator[tuple[str, str]]:
    """Where, and the command."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for line, text in texts(path):
                for found in _COMMAND.findall(re.sub(r"\\\n\s*", "", text)):
                    yield f"{path.relative_to(ROOT)}:{line}", found
        for path in sorted((ROOT / package).rglob("*.jinja")):
            for found in _COMMAND.findall(re.sub(r"{{.*?}}", VALUE, path.read_text())):
                yield str(path.relative_to(ROOT)), found


def called() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words of each call of `infra.commands.command`."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if "from infra.commands import" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command":
                    words = [
                        one.value if isinstance(one, ast.Constant) else VALUE
                        for one in node.args
                        if not isinstance(one, ast.Starred)
                    ]
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", words


def takes(words: list[str]) -> bool:
    """Whether the command line parses these words; nothing is run."""
    if words[0] == hook.NAME:
        return len(words) == 1 or words[1] in hook.HOOKS
    group: Any = typer.main.get_command(app)
    context = group.make_context("./steerlab", list(words))
    while hasattr(group, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, list(rest), parent=context)
    return True


ALL = sorted(set(printed()))


def test_there_are_commands() -> None:
    assert len(ALL) > 25
    assert len(list(called())) > 5


@pytest.mark.parametrize(("where", "text"), ALL)
def test_a_printed_command_is_taken(where: str, text: str) -> None:
    words = ["x=y" if word == "..." else word for word in shlex.split(text)[1:]]
    if words[-1] == "--out":  # its value is built beside it
        words.append(VALUE)
    assert takes(words), where


@pytest.mark.parametrize(("where", "words"), list(called()))
def test_a_command_that_is_built_is_taken(where: str, words: list[str]) -> None:
    verb = "up" if words[0] == VALUE else words[0]
    if words[-1] == "--out":
        words = [*words, VALUE]
    assert takes([verb, *words[1:]]), where


@pytest.mark.parametrize(
    "word", ["a b", "$HOME", "it's", "*", "-s", "a\nb", "", "ü", "`id`", "a;b"]
)
def test_words_come_back_from_a_shell(word: str) -> None:
    assert shlex.split(command("report", word)) == ["./steerlab", "report", word]


def test_elsewhere_the_program_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert pasted("run ./steerlab sweep") == "run ./steerlab sweep"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "_WRAPPER", tmp_path / "my checkout/steerlab")
    told = pasted("(./steerlab destroy --lab): see docs/steerlab, x./steerlab and ./steerlab-2")
    assert told.startswith(f"('{tmp_path}/my checkout/steerlab' destroy --lab)")
    assert told.endswith("see docs/steerlab, x./steerlab and ./steerlab-2")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (255, "exit status 255"),
        (-9, "ended by SIGKILL"),
        (137, "ended by SIGKILL"),
        (143, "ended by SIGTERM"),
        (-100, "ended by signal 100"),
    ],
)
def test_a_signal_has_its_name(status: int, words: str) -> None:
    assert how_ended(status) == words
