"""The docs keep up: each command that they show is run by a test, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import shown
import typer

from experiments.cli import app

ROOT = shown.ROOT
TRIED = {*shown.LAB, *shown.CLUSTER, *shown.ELSEWHERE, *shown.NOT_RUN}
OURS = sorted(line for line in shown.commands() if line.startswith("./steerlab"))


def test_there_are_commands_to_try() -> None:
    assert len(OURS) > 30


def test_every_command_is_tried() -> None:
    untried = {line: page for line, page in shown.commands().items() if line not in TRIED}
    assert not untried


def test_nothing_is_tried_that_is_not_shown() -> None:
    assert not TRIED - shown.commands().keys()


@pytest.mark.parametrize("place", sorted(set(shown.ELSEWHERE.values())))
def test_the_places_named_are_there(place: str) -> None:
    assert (ROOT / "tests" / place).is_file()


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_the_docs_is_taken(line: str) -> None:
    """Its words, as they stand there, are parsed as the command line does; nothing is run."""
    words = shlex.split(line.replace('"$IMAGES"', "'{}'"))[1:]
    command = typer.main.get_command(app)
    context = command.make_context("./steerlab", words, resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, list(rest))
        assert command is not None, name
        context = command.make_context(name, rest, parent=context)
    assert context.params is not None


@pytest.mark.parametrize("page", shown.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
