"""Traffic `stream`: TCP connections that send as fast as they can, by iperf3."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from infra.complaints import like
from infra.traffic import iperf3
from infra.traffic.contract import Failure, Kind, Values, Window

# Of senders under switchback: they are at their rate at once.
SWITCHED = "cubic"


class StreamOptions(BaseModel):
    """Those of the streams, also where other pairs run beside them."""

    congestion: Annotated[
        str, like(r"[a-z][a-z0-9_]{0,14}|", "must be a TCP congestion control such as cubic")
    ] = Field(
        default="",
        description="TCP congestion control of the sender; by default that of its system, under "
        f"switchback {SWITCHED}",
    )
    rate: iperf3.Rate = Field(
        default="0", description="bits per second of each stream; 0: no limit"
    )


class Stream(StreamOptions, Kind):
    """The bitrate is the goodput at the receiver."""

    name = "stream"
    summary = "TCP streams, as fast as they can or at a fixed rate (iperf3)"
    tools = iperf3.TOOLS
    image = iperf3.IMAGE
    metrics = ("bitrate_mbps", "retransmits")

    def server(self, port: int) -> list[str]:
        return iperf3.server(port)

    def client(self, host: str, port: int, window: Window) -> list[str]:
        congestion = ["--congestion", self.congestion] if self.congestion else []
        rate = ["--bitrate", self.rate] if self.rate != "0" else []
        return [*iperf3.client(host, port, window), *congestion, *rate]

    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        report = iperf3.read(out, err, status, window)
        if isinstance(report, Failure):
            return report
        sent = iperf3.mapping(report.end.get("sum_sent"))
        congestion = report.end.get("sender_tcp_congestion")
        return Values(
            iperf3.numbers(bitrate_mbps=report.rate / 1e6, retransmits=sent.get("retransmits")),
            congestion if isinstance(congestion, str) and congestion else None,
            report.warnings,
        )
