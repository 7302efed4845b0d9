"""Root for commands that need it: runs the same command under sudo, with a clean environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.errors import PrerequisiteMissing

ENTRY = Path(__file__).resolve().parents[1] / "__main__.py"

# Variables that the command keeps as root: for the terminal, and for downloads of packages.
# None that makes a program load code (PYTHONPATH, PATH, LD_PRELOAD, HOME).
_KEPT = {
    "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "LANG", "LC_ALL",
    "LC_CTYPE", "LC_MESSAGES", "TZ", "CI", "GOPROXY", "STEERLAB_DEBUG", "http_proxy",
    "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
}  # fmt: skip


def become_root(why: str) -> None:
    """Return as root, or start this command again under sudo. Raises `PrerequisiteMissing` where neither can be.

    Call it before any change.
    """
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None or not _is_the_command(sys.argv):
        raise PrerequisiteMissing(f"root is needed {why}: use sudo")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sudo, command(sys.orig_argv, os.environ))  # noqa: S606 no shell


def command(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The sudo command for `argv`, with the allowed variables of an environment (pure)."""
    kept = [f"{name}={environment[name]}" for name in sorted(_KEPT & environment.keys())]
    # -B: caches of root's in a user's checkout could only be deleted by root
    python = [argv[0], "-B", *argv[1:]]
    # a shell between, for `env` would take a program whose path has a = for a variable
    return ["sudo", "--", "env", *kept, "/bin/sh", "-c", 'exec "$@"', "sh", *python]


def _is_the_command(argv: Sequence[str]) -> bool:
    """Whether this process is the command line, and not a program that calls a part of it."""
    return bool(argv) and Path(argv[0]).absolute() == ENTRY
