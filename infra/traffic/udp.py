"""Traffic `udp`: datagrams at a fixed rate, by iperf3."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from infra.complaints import whole
from infra.traffic import iperf3
from infra.traffic.contract import Failure, Kind, Protocol, Values, Window


class Udp(Kind):
    """The bitrate is the payload that the receiver got; loss and order are the receiver's counts.

    iperf3 3.12 counts in the client's own `lost_packets` also those of the omitted seconds, and has
    no count of the order there. So the server prints JSON, without intervals, and sends it along.
    """

    name = "udp"
    summary = "UDP datagrams at a fixed rate (iperf3)"
    tools = iperf3.TOOLS
    image = iperf3.IMAGE
    metrics = ("bitrate_mbps", "loss_percent", "out_of_order")

    rate: iperf3.Rate = Field(
        default="300M", description="bits per second of each stream; 0: no limit"
    )
    size: Annotated[int, whole(16, 65_507)] = Field(
        default=1400, description="bytes of payload in a datagram"
    )

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return ("TCP", "UDP")  # TCP carries the control connection

    def server(self, port: int) -> list[str]:
        return [*iperf3.server(port), "--json", "--interval", "0"]

    def client(self, host: str, port: int, window: Window) -> list[str]:
        return [
            *iperf3.client(host, port, window),
            "--udp", "--bitrate", self.rate, "--length", str(self.size), "--get-server-output",
        ]  # fmt: skip

    def parse(self, out: bytes, err: bytes, status: int, window: Window) -> Values | Failure:
        report = iperf3.read(out, err, status, window)
        if isinstance(report, Failure):
            return report
        if not report.rate:  # the control connection, TCP, may pass where UDP does not
            return Failure("traffic", "no datagram arrived", report.warnings)
        end = iperf3.mapping(iperf3.mapping(report.document.get("server_output_json")).get("end"))
        streams = end.get("streams")
        rows = streams if isinstance(streams, list) else []
        orders = [
            iperf3.mapping(iperf3.mapping(row).get("udp")).get("out_of_order") for row in rows
        ]
        known = [count for order in orders if (count := iperf3.number(order)) is not None]
        loss = iperf3.number(iperf3.mapping(end.get("sum_received")).get("lost_percent"))
        numbers = iperf3.numbers(
            bitrate_mbps=report.rate / 1e6,
            loss_percent=loss if loss is not None and loss <= 100 else None,
            out_of_order=sum(known) if len(known) == window.streams else None,
        )
        return Values(numbers, warnings=report.warnings)
