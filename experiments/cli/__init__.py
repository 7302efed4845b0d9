"""The command line: words in, exit codes out; the work is done in the other modules."""

from __future__ import annotations

import re
import signal
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import Abort, TyperException

from experiments import VERSION
from experiments.cli import machine, results, stacks, sweep
from experiments.cli.terminal import Group, complain, pasted, show
from experiments.engines import EngineError
from infra.refusals import Refusal

INTERRUPTED = 130
_MOST_LINES = 12

app = typer.Typer(
    name="steerlab",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure what Linux packet steering (RPS, RFS) buys a container overlay.\n\n"
    + pasted("First time: ./steerlab sweep --quick measures this machine's lab and writes a ")
    + "report.\n\n"
    "Exit codes: 0 done, 1 failed, 2 bad input, 3 this machine cannot, 4 compare found it worse, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        show(f"steerlab {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    del version  # its callback has shown it


sweep.register(app)
stacks.register(app)
results.register(app)
machine.register(app)


def main() -> None:
    """Run one command and end the process with its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    sys.exit(_run())


def _status(failure: str) -> int:
    """A node that cannot (3) or a plan that is wrong (2) say so through the engine too."""
    match = re.search(r"\bsteer\S*(?: \w+)? failed: exit status ([23])\b", failure)
    return int(match[1]) if match else 1


def _beginning(failures: str) -> str:
    """As much as one screen has room for: with 16 pairs one cause has 32 failures."""
    lines = failures.splitlines()
    if len(lines) <= _MOST_LINES:
        return failures
    return "\n".join(
        [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} lines more like these"]
    )


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _run() -> int:
    try:
        code = app(prog_name=pasted("./steerlab"), standalone_mode=False) or 0
        if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            complain("interrupted")
        return code
    except Refusal as refusal:
        complain(str(refusal))
        return refusal.exit_code
    except EngineError as error:
        complain(_beginning(str(error)))
        return _status(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        return 1
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, Abort):
        complain("interrupted")
        return INTERRUPTED
    except TyperException as error:
        if hasattr(error, "show"):
            error.show()
        else:
            complain(error.format_message())
        return error.exit_code
