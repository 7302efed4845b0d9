"""Identities of processes, although ids are reused; and the agent's own program."""

from __future__ import annotations

import os
import time

from agent.files import ABSENT, read_text


def start_time(pid: int) -> str | None:
    """Field 22 of proc_pid_stat(5), the start time: distinguishes a process from a later one with its id."""
    try:
        state, *fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    except ValueError:  # no text at all
        return None
    return None if state in "ZX" else "".join(fields[18:19])


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def program() -> str:
    """What Python runs as this agent: its archive, or the folder of its package."""
    folder = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(folder)
    return above if os.path.isfile(above) else folder
