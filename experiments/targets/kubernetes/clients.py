"""The cluster's clients and readers: remote commands that wait for a line, and what they printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from experiments.targets.contract import NOT_ENDED, BarrierBroken
from experiments.targets.kubernetes.shell import Answer, Session, Shell
from infra.errors import PrerequisiteMissing
from infra.traffic.contract import Failure

T = TypeVar("T")

# Time in which a command must print `ready`, seconds.
READY_S = 15.0
# So many clients start at the same time: each is an exec of the API.
_AT_ONCE = 8

# The shell prints `ready`, waits for a line, and becomes the client.
WAIT = 'echo ready; read -r _ || exit 1; exec "$@" </dev/null'
# It starts the client and ends it on a second line, or when the connection is lost: a client that
# was left behind would keep its server busy. The shell waits for all, since a pod has no init.
UNTIL = (
    'echo ready; read -r _ || exit 1; exec 3<&0; "$@" </dev/null 3<&- & client=$!; '
    "{ read -r _ <&3; kill $client; } >/dev/null 2>&1 & "
    "wait $client; status=$?; kill $! 2>/dev/null; wait; exit $status"
)


@contextmanager
def starting(
    commands: Mapping[T, Callable[[], Session]],
) -> Iterator[Callable[[], dict[T, Session]]]:
    """Sessions that start at the same time; the call that is yielded awaits them. All are closed at the end."""
    pool = ThreadPoolExecutor(_AT_ONCE)
    sessions = {name: pool.submit(start) for name, start in commands.items()}
    try:
        yield lambda: {name: one.result() for name, one in sessions.items()}
    finally:
        # not awaited: after an interrupt a session that has not started yet is closed when it has
        pool.shutdown(wait=False, cancel_futures=True)
        for one in sessions.values():
            one.add_done_callback(_close)


def _close(session: Future[Session]) -> None:
    if not session.cancelled() and not session.exception():
        session.result().close()


def ready(shell: Shell, words: Sequence[str], who: str) -> Session:
    """A command that waits for a line. Raises `BarrierBroken` where it is not ready in time."""
    try:
        session = shell.start(words)
    except PrerequisiteMissing as error:
        raise BarrierBroken(f"{who} did not start: {error}") from None
    try:
        if session.await_line(READY_S).strip() != "ready":
            answer = session.finish(time.monotonic() + 1)
            said = (answer.err or answer.out).strip()[-300:] if answer else "no output"
            raise BarrierBroken(f"{who} did not start: {said}")
    except BaseException:
        session.close()
        raise
    return session


def outcome(
    answer: Answer | None, parse: Callable[[bytes, bytes, int], T]
) -> tuple[T | Failure, bytes]:
    """What a client printed, parsed and raw; None is a client that did not end in time."""
    if answer is None:
        return NOT_ENDED, b""
    out = answer.out.encode()
    return parse(out, answer.err.encode(), answer.status), out
