"""Traffic `rr`: one request at a time, and its answer, by sockperf."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from infra.complaints import whole
from infra.traffic import sockperf
from infra.traffic.contract import Failure, Kind, Protocol, Values, Window


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
    metrics = ("p50_us", "p99_us", "p999_us", "requests_per_second")
    most_streams = 1
    bears_probes = False

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return ("TCP",) if self.protocol == "tcp" else ("UDP",)

    def lead(self, window: Window) -> float:
        return sockperf.lead(window)

    def server(self, port: int) -> list[str]:
        return ["sockperf", "server", *self._tcp, "--port", str(port)]

    def client(self, host: str, port: int, window: Window) -> list[str]:
        return [*sockperf.client(host, port, window), *self._tcp, "--msg-size", str(self.size)]

    @property
    def _tcp(self) -> list[str]:
        return ["--tcp"] if self.protocol == "tcp" else []

    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        return sockperf.read(out, err, status, window)
