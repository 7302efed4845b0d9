"""Commands in pods (exec of the API) and on nodes (the agent's pod or OpenSSH)."""

from __future__ import annotations

import json
import select
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent import procstat
from experiments import signals
from experiments.host.machine import seen
from infra.errors import PrerequisiteMissing
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.names import checked_address
from infra.settings import Ssh

# Reads the kernel's counters; needs Python only.
LOOK = Path(procstat.__file__).read_text()

# Seconds between heartbeats of a connection, so that nothing on its way takes it for idle: load balancers close
# such ones after 20 s and more.
HEARTBEAT_S = 5.0
# Timeout of a login by ssh; seconds.
DIAL_S = 10
_SSH_FAILED = 255


@dataclass(frozen=True)
class Answer:
    """The result of a command."""

    status: int
    out: str
    err: str


class Session(Protocol):
    """A running remote command, with stdin."""

    def await_line(self, seconds: float) -> str:
        """Its first line; empty where it ended without one or in case of a timeout."""

    def say(self, line: str) -> None:
        """Send a line. If the connection is lost, `finish` returns or raises the reason."""

    def running(self) -> bool:
        """Whether it has not ended yet, as far as known at once."""

    def finish(self, deadline: float) -> Answer | None:
        """Wait for its end until `deadline` (monotonic seconds); None in case of a timeout."""

    def close(self) -> None: ...


class Shell(Protocol):
    """Runs commands in one place."""

    def start(self, words: Sequence[str]) -> Session: ...


def run(
    shell: Shell, words: Sequence[str], seconds: float = CALL_S, said: str | None = None
) -> Answer:
    """Run a command with the line `said` on stdin. Raises `PrerequisiteMissing` in case of a timeout."""
    session = shell.start(words)
    try:
        if said is not None:
            session.say(said)
        answer = session.finish(time.monotonic() + seconds)
    finally:
        session.close()
    if answer is None:
        raise PrerequisiteMissing(f"{words[0]} did not end within {seconds:.0f} s on {shell}")
    return answer


def looked(shell: Shell, request: Mapping[str, Any]) -> dict[str, Any]:
    """Files and outputs of commands, read there by `agent.procstat`. Raises `PrerequisiteMissing`."""
    answer = run(shell, ("python3", "-I", "-c", LOOK, json.dumps(request)))
    if answer.status != 0:
        raise PrerequisiteMissing(f"reading files of {shell}: {answer.err.strip()[-300:]}")
    return seen(answer.out, str(shell))


@dataclass(frozen=True)
class PodShell:
    """A container of a running pod."""

    connect: Callable[[], Any]
    namespace: str
    pod: str
    container: str

    def __str__(self) -> str:
        return f"pod {self.pod}"

    def start(self, words: Sequence[str]) -> PodSession:
        from kubernetes.client import ApiClient, CoreV1Api
        from kubernetes.stream import stream

        # stream() changes its client during the call, so it gets one of its own
        api = CoreV1Api(ApiClient(self.connect().configuration))
        with explained(f"running {words[0]} in pod {self.namespace}/{self.pod}"):
            socket = stream(
                api.connect_get_namespaced_pod_exec,
                self.pod,
                self.namespace,
                container=self.container,
                command=list(words),
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                _preload_content=False,
                _request_timeout=CALL_S,
            )
        return PodSession(socket)


class PodSession:
    """A command in a pod, over a websocket. The API server answers each heartbeat."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._lock = threading.Lock()  # of the socket: TLS takes one thread at a time
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        with suppress(Exception):  # a lost connection: whoever waits for the command reports it
            while not self._closed.wait(HEARTBEAT_S):
                with self._lock:
                    self._socket.sock.ping()

    def await_line(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        with suppress(Exception):  # a lost connection: `finish` has the reason
            while "\n" not in self._arrived():
                if not self._socket.is_open() or not self._wait(deadline):
                    return ""
            with self._lock:
                return str(self._socket.readline_stdout(timeout=1))
        return ""

    def _arrived(self) -> str:
        """What has arrived of stdout and was not read yet."""
        with self._lock:
            return str(self._socket.peek_stdout(timeout=0))

    def _wait(self, deadline: float) -> bool:
        """Wait until something may have arrived; False after the deadline (monotonic seconds)."""
        left = deadline - time.monotonic()
        self._readable(left)
        return left > 0

    def _readable(self, seconds: float) -> bool:
        """Whether something arrives within this time, be it the end; a closed socket is readable."""
        with suppress(AttributeError, OSError, ValueError):
            socket = self._socket.sock.sock
            if getattr(socket, "pending", int)():  # of TLS, decrypted already
                return True
            poll = select.poll()
            poll.register(socket, select.POLLIN)
            return bool(poll.poll(max(0.0, 1000 * seconds)))
        return True

    def say(self, line: str) -> None:
        with suppress(Exception), self._lock:  # the library does not translate errors of its socket
            self._socket.write_stdin(f"{line}\n")

    def running(self) -> bool:
        try:
            # the library reads up to the end of one channel, and the connection ends after the last
            while self._socket.is_open() and self._readable(0):
                self._arrived()
        except Exception:  # a connection that was closed without a word
            return False
        return bool(self._socket.is_open())

    def finish(self, deadline: float) -> Answer | None:
        lost = ""
        try:
            while self._arrived() is not None and self._socket.is_open():
                if not self._wait(deadline):
                    return None
        except Exception as error:  # also where it is closed without a word after the status
            lost = repr(error)
        try:
            out, err = self._socket.read_stdout(timeout=0), self._socket.read_stderr(timeout=0)
            status = self._socket.returncode
        except Exception as error:  # the library does not translate errors of its socket
            return Answer(1, "", f"the connection to the pod was lost: {error!r}")
        if status is None:
            return Answer(1, out or "", f"the connection to the pod was lost: {err or lost}")
        return Answer(int(status), out or "", err or "")

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._socket.close()


@dataclass(frozen=True)
class SshShell:
    """A node by OpenSSH: strict host keys, no password, only the user's own keys."""

    address: str
    ssh: Ssh

    def __str__(self) -> str:
        return f"node {self.address}"

    def command(self, words: Sequence[str]) -> list[str]:
        """The ssh that runs `words` as root there (pure)."""
        named = {
            "-i": self.ssh.identity_file,
            "-F": self.ssh.config_file,
            "-l": self.ssh.user,
        }
        options = [word for key, value in named.items() if value for word in (key, value)]
        if self.ssh.known_hosts_file:
            options += ["-o", f'UserKnownHostsFile="{self.ssh.known_hosts_file}"']
        remote = shlex.join(words)
        if self.ssh.user not in ("", "root"):
            remote = f"sudo -n {remote}"
        return [
            "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
            "-o", f"ConnectTimeout={DIAL_S}", "-o", "ServerAliveInterval=5",
            "-p", str(self.ssh.port), *options, "--", checked_address(self.address), remote,
        ]  # fmt: skip

    def start(self, words: Sequence[str], stdin: bytes | None = None) -> SshSession:
        return SshSession(self, self.command(words), stdin)


class SshSession:
    """A command on a node, over one ssh."""

    def __init__(self, shell: SshShell, words: Sequence[str], stdin: bytes | None) -> None:
        self._shell = shell
        self._stdin = stdin
        self._process = signals.apart(
            lambda: subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )

    def await_line(self, seconds: float) -> str:
        assert self._process.stdout  # noqa: S101
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            return self._process.stdout.readline().decode(errors="replace").rstrip("\n")
        finally:
            timer.cancel()

    def say(self, line: str) -> None:
        assert self._process.stdin  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self, deadline: float) -> Answer | None:
        """Stdin stays open to the end, unless the whole of it was given."""
        held = self._process.stdin
        if self._stdin is None:
            self._process.stdin = None
        try:
            out, err = self._process.communicate(
                self._stdin, timeout=max(0.1, deadline - time.monotonic())
            )
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._process.stdin = held
        if self._process.returncode == _SSH_FAILED:
            # the reason is the last line, after banners and warnings
            lines = err.decode(errors="replace").split("\n")
            words = next((line for line in reversed(lines) if line.strip()), "no reason was given")
            raise PrerequisiteMissing(f"ssh to {self._shell.address}: {words.strip()}")
        return Answer(
            self._process.returncode,
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
