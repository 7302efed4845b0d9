"""The command line: arguments in, exit codes out."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from experiments import VERSION, signals
from experiments.cli import (
    advise,
    export,
    history,
    hook,
    machine,
    results,
    rollout,
    stacks,
    study,
    sweep,
    tune,
)
from experiments.cli.terminal import Group, complain, pasted, show
from infra.errors import CANNOT, Refusal, leave

INTERRUPTED = 130
# As for a program that SIGPIPE ends: 128 + 13.
BROKEN_PIPE = 141
# A variable of the environment: show the traceback of an unexpected error.
DEBUG = "STEERLAB_DEBUG"
_MOST_LINES = 12

app = typer.Typer(
    name="steerlab",
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure Linux packet steering (RPS, RFS) in container networks.\n\n"
    + pasted("First time: ./steerlab sweep --quick (measures this machine's lab, writes a report)")
    + "\n\n"
    "Exit codes: 0 success, 1 failure, 2 invalid input, 3 missing prerequisite, 4 compare: worse, "
    "5 compare: inconclusive, 130 interrupted.",
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
tune.register(app)
stacks.register(app)
results.register(app)
study.register(app)
history.register(app)
export.register(app)
machine.register(app)
advise.register(machine.nodes)
rollout.register(machine.nodes)


def main() -> None:
    """Run one command and end the process with its exit code."""
    signals.install()
    try:
        hook_of_a_stack = sys.argv[1:2] == [hook.NAME]
        code = _run(_hook if hook_of_a_stack else _command)
    except KeyboardInterrupt:  # a second one, while the first was being reported
        code = INTERRUPTED
    finally:
        signals.ignore()
    sys.exit(_written(code))


def _written(code: int) -> int:
    """The exit code after stdout is flushed, where Python itself would end with 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output ended first
        code = BROKEN_PIPE
    except OSError as error:
        with suppress(OSError):
            complain(f"standard output: {error.strerror}")
        code = code or 1
    # the rest cannot be written; Python must not try again at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _beginning(failures: str) -> str:
    """One screen of failures: with 16 pairs one cause has 32 of them."""
    lines = failures.splitlines()
    if len(lines) <= _MOST_LINES:
        return failures
    return "\n".join([*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more lines"])


def _command() -> int | None:
    """One command; typer would end a broken pipe with 1 and replaced streams."""
    streams = sys.stdout, sys.stderr
    try:
        code: int | None = app(prog_name=pasted("./steerlab"), standalone_mode=False)
        return code
    except SystemExit as end:
        if (sys.stdout, sys.stderr) == streams:
            raise
        sys.stdout, sys.stderr = streams
        raise BrokenPipeError from end


def _hook() -> None:
    hook.call("".join(sys.argv[2:3]))


def _run(command: Callable[[], int | None]) -> int:
    try:
        code = command() or 0
        if code == INTERRUPTED:  # typer raises this for a KeyboardInterrupt
            complain("interrupted")
        return code
    except Refusal as refusal:
        complain(_beginning(str(refusal)))
        leave(refusal.exit_code)
        return refusal.exit_code
    except BrokenPipeError:
        return BROKEN_PIPE
    except PermissionError as error:
        complain(_forbidden(error))
        return CANNOT
    except OSError as error:
        if not error.filename and _stuck():
            return 1  # reported by `_written`
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
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        complain(_unexpected(error))
        return 1


def _stuck() -> bool:
    """Whether stdout cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _forbidden(error: PermissionError) -> str:
    """The file, its owner and the remedy."""
    path = Path(os.fsdecode(error.filename)) if error.filename else None
    if path is None or os.geteuid() == 0:
        return f"{path or 'the system'}: {error.strerror or error}"
    holder = next((one for one in (path, *path.parents) if _exists(one)), path)
    return (
        f"{path}: permission denied ({holder} belongs to {_owner(holder)}): run this as that user "
        "(root: with sudo), or change its owner"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError):  # KeyError: a number without a name
        return "another user"


def _unexpected(error: Exception) -> str:
    """A bug of this program in one line, with what a bug report needs."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:300]
    return (
        f"unexpected {type(error).__name__}: {said or 'no message'} "
        f"({Path(place.filename).name}:{place.lineno}); this is a bug of steerlab: {DEBUG}=1 "
        "shows the traceback"
    )
