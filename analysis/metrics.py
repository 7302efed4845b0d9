"""The registry of metrics: value of a run, title, unit and direction.

A metric is one entry in `METRICS`. The run table, comparisons, report, plots, `--metric` and the
page docs/record.md iterate over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean
from typing import Literal

from analysis.schema import Core, Datagrams, MetricWords, Record, Softnet

Scale = Literal["ratio", "difference"]
# Whether the trade-off shows a metric: wherever it was measured, where it differs significantly from
# the baseline, or only on request.
Shown = Literal["always", "changed", "asked"]
OfRun = Callable[[Record], float | None]


class UnknownMetric(ValueError):
    """No metric has this name; the message lists the known names."""


@dataclass(frozen=True)
class Cost:
    """When a change counts: by more than `floor`. A metric is a caveat of a gain where it is worse
    than the baseline's value by more than that, and at least `times` as high."""

    floor: float
    times: float = 0.0


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    `value` returns the value of a run, None where it was not measured. `scale` tells whether two
    configurations are compared by the ratio of geometric means or by the difference of means;
    values that may be 0 need a difference. `about` is the definition in the docs. `digits` are
    decimals in tables, `aliases` are older names of `--metric`. `shown` tells where the trade-off
    has it; a metric that is another one in other units is shown on request only.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    scale: Scale
    value: OfRun
    about: str
    digits: int = 2
    cost: Cost | None = None
    aliases: tuple[str, ...] = ()
    shown: Shown = "asked"

    @property
    def heading(self) -> str:
        """Title and unit, for columns and axes."""
        return f"{self.title} [{self.unit}]"

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is better."""
        return 1 if self.better == "higher" else -1

    @property
    def words(self) -> MetricWords:
        return MetricWords(title=self.title, unit=self.unit, better=self.better, scale=self.scale)


def over_pairs(name: str, how: Callable[[Sequence[float]], float | None]) -> OfRun:
    """The values of one name of all pairs whose kind has it, aggregated; None unless each has one."""

    def value(record: Record) -> float | None:
        kinds = {pair.kind for pair in record.pairs if name in pair.values}
        return _over([pair.values.get(name) for pair in record.pairs if pair.kind in kinds], how)

    return value


def over_cores(
    percent: Callable[[Core], float | None], how: Callable[[Sequence[float]], float | None]
) -> OfRun:
    """Percentages of the server's cores, aggregated; None unless every core has one."""
    return lambda record: _over([percent(core) for core in server_cores(record)], how)


def _over(
    values: Sequence[float | None], how: Callable[[Sequence[float]], float | None]
) -> float | None:
    known = [one for one in values if one is not None]
    return how(known) if known and len(known) == len(values) else None


def busy(core: Core) -> float | None:
    """Percent of the window that a core worked; waiting for a disk is idle time."""
    if core.idle is None:
        return None
    return max(0.0, 100 - core.idle - (core.iowait or 0) - (core.steal or 0))


def in_cores(percentages: Sequence[float]) -> float:
    """Percentages of several cores as a number of cores."""
    return math.fsum(percentages) / 100


def slowest_share(values: Sequence[float]) -> float | None:
    """The smallest value as a share of the largest; None for a single pair."""
    return min(values) / max(values) if len(values) > 1 and max(values) > 0 else None


def server_cores(record: Record) -> list[Core]:
    """The cores that work for the servers.

    In older records: the lab's server cores, the cores of the steered nodes, else all.
    """
    serving = [core for core in record.cores if core.server]
    if serving:
        return serving
    if record.machine and record.machine.server_cores:
        wanted = set(record.machine.server_cores)
        return [core for core in record.cores if core.core in wanted]
    steered = record.steering_before.queues if record.steering_before else []
    nodes = {queue.node for queue in steered if queue.role == "nic"}
    return [core for core in record.cores if core.node in nodes] or list(record.cores)


def softnet(count: Callable[[Softnet], int]) -> OfRun:
    """A counter of softnet_stat, summed over the server nodes; None where there is none."""

    def value(record: Record) -> float | None:
        nodes = {core.node for core in server_cores(record)}
        rows = [count(row) for row in record.softnet if row.node in nodes]
        return sum(rows) if rows else None

    return value


backlog_drops = softnet(lambda row: row.dropped + row.flow_limit)


def datagrams(count: Callable[[Datagrams], int]) -> OfRun:
    """A counter of UDP, summed over the server nodes; None where there is none."""
    return lambda record: sum(map(count, record.datagrams)) if record.datagrams else None


socket_drops = datagrams(lambda one: one.socket_drops)


def device_drops(record: Record) -> float | None:
    """Drops of devices that are not those of a full backlog, which count at its device too."""
    every = datagrams(lambda one: one.device_drops)(record)
    return None if every is None else max(0.0, every - (backlog_drops(record) or 0))


def datagrams_only(record: Record) -> bool:
    """Whether all pairs send datagrams: with streams of TCP beside them, the packets that backlogs and
    devices drop are of both."""
    return bool(record.datagrams) and all(pair.kind != "stream" for pair in record.pairs)


def dropped(count: OfRun) -> OfRun:
    """A count of drops in percent of the datagrams that were delivered or dropped."""
    of_sockets = (datagrams(lambda one: one.delivered + one.other_errors), socket_drops)
    of_packets = (backlog_drops, device_drops)

    def value(record: Record) -> float | None:
        only = datagrams_only(record)
        if not record.datagrams or (count in of_packets and not only):
            return None
        total = math.fsum(
            part(record) or 0 for part in (*of_sockets, *(of_packets if only else ()))
        )
        return 100 * (count(record) or 0) / total if total else None

    return value


def per_gbit(amount: OfRun, seconds: Callable[[Record], float]) -> OfRun:
    """An amount of a run per Gbit that its pairs received in these seconds."""
    total = over_pairs("bitrate_mbps", math.fsum)

    def value(record: Record) -> float | None:
        rate, found = total(record), amount(record)
        return found / (rate / 1000 * seconds(record)) if rate and found is not None else None

    return value


def each_second(_: Record) -> float:
    """For amounts that are rates: core-seconds in a second."""
    return 1.0


def traffic_seconds(record: Record) -> float:
    """For counters of the traffic itself."""
    return record.duration


def window_seconds(record: Record) -> float:
    """For counters that are read at the edges of the window."""
    return record.window or record.duration


BITRATE = Metric(
    "bitrate_mbps", "bitrate", "Mbit/s per pair", "higher", "ratio",
    over_pairs("bitrate_mbps", fmean),
    "Goodput at the receiver, mean over the pairs.", digits=0, aliases=("bitrate",),
    shown="always",
)  # fmt: skip

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        BITRATE,
        Metric(
            "total_mbps", "total bitrate", "Mbit/s", "higher", "ratio",
            over_pairs("bitrate_mbps", math.fsum),
            "Goodput at the receivers, sum over the pairs.", digits=0,
        ),
        Metric(
            "slowest_share", "bitrate of the slowest pair", "share of the fastest", "higher",
            "difference", over_pairs("bitrate_mbps", slowest_share),
            "Bitrate of the slowest pair divided by that of the fastest; 1 is fair.",
            cost=Cost(floor=0.2), shown="changed",
        ),
        Metric(
            "retransmits", "retransmits", "segments per run", "lower", "difference",
            over_pairs("retransmits", math.fsum),
            "TCP segments that the senders sent again, sum over the pairs.", digits=0,
        ),
        Metric(
            "retransmits_per_gbit", "retransmits", "segments per Gbit", "lower", "difference",
            per_gbit(over_pairs("retransmits", math.fsum), traffic_seconds),
            "The same per Gbit received; 100 are about 0.1 % of full-sized segments.", digits=1,
            cost=Cost(floor=100.0, times=2.0), shown="changed",
        ),
        Metric(
            "loss_percent", "datagram loss", "% of datagrams", "lower", "difference",
            over_pairs("loss_percent", fmean),
            "UDP datagrams that did not arrive, mean over the pairs.",
            cost=Cost(floor=1.0, times=2.0), shown="changed",
        ),
        *(
            Metric(
                f"loss_{where}_percent", f"datagrams dropped {words}", "% of datagrams", "lower",
                "difference", dropped(count),
                f"{about}, of the datagrams that reached the server nodes.",
            )
            for where, words, count, about in (
                ("socket", "by full sockets", socket_drops,
                 "Dropped because the receive buffer of a server's socket was full (RcvbufErrors)"),
                ("backlog", "by full backlogs", backlog_drops,
                 "Dropped by a full backlog or the flow limit on the server nodes, in packets"),
                ("device", "by devices", device_drops,
                 "Dropped by devices on receipt, without those of the backlogs, in packets"),
            )
        ),
        Metric(
            "out_of_order", "reordering", "datagrams per run", "lower", "difference",
            over_pairs("out_of_order", math.fsum),
            "UDP datagrams that arrived after a later one, sum over the pairs.", digits=0,
        ),
        Metric(
            "p50_us", "median latency", "microseconds", "lower", "ratio",
            over_pairs("p50_us", fmean),
            "Half of the round trip of a message, its median; mean over the pairs. Under switchback one "
            "client has 16 connections, whose messages are pooled.", digits=1, shown="changed",
        ),
        Metric(
            "p99_us", "p99 latency", "microseconds", "lower", "ratio",
            over_pairs("p99_us", fmean),
            "The same, its 99th percentile.", digits=1, shown="always",
        ),
        Metric(
            "p999_us", "p99.9 latency", "microseconds", "lower", "ratio",
            over_pairs("p999_us", fmean),
            "The same, its 99.9th percentile.", digits=1, shown="changed",
        ),
        Metric(
            "requests_per_second", "requests", "per second", "higher", "ratio",
            over_pairs("requests_per_second", math.fsum),
            "Requests that were answered, each after the answer to the one before; sum over the "
            "pairs.", digits=0, shown="changed",
        ),
        Metric(
            "dropped_per_gbit", "backlog drops", "packets per Gbit", "lower", "difference",
            per_gbit(backlog_drops, window_seconds),
            "Packets that a full backlog or the flow limit dropped on the server nodes.",
            cost=Cost(floor=1.0, times=2.0), shown="changed",
        ),
        Metric(
            "squeezed_per_gbit", "squeezed softirqs", "per Gbit", "lower", "difference",
            per_gbit(softnet(lambda row: row.squeezed), window_seconds),
            "Times that NET_RX on the server nodes used up its budget or time.", shown="changed",
        ),
        Metric(
            "softirq_cores", "softirq time", "cores", "lower", "ratio",
            over_cores(attrgetter("soft"), in_cores),
            "Softirq time of the server's cores together.",
        ),
        Metric(
            "softirq_s_per_gbit", "softirq time per Gbit", "core-seconds", "lower", "ratio",
            per_gbit(over_cores(attrgetter("soft"), in_cores), each_second),
            "Softirq time of the server's cores per Gbit received.", digits=3,
            aliases=("softirq",),
        ),
        Metric(
            "cpu_s_per_gbit", "CPU time per Gbit", "core-seconds", "lower", "ratio",
            per_gbit(over_cores(busy, in_cores), each_second),
            "Time of the server's cores that is neither idle nor taken by the hypervisor, per Gbit "
            "received; includes other programs, and requests beside the streams.", digits=3, aliases=("cpu", "idle"),
            shown="always",
        ),
        Metric(
            "softirq_busiest_percent", "softirq time of the busiest core", "% of the core", "lower",
            "difference", over_cores(attrgetter("soft"), max),
            "Softirq time of the server's core that has most of it.", digits=1,
        ),
        Metric(
            "idle_percent", "idle time", "% of the server's cores", "higher", "difference",
            over_cores(attrgetter("idle"), fmean),
            "Idle time, mean over the server's cores.", digits=1,
        ),
    )
}  # fmt: skip


def find(name: str) -> Metric:
    """The metric of a name or of an older name. Raises UnknownMetric."""
    for metric in METRICS.values():
        if name in (metric.name, *metric.aliases):
            return metric
    raise UnknownMetric(f"{name!r} is not a metric; known metrics: {', '.join(METRICS)}")


def measured(records: Iterable[Record]) -> list[Metric]:
    """The metrics that a valid run has."""
    valid = [record for record in records if record.valid]
    return [
        metric
        for metric in METRICS.values()
        if any(metric.value(record) is not None for record in valid)
    ]


def described(names: Iterable[str]) -> dict[str, MetricWords]:
    """The description of the metrics of the pairs' values, for a record."""
    return {name: METRICS[name].words for name in names if name in METRICS}
