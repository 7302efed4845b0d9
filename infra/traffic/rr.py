"""Traffic `rr`: one request at a time, and its answer, by sockperf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from infra.complaints import whole
from infra.traffic import pingpong, sockperf
from infra.traffic.contract import QUANTILES, Failure, Kind, Protocol, Values, Window

# Of the client in an episode. The hash of each connection decides which cores handle it, and so its latency.
CONNECTIONS = 16
_PINGPONG = Path(pingpong.__file__).read_text()
# Without a feed file, sockperf's server serves one TCP connection after the other. It takes regular files only.
_SERVER = (
    'f=$(mktemp) && echo "T:0.0.0.0:$1" >"$f" && exec 3<"$f" && rm "$f" && '
    "exec sockperf server --file /dev/fd/3"
)


class RrOptions(BaseModel):
    """Those of the requests, also where streams run beside them."""

    protocol: Literal["tcp", "udp"] = Field(
        default="tcp", description="protocol of requests and answers: tcp or udp"
    )
    size: Annotated[int, whole(sockperf.LEAST_SIZE, sockperf.MOST_SIZE)] = Field(
        default=64, description="bytes of payload in a request, and in its answer"
    )


class Rr(RrOptions, Kind):
    """The latency is half of the round trip; the next request follows the answer at once."""

    name = "rr"
    summary = "requests, one at a time, each after the answer to the one before (sockperf)"
    tools = sockperf.TOOLS
    image = sockperf.IMAGE
    metrics = (*QUANTILES.values(), "requests_per_second")
    most_streams = 1
    tolerates_probes = False

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return ("TCP",) if self.protocol == "tcp" else ("UDP",)

    def lead(self, window: Window) -> float:
        return sockperf.lead(window)

    def server(self, port: int) -> list[str]:
        if self.protocol == "udp":
            return ["sockperf", "server", "--port", str(port)]
        return ["sh", "-c", _SERVER, "sockperf", str(port)]

    def client(self, host: str, port: int, window: Window) -> list[str]:
        return [*sockperf.client(host, port, window), *self._tcp, "--msg-size", str(self.size)]

    def lasting(self, host: str, port: int, window: Window) -> list[str]:
        """A client that prints the time of each round trip (`infra.traffic.pingpong`)."""
        del window
        sizes = (str(self.size), str(CONNECTIONS))
        return ["python3", "-I", "-c", _PINGPONG, host, str(port), self.protocol, *sizes]

    @property
    def _tcp(self) -> list[str]:
        return ["--tcp"] if self.protocol == "tcp" else []

    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        return sockperf.read(out, err, status, window)
