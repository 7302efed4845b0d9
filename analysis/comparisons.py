"""Families: which states are compared, and judged together (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from analysis import statistics, verdict
from analysis.evidence import Evidence
from analysis.machine import OF_A_PATH
from analysis.pairing import StateKey
from analysis.verdict import Contrast, PathRatio

Couple = tuple[StateKey, StateKey]

# With more states than this at one place, each is compared with the baseline only: the number of
# pairs grows as the square, and Holm's adjustment with it.
MOST_AGAINST_EACH_OTHER = 24


def against_couples(evidence: Evidence, baseline: str) -> list[Couple]:
    """Every state with the baseline of its replica count and path: one family."""
    return [
        ((path, replicas, baseline), (path, replicas, name))
        for path, replicas, name in evidence.series
        if name != baseline and (path, replicas, baseline) in evidence.series
    ]


def pairwise_couples(evidence: Evidence, baseline: str) -> list[list[Couple]]:
    """The steered states against each other: one family at each replica count and path.

    All of them, not only the best against the others: the best is selected from the same runs,
    and only the whole family keeps its error rate after that selection. Places with more than 24
    states have no family.
    """
    groups: dict[tuple[str, int], list[StateKey]] = {}
    for key in evidence.series:
        if key[2] != baseline:
            groups.setdefault(key[:2], []).append(key)
    return [
        list(combinations(group, 2))
        for group in groups.values()
        if len(group) <= MOST_AGAINST_EACH_OTHER
    ]


def alone(evidence: Evidence, couple: Couple, baseline: str) -> tuple[list[Couple], int]:
    """A couple that is in no family of the report, and the size of the family it would be in."""
    place = couple[0][:2]
    states = sum(key[:2] == place and key[2] != baseline for key in evidence.series)
    return [couple], states * (states - 1) // 2


def family(
    evidence: Evidence,
    couples: Sequence[Couple],
    confidence: float,
    *,
    check: bool = False,
    size: int = 0,
) -> list[Contrast]:
    """The comparisons of a family, judged together. `check` adds the bootstrap's interval.

    `size` is the size of the whole family, where `couples` are only a part of it.
    """
    members = [(evidence, couple) for couple in couples]
    return across_metrics(members, confidence, check=check, size=size)


def across_metrics(
    members: Sequence[tuple[Evidence, Couple]],
    confidence: float,
    *,
    check: bool = False,
    size: int = 0,
) -> list[Contrast]:
    """The comparisons of one family, each in the metric of its evidence."""
    alpha = 1 - confidence
    effects = [
        evidence.effect(a, b, confidence=confidence, check=check) for evidence, (a, b) in members
    ]
    adjusted = statistics.holm([effect.p for effect in effects])
    known = sum(p is not None for p in adjusted)
    if size > known:
        adjusted = [None if one.p is None else min(1.0, one.p * size) for one in effects]
    size = max(size, known)
    found = []
    for (evidence, (a, b)), effect, p in zip(members, effects, adjusted, strict=True):
        effect = statistics.with_power(effect, family=size, kept=evidence.kept, alpha=alpha)
        found.append(
            verdict.contrast(
                a, b, effect, p, evidence.metric, alpha=alpha, doubt=evidence.doubt(a, b)
            )
        )
    return found


def overlay_over_host(evidence: Evidence, confidence: float) -> list[PathRatio]:
    """Overlay against host where both were run: estimates without verdict, so no family."""
    found = []
    for overlay in evidence.series:
        host = ("host", *overlay[1:])
        if overlay[0] == "overlay" and host in evidence.series:
            effect = evidence.effect(host, overlay, confidence=confidence, check=True)
            doubt = evidence.doubt(host, overlay, but=OF_A_PATH)
            found.append(PathRatio(overlay[1], overlay[2], effect, doubt))
    return found
