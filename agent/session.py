"""A session: many calls of the agent over one connection, each by a process of its own.

A request is a line on stdin with the words of a verb as JSON. The answer is what the verb prints, a line for each
document, and then a line with its exit status and its messages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence

from agent.errors import BAD_PLAN, SteerError
from agent.files import MAX_TEXT, read_json, read_to_end
from agent.procstat import look
from agent.starting import Driver

LOOK = "look"  # files and counters of the machine, as `procstat` reads them
SPOKEN_TO = (LOOK, "switchback")  # read lines from stdin while they run

Call = Callable[[Sequence[str]], int]


def serve(call: Call, driver: Driver) -> None:
    """Answer requests until stdin is closed."""
    while line := driver.line(MAX_TEXT, None):
        try:
            status, said = _called(call, requested(line))
        except SteerError as error:
            status, said = error.status, f"steer: {error}\n"
        sys.stdout.write(json.dumps({"ended": status, "messages": said}) + "\n")
        sys.stdout.flush()


def requested(line: bytes) -> list[str]:
    """The words of a request (pure)."""
    try:
        words = read_json(line.decode())
    except ValueError as error:
        raise SteerError(f"session: a line is not JSON in UTF-8: {error}", BAD_PLAN) from None
    if not isinstance(words, list) or not words or any(not isinstance(one, str) for one in words):
        raise SteerError("session: a line is not a list of words", BAD_PLAN)
    return words


def _called(call: Call, words: Sequence[str]) -> tuple[int, str]:
    """Exit status (-N if signal N killed it) and messages of a call in a process of its own."""
    messages = os.memfd_create("messages")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(messages, 2)
            if words[0] not in SPOKEN_TO:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            if words[0] == LOOK:
                look(json.loads(words[1]))
            status = 0 if words[0] == LOOK else call(words)
        except SystemExit as usage:
            status = usage.code if isinstance(usage.code, int) else 1
        except Exception as error:  # of look: verbs explain theirs
            sys.stderr.write(f"steer: {error!r}\n")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, end = os.waitpid(child, 0)
    os.lseek(messages, 0, os.SEEK_SET)
    said = read_to_end(messages, MAX_TEXT).decode(errors="replace")
    os.close(messages)
    return -os.WTERMSIG(end) if os.WIFSIGNALED(end) else os.WEXITSTATUS(end), said
