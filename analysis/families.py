"""Which states are compared with which, and judged together as a family (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from analysis import statistics, verdict
from analysis.pairing import Series, StateKey, arms
from analysis.verdict import Contrast, PathRatio

Bitrates = dict[StateKey, Series]


def against(
    bitrates: Bitrates,
    keys: Sequence[StateKey],
    baseline: str,
    confidence: float,
    *,
    check: bool = True,
) -> list[Contrast]:
    """Every state against the baseline of its replica count and path: one family.

    `check` adds the bootstrap's interval to each.
    """
    couples = [
        ((path, replicas, baseline), (path, replicas, name))
        for path, replicas, name in keys
        if name != baseline and (path, replicas, baseline) in bitrates
    ]
    return _family(bitrates, couples, confidence, check=check)


def pairwise(
    bitrates: Bitrates, keys: Sequence[StateKey], baseline: str, confidence: float
) -> list[Contrast]:
    """The steered states against each other: one family at each replica count and path.

    All of them, not only the best against the others: which one is the best is read from the
    same runs, and only the whole family keeps its error rate after that choice.
    """
    groups: dict[tuple[str, int], list[StateKey]] = {}
    for key in keys:
        if key[2] != baseline:
            groups.setdefault(key[:2], []).append(key)
    return [
        contrast
        for group in groups.values()
        for contrast in _family(bitrates, list(combinations(group, 2)), confidence, check=False)
    ]


def _family(
    bitrates: Bitrates,
    couples: Sequence[tuple[StateKey, StateKey]],
    confidence: float,
    *,
    check: bool,
) -> list[Contrast]:
    effects = []
    for a, b in couples:
        first, second, paired = arms(bitrates[a], bitrates[b])
        effects.append(
            statistics.ratio(first, second, paired=paired, confidence=confidence, check=check)
        )
    adjusted = statistics.holm([effect.p for effect in effects])
    return [
        Contrast(
            path=b[0],
            replicas=b[1],
            a=a[2],
            b=b[2],
            effect=effect,
            p_holm=p,
            verdict=verdict.judge(effect, p, alpha=1 - confidence),
        )
        for (a, b), effect, p in zip(couples, effects, adjusted, strict=True)
    ]


def overlay_over_host(
    bitrates: Bitrates, keys: Sequence[StateKey], confidence: float
) -> list[PathRatio]:
    """Overlay over host where both were run: estimates, no verdicts and so no family."""
    found = []
    for path, replicas, name in keys:
        host, overlay = ("host", replicas, name), ("overlay", replicas, name)
        if path == "overlay" and host in bitrates and overlay in bitrates:
            first, second, paired = arms(bitrates[host], bitrates[overlay])
            effect = statistics.ratio(first, second, paired=paired, confidence=confidence)
            found.append(PathRatio(replicas, name, effect))
    return found
