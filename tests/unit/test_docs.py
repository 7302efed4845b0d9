"""The docs keep up: commands that they show are taken, links lead somewhere, defaults are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from experiments.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
COMMAND = re.compile(r"\./steerlab [^\n`|]*")


def commands() -> list[str]:
    found = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = re.findall(r"^    (.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
        for block in blocks:
            for line in COMMAND.findall(block):
                for one in re.split(r"&&|;", re.sub(r"\s+#.*", "", line)):
                    if one.strip().startswith("./steerlab "):
                        found[one.strip().rstrip(".:")] = page.name
    return sorted(found)


def test_there_are_commands_to_try() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_docs_is_taken(line: str) -> None:
    """Its words are parsed as the command line does; nothing is run."""
    words = shlex.split(line.replace('"$IMAGES"', "'{}'"))[1:]
    command = typer.main.get_command(app)
    context = command.make_context("./steerlab", words, resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, list(rest))
        assert command is not None, name
        context = command.make_context(name, rest, parent=context)
    assert context.params is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
