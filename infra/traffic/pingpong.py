"""A client that measures round trips, each with the time at which it began: sent by itself, needs Python only.

One request is in flight, on each of several connections in turn. A request has the header of
sockperf, so sockperf's server answers it. SIGTERM ends the client; it then prints one JSON object:
`trips` are pairs of 32-bit numbers (little-endian, zlib, base64) in units of 100 ns: from the begin
of the trip before, for the first from `start`, to the begin of this one, and from request to reply.
`start` is by CLOCK_MONOTONIC, and so are the times of `lost`, at which datagrams without a reply were
sent, in ns.
"""

from __future__ import annotations

import base64
import gc
import itertools
import json
import signal
import socket
import struct
import sys
import time
import zlib
from array import array

UNIT_NS = 100
MOST = 2_000_000  # trips that are kept: the first ones
# Of sockperf: a number that the reply repeats, flags (1: of a client, 2: reply), the length.
HEADER = struct.Struct("!QHI")
NUMBER = slice(8)
# Seconds after which a datagram is lost; a TCP connection that is silent so long is broken.
LOST_S, BROKEN_S = 0.25, 10
CLOSED = "the server closed a connection: see whether it still runs, and what it printed"
SILENT = f"no reply within {BROKEN_S} seconds: see whether the server runs, and has CPU time"


class Ended(Exception):
    """SIGTERM."""


class Trips:
    """The begin and the length of each round trip, and when each datagram without a reply was sent, ns."""

    def __init__(self) -> None:
        self.began = array("q")
        self.took = array("q")
        self.lost = array("q")

    def document(self) -> dict[str, object]:
        start = self.began[0] if self.began else 0
        numbers = array("I")
        before = 0
        for began, took in zip(self.began, self.took):
            # differences of rounded times: their sum has no error
            now = (began - start) // UNIT_NS
            numbers.append(min(now - before, 2**32 - 1))
            numbers.append(min(took // UNIT_NS, 2**32 - 1))
            before = now
        if sys.byteorder == "big":
            numbers.byteswap()
        packed = zlib.compress(numbers.tobytes(), 1)
        return {
            "start": start,
            "lost": self.lost.tolist(),
            "full": len(self.began) >= MOST,
            "trips": base64.b64encode(packed).decode(),
        }


def connected(kind: int, host: str, port: int, length: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, kind)
    one.settimeout(BROKEN_S)
    one.connect((host, port))
    one.settimeout(None)  # else each recv(2) has a poll(2) before it
    seconds = BROKEN_S if kind == socket.SOCK_STREAM else LOST_S
    whole = int(seconds)
    timeout = struct.pack("ll", whole, int((seconds - whole) * 1_000_000))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    if kind == socket.SOCK_STREAM:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # accepted before the next one connects: the server's queue is short
        one.send(HEADER.pack(0, 3, length) + bytes(length - HEADER.size))
        try:
            if len(one.recv(length, socket.MSG_WAITALL)) != length:
                raise ConnectionError(CLOSED)
        except BlockingIOError:
            raise TimeoutError(SILENT) from None
    return one


def measure(sockets: list[socket.socket], length: int, trips: Trips) -> None:
    """Until `Ended`. Raises OSError where a connection is broken."""
    request, reply = bytearray(length), bytearray(length)
    now, whole = time.monotonic_ns, socket.MSG_WAITALL
    turns = itertools.cycle([(one.send, one.recv_into, one.type) for one in sockets])
    for number, (send, receive, kind) in enumerate(turns, 1):
        HEADER.pack_into(request, 0, number, 3, length)
        began = now()
        try:
            send(request)
            while True:
                if receive(reply, length, whole) != length:
                    raise ConnectionError(CLOSED)
                if reply[NUMBER] == request[NUMBER]:  # else a late reply to a lost datagram
                    break
        except BlockingIOError:
            if kind == socket.SOCK_STREAM:
                raise TimeoutError(SILENT) from None
            trips.lost.append(began)
            continue
        ended = now()
        if len(trips.took) < MOST:
            trips.began.append(began)
            trips.took.append(ended - began)


def main(host: str, port: str, protocol: str, size: str, connections: str) -> int:
    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Ended

    trips = Trips()
    gc.disable()
    signal.signal(signal.SIGTERM, end)
    try:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        where = kind, host, int(port), int(size)
        measure([connected(*where) for _ in range(int(connections))], int(size), trips)
    except Ended:
        pass
    except OSError as error:
        sys.stderr.write(f"{host} port {port}: {error.strerror or error}\n")
        return 1
    sys.stdout.write(json.dumps(trips.document()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
