"""What people see: colours only on a terminal; results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    err.print(f"[bold red]steerlab:[/] {escape(message)}")


def note(message: str) -> None:
    err.print(f"[dim]{escape(message)}[/]")


def show(text: str) -> None:
    out.print(escape(text))


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))  # noqa: T201 exact bytes for scripts
