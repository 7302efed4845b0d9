"""One question, one answer: is B worse than A? The regression gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from analysis import machine, statistics, verdict
from analysis.pairing import Series, StateKey, arms, series
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.tables import run_table
from analysis.verdict import Verdict

Metric = Literal["bitrate", "idle", "softirq"]

WORSE = 4


class UnlikeMachines(Exception):
    """The two sides did not run under the same conditions; the message names what differs."""


class NothingToCompare(ValueError):
    """A side has no valid run of what was asked for; the message names what there is."""


@dataclass(frozen=True)
class Quantity:
    """What is compared: a column of the run table, as a ratio or in points, and which way is up."""

    column: str
    unit: str
    ratio: bool
    higher: bool


QUANTITIES: dict[Metric, Quantity] = {
    "bitrate": Quantity("bitrate_mbps", "Mbit/s a pair", ratio=True, higher=True),
    "idle": Quantity("idle_mean", "% idle, mean of the server's cores", ratio=False, higher=True),
    "softirq": Quantity(
        "soft_total", "% softirq, sum of the server's cores", ratio=False, higher=False
    ),
}


@dataclass(frozen=True)
class Comparison:
    """The answer. `effect` is a ratio for bitrate and a difference in points otherwise, B to A.

    `exit_code` is 4 where B is worse and 0 otherwise; a single comparison needs no adjustment.
    """

    a: str
    b: str
    replicas: int
    path: str
    metric: Metric
    verdict: Verdict
    effect: Effect
    sentence: str
    differences: list[str]

    @property
    def ci(self) -> tuple[float, float] | None:
        """The 95 % interval of the effect."""
        low, high = self.effect.low, self.effect.high
        return None if low is None or high is None else (low, high)

    @property
    def p(self) -> float | None:
        return self.effect.p

    @property
    def mde(self) -> float | None:
        return self.effect.mde

    @property
    def exit_code(self) -> int:
        return WORSE if self.verdict == "worse" else 0

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return {**asdict(self), "exit_code": self.exit_code}


def compare(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    a: str,
    b: str,
    *,
    at: int | None = None,
    metric: Metric = "bitrate",
    force: bool = False,
) -> Comparison:
    """Configuration `b` of `records_b` against configuration `a` of `records_a`.

    The same records twice compare two configurations of one sweep, paired by block; other
    records (before and after a change) are unpaired. `at` is the replica count, by default the
    largest that both have; the overlay is compared where both have it. Raises UnlikeMachines
    where the conditions of the runs differ and `force` is not given, and NothingToCompare where
    a side has no valid run to offer.
    """
    together = records_a is records_b or list(records_a) == list(records_b)
    if together and a == b:
        raise NothingToCompare(f"{a} would be compared with itself")
    quantity = QUANTITIES[metric]
    first = series(run_table(records_a), quantity.column)
    second = series(run_table(records_b), quantity.column)
    path, replicas = _place(first, second, a, b, at)
    differences = machine.differences(
        machine.conditions(_of(records_a, a, path, replicas)),
        machine.conditions(_of(records_b, b, path, replicas)),
    )
    if differences and not force:
        raise UnlikeMachines(
            f"the runs are not alike ({'; '.join(differences)}): force the comparison if this is "
            "the change in question"
        )
    left, right = first[(path, replicas, a)], second[(path, replicas, b)]
    apart = (left.values, right.values, False)
    values_a, values_b, paired = arms(left, right) if together else apart
    measure = statistics.ratio if quantity.ratio else statistics.difference
    effect = measure(values_a, values_b, paired=paired)
    judged = verdict.judge(
        effect, effect.p, neutral=1.0 if quantity.ratio else 0.0, higher=quantity.higher
    )
    return Comparison(
        a=a,
        b=b,
        replicas=replicas,
        path=path,
        metric=metric,
        verdict=judged,
        effect=effect,
        sentence=_sentence(a, b, path, replicas, quantity, effect, judged),
        differences=differences,
    )


def _place(
    first: dict[StateKey, Series], second: dict[StateKey, Series], a: str, b: str, at: int | None
) -> tuple[str, int]:
    """The path and replica count to compare at."""
    places = []
    for side, name in ((first, a), (second, b)):
        own = {key[:2] for key in side if key[2] == name and at in (None, key[1])}
        if not own:
            there = ", ".join(sorted({f"{key[2]}-{key[1]}" for key in side})) or "nothing"
            where = "" if at is None else f" at {verdict.pairs(at)}"
            raise NothingToCompare(f"no valid run of {name}{where} (there is: {there})")
        places.append(own)
    both = places[0] & places[1]
    if not both:
        raise NothingToCompare(f"{a} and {b} share no replica count and path")
    return max(both, key=lambda place: (place[0] == "overlay", place[1]))


def _of(records: Sequence[Record], name: str, path: str, replicas: int) -> list[Record]:
    return [
        record
        for record in records
        if record.valid and (record.configuration, record.path, record.replicas)
        == (name, path, replicas)
    ]  # fmt: skip


def _sentence(
    a: str,
    b: str,
    path: str,
    replicas: int,
    quantity: Quantity,
    effect: Effect,
    judged: Verdict,
) -> str:
    where = f"at {verdict.pairs(replicas)}" + (" over the host network" if path == "host" else "")
    if effect.estimate is None:
        return f"{b} against {a} {where}: {judged} ({effect.problem})."
    if quantity.ratio:
        size = f"{effect.estimate:.3f}x"
        bounds = f" [{effect.low:.3f}, {effect.high:.3f}]" if effect.low and effect.high else ""
        least = verdict.percent(effect.mde)
    else:
        size = f"{effect.estimate:+.1f} points"
        known = effect.low is not None and effect.high is not None
        bounds = f" [{effect.low:+.1f}, {effect.high:+.1f}]" if known else ""
        least = "–" if effect.mde is None else f"{effect.mde:.1f} points"
    why = verdict.reason(effect) if judged == "not established" else ""
    return (
        f"{b} against {a} {where}: {judged}{f' ({why})' if why else ''}; {quantity.unit}: "
        f"{size}{bounds}, p {verdict.p_value(effect.p)}, {effect.n_b} against {effect.n_a} runs "
        f"{effect.method}; a difference of {least} would be found in 80 % of cases."
    )
