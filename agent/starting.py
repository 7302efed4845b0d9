"""The driver of an episode: its document on a line of stdin, `ready` on stdout, a line that starts it."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Sequence

from agent.errors import BAD_PLAN, SteerError
from agent.files import MAX_TEXT, opened, read_json, read_to_end
from agent.goodput import Receiver
from agent.machine import Machine
from agent.schedule import START_TIMEOUT, Schedule, parse_schedule

CONNECT_TIMEOUT = 5.0  # seconds


class Driver:
    """Who starts an episode, at the other end of stdin and stdout."""

    def __init__(self, file: int = 0) -> None:
        self._file = file
        self._rest = b""

    def schedule(self, argument: str | None) -> Schedule:
        """The document of `@FILE`, else of the first line of stdin."""
        try:
            if argument is None:
                text = self.line(MAX_TEXT, START_TIMEOUT).decode()
            elif argument.startswith("@"):
                with opened(argument[1:], os.O_RDONLY) as file:
                    text = read_to_end(file, MAX_TEXT).decode()
            else:
                text = argument
            document = read_json(text)
        except OSError as error:
            raise SteerError(f"switchback: {error.filename}: {error.strerror}", BAD_PLAN) from None
        except ValueError as error:
            raise SteerError(f"switchback: it is not JSON in UTF-8: {error}", BAD_PLAN) from None
        return parse_schedule(document)

    def await_start(self) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if not self.line(1 << 16, START_TIMEOUT):
            raise SteerError("stdin was closed before the start signal")

    def wait(self, seconds: float) -> None:
        """Sleep; raises as soon as stdin is closed, because the driver or its connection has ended."""
        deadline = time.monotonic() + seconds
        while select.select([self._file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not os.read(self._file, 1 << 16):
                raise SteerError("stdin was closed before the end of the episode")

    def line(self, most: int, seconds: float | None) -> bytes:
        """The next line with its line end, or the rest of stdin."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._file], [], [], left)[0]:
                raise SteerError(f"no line came on stdin within {seconds} seconds")
            part = os.read(self._file, 1 << 16)
            self._rest += part
            if len(self._rest) > most:
                raise SteerError(f"switchback: a line of stdin is longer than {most}", BAD_PLAN)
            if not part:
                break
        line, end, self._rest = self._rest.partition(b"\n")
        return line + end


def await_connections(
    machine: Machine, receivers: Sequence[Receiver], count: int, driver: Driver
) -> None:
    """Return once each receiver has so many connections, or after CONNECT_TIMEOUT.

    The windows of a receiver that has fewer are spoiled.
    """
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while absent := [one for one in receivers if len(one.connections) < count]:
        for one in absent:
            one.connect(machine)
        if time.monotonic() > deadline:
            return
        driver.wait(0.02)
