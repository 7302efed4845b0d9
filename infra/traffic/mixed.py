"""Traffic `mixed`: streams on all pairs, and one more pair that measures latency beside them."""

from __future__ import annotations

from infra.traffic.contract import Kind, Traffic
from infra.traffic.rr import Rr, RrOptions
from infra.traffic.stream import Stream, StreamOptions


class Mixed(StreamOptions, RrOptions, Traffic):
    """Latency under the load of the streams: with `rate`, under a load that is the same for all."""

    name = "mixed"
    summary = "`stream` on all pairs, and one more pair of kind `rr` beside them"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        streams, requests = (
            kind.model_validate(self.model_dump(include=set(kind.model_fields)))
            for kind in (Stream, Rr)
        )
        return streams, requests
