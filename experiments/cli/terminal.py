"""What people see: colours only on a terminal; results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Rare on purpose: whoever draws here may be measuring at the same time.
REFRESH = 2


def complain(message: str) -> None:
    err.print(f"[bold red]steerlab:[/] {escape(message)}")


def note(message: str) -> None:
    err.print(f"[dim]{escape(message)}[/]")


def show(text: str) -> None:
    out.print(escape(text))


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))  # noqa: T201 exact bytes for scripts


class _OfAbout(ProgressColumn):
    """Time gone of the time that is expected."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.elapsed or 0:.0f} of about {task.total or 0:.0f} s")


@contextlib.contextmanager
def waiting(what: str, seconds: float) -> Iterator[None]:
    """On a terminal, show that something runs which should take so long."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _OfAbout(),
        console=err,
        refresh_per_second=REFRESH,
        transient=True,
        disable=not err.is_terminal,
    ) as shown:
        shown.add_task(what, total=seconds)
        yield
