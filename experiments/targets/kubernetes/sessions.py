"""The driver's session with a node's agent: one connection, through which the agent does one call after another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from agent.session import LOOK
from experiments.host.machine import seen
from experiments.targets.kubernetes import agents
from experiments.targets.kubernetes.shell import Answer, Session, Shell, SshShell
from infra import untrusted
from infra.errors import PrerequisiteMissing
from infra.kubernetes import agent as pods
from infra.kubernetes.access import CALL_S
from infra.kubernetes.names import Names
from infra.kubernetes.pinned import Pin
from infra.settings import Ssh

# Seconds in which an agent must be ready for an episode: it may have to wait for another one.
READY_S = 70.0


class _End(BaseModel):
    """The last line of an answer."""

    ended: int
    messages: str


class Call(NamedTuple):
    """A call of an agent that reads from stdin."""

    say: Callable[[str], None]
    finish: Callable[[float], Answer | None]  # like `Session.finish`


class NodeAgent:
    """The agent of a node over one connection, which is opened again after a loss.

    `find` is where the agent runs now.
    """

    def __init__(self, find: Callable[[], Shell]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._shell: Shell | None = None
        self._session: Session | None = None
        self._answered = True

    @property
    def shell(self) -> Shell:
        """Where other commands of the node run."""
        self._shell = self._shell or self._find()
        return self._shell

    def verb(self, *words: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one verb of the agent and return its JSON, like `agents.verb`."""
        planned = () if plan is None else ("--plan", _compact(plan))
        return agents.checked(self.shell, self._called(*words, *planned), words[0])

    def look(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Files and outputs of commands, like `shell.looked`."""
        answer = self._called(LOOK, json.dumps(request))
        if answer.status != 0:
            raise PrerequisiteMissing(f"reading files of {self.shell}: {answer.err.strip()[-300:]}")
        return seen(answer.out, str(self.shell))

    @contextmanager
    def episode(self, schedule: Mapping[str, Any]) -> Iterator[Callable[[float], dict[str, Any]]]:
        """The agent's `switchback`, ready; `experiments.host.calls.episode` of a cluster.

        The call that is yielded starts it and returns its JSON; its argument is a timeout in seconds.
        The agent restores as soon as the connection is closed or lost. Raises as `verb` does.
        """
        with self.ready("switchback", "--schedule", _compact(schedule)) as call:

            def start(seconds: float) -> dict[str, Any]:
                call.say("start")
                answer = call.finish(time.monotonic() + seconds)
                if answer is None:
                    raise PrerequisiteMissing(
                        f"{self.shell}: steer switchback did not end in {seconds:.0f} s"
                    )
                return agents.checked(self.shell, answer, "switchback")

            yield start

    @contextmanager
    def ready(self, *words: str) -> Iterator[Call]:
        """A call that has printed `ready`. Raises as `verb` does."""
        with self._calling(*words) as session:
            deadline = time.monotonic() + READY_S
            line = session.await_line(READY_S)
            if line.strip() != "ready":
                answer = self._answer(session, deadline, line)
                if answer is not None:
                    agents.checked(self.shell, answer, words[0])
                raise PrerequisiteMissing(
                    f"{self.shell}: steer {words[0]} was not ready within {READY_S:.0f} s: see what "
                    f"holds {pods.RUN}/lock on the node (fuser -v), and whether the node is overloaded"
                )

            def finish(until: float) -> Answer | None:
                answer = self._answer(session, until)
                # a call that has failed may leave lines, which would be the next calls
                self._answered = answer is not None and answer.status == 0
                return answer

            yield Call(session.say, finish)

    def _called(self, *words: str) -> Answer:
        with self._calling(*words) as session:
            answer = self._answer(session, time.monotonic() + CALL_S)
        if answer is None:
            raise PrerequisiteMissing(
                f"{words[0]} did not end within {CALL_S:.0f} s on {self.shell}"
            )
        return answer

    @contextmanager
    def _calling(self, *words: str) -> Iterator[Session]:
        """A session that has been sent these words; closed unless their whole answer was read."""
        with self._lock:
            if self._session is None or not self._session.running():
                self._close()
                self._shell = self._find()
                self._session = agents.start(self._shell, "session")
            self._answered = False
            try:
                self._session.say(json.dumps(words))
                yield self._session
            finally:
                if not self._answered:
                    self._close()

    def _answer(self, session: Session, deadline: float, line: str = "") -> Answer | None:
        """The rest of an answer that begins with this line; None in case of a timeout (monotonic seconds)."""
        said: list[str] = []
        while line := line or session.await_line(max(0.0, deadline - time.monotonic())):
            if line.startswith('{"ended"'):
                with untrusted.reading(f"the end of an answer of {self.shell}"):
                    end = _End.model_validate(untrusted.parsed(line))
                self._answered = True
                return Answer(end.ended, "\n".join(said), end.messages)
            said.append(line)
            line = ""
        return session.finish(time.monotonic() + 1) if time.monotonic() < deadline else None

    def _close(self) -> None:
        if self._session:
            self._session.close()
        self._session = None


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


@cache
def of_node(
    kubeconfig: str,
    pin: Pin,
    stack: str,
    node: str,
    address: str,
    ssh: Ssh | None,
    use: str = "",
) -> NodeAgent:
    """The agent of a node, in its pod or over SSH. This process keeps a connection for each use."""
    del use

    def find() -> Shell:
        if ssh:
            return SshShell(address, ssh)
        return agents.agent_shell(kubeconfig, pin, Names(stack, pin.namespace), node)

    return NodeAgent(find)
