"""Output for people: results on stdout, the rest on stderr, commands in a form to paste."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

import typer
from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text
from typer.core import TyperGroup

from analysis.plaintext import visible
from infra.commands import PROGRAM


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise, so that the command line decides: rich would end the process."""
        raise


# Ignore impossible sizes: rich accepts 0, and fails at a digit like ².
for _size in ("COLUMNS", "LINES"):
    if not re.fullmatch(r"[1-9][0-9]{0,3}", os.environ.get(_size, "80"), re.ASCII):
        del os.environ[_size]

out = _Console(highlight=False, soft_wrap=True)
err = _Console(stderr=True, highlight=False, soft_wrap=True)

# Low, because drawing may disturb a measurement.
REFRESH = 2


_WRAPPER = Path(__file__).resolve().parents[2] / "steerlab"
_SHOWN = re.compile(rf"(?<![\w./-]){re.escape(PROGRAM)}(?![\w/-])")


def safe(text: str) -> str:
    """Text for a terminal: no control characters, and commands that work in this folder."""
    return pasted(visible(text))


def pasted(text: str) -> str:
    """Text with its commands in a form that works in the current folder."""
    if Path(PROGRAM).resolve() == _WRAPPER:
        return text
    return _SHOWN.sub(lambda _: quote(str(_WRAPPER)), text)


def register(app: typer.Typer, command: Callable[..., None], name: str | None = None) -> None:
    """Add a command; its docstring is its help."""
    app.command(name, help=pasted(inspect.cleandoc(command.__doc__ or "")))(command)


def register_late(
    app: typer.Typer, doc: str, name: str, made: Callable[[], Callable[..., None]]
) -> None:
    """Add a command whose options come from modules that are slow to import: only when it is used."""

    def in_the_list() -> None: ...

    def whole() -> Any:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        register(alone, made(), name)
        return typer.main.get_command(alone)

    in_the_list.__doc__ = doc
    register(app, in_the_list, name)
    Group.late[name] = functools.cache(whole)


class Group(TyperGroup):
    """A list of commands with the whole first sentence of each, also on narrow terminals."""

    late: ClassVar[dict[str, Callable[[], Any]]] = {}

    def get_command(self, ctx: Any, name: str) -> Any:
        return self.late[name]() if name in self.late else super().get_command(ctx, name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        commands = [(name, super(Group, self).get_command(ctx, name)) for name in names]
        rows = [
            (name, (command.help or "").partition("\n\n")[0].replace("\n", " "))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def complain(message: str) -> None:
    err.print(Text.assemble(("steerlab:", "bold red"), " ", safe(message)))


def note(message: str) -> None:
    err.print(Text(safe(message), "dim"))


def show(text: str) -> None:
    out.print(Text(safe(text)))


def say(text: str) -> None:
    """Prose, wrapped between words on a terminal."""
    out.print(Text(safe(text)), soft_wrap=not out.file.isatty())


def drawn() -> bool:
    """Whether stderr is a terminal that can redraw lines; FORCE_COLOR does not make it one."""
    return err.file.isatty() and err.is_terminal and not err.is_dumb_terminal


def show_json(value: Any) -> None:
    text = json.dumps(finite(value), indent=1, default=str, allow_nan=False)
    print(text)  # noqa: T201 exact bytes for scripts


def show_answer(answer: Any, text: Callable[[Any], str], *, json: bool) -> None:
    """An answer as JSON for scripts, or as text."""
    if json:
        show_json(answer)
    else:
        show(text(answer))


def finite(value: Any) -> Any:
    """The value for JSON: NaN and infinite numbers become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


class _OfAbout(ProgressColumn):
    """Elapsed and expected time."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.elapsed or 0:.0f} of about {task.total or 0:.0f} s")


@contextlib.contextmanager
def waiting(what: str, seconds: float) -> Iterator[None]:
    """On a terminal, show a spinner with the expected time."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _OfAbout(),
        console=err,
        refresh_per_second=REFRESH,
        transient=True,
        disable=not drawn(),
    ) as shown:
        shown.add_task(what, total=seconds)
        yield


@contextlib.contextmanager
def or_else(*ways: str) -> Iterator[None]:
    """After an interrupt, show how to finish or undo the work."""
    try:
        yield
    except KeyboardInterrupt:
        for way in ways:
            note(f"not finished; {way}")
        raise
