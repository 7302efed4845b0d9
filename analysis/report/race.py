"""The race of a tuning on the page of its confirmation: its table, its figure, and what is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from analysis.course import Course, Entrant
from analysis.plots import race as plots
from analysis.plots.figures import Picture
from analysis.report.grid import DASH, Column, Table, table
from analysis.report.pages import Section, results
from analysis.statistics import Effect
from analysis.summary import Summary
from analysis.verdict import bounds, estimate

TITLE = "Packet steering: the best configuration of a node"
_CAPTION = (
    "A row for each configuration. Left: ratio to the leader, with 95 % intervals that hold for all of them "
    "at once and at every moment; hollow: too few episodes for one. Right: a point for each episode that "
    "measured the configuration, and a cross where it left. Green leads, blue may be the best, grey left."
)
_NOTE = (
    "Ratios to the baseline are estimates of the race alone, and that of the leader is too high, because it was "
    "chosen for it: the confirmation has the one to use. Ratios to the leader have 95 % intervals that hold for all "
    "configurations at once and at every moment of the race; a dash: too few episodes. A configuration leaves "
    "when the evidence of all its rivals together shows that it is not the best (docs/statistics.md#race)."
)


def sections(
    course: Course,
    summary: Summary,
    name: str,
    words: Mapping[str, Mapping[str, object]],
    left_out: Sequence[tuple[str, str]],
) -> list[Section]:
    """What the recommended configuration sets, the race, and the fresh episodes that confirm it.

    `left_out` are configurations that did not race, with the reason.
    """
    still = sum(one.open for one in course.entrants)
    race = Section(
        "Race",
        field(course),
        _NOTE,
        [
            f"{len(course.entrants)} configurations raced over {course.episodes} episodes; {still} may be the "
            "best (95 %)."
        ],
    )
    fresh = [
        replace(one, title="Confirmation" if one.title == "Results" else one.title)
        for one in results(summary)
    ]
    others = table(
        left_out,
        Column("configuration", lambda one: one[0], False),
        Column("reason", lambda one: one[1], False),
    )
    found = [_settings(name, words), race, *fresh, Section("Not raced", others)]
    return [one for one in found if one.table.rows]


def field(course: Course) -> Table:
    """One row a configuration, in the order of the course."""
    return table(
        course.entrants,
        Column("configuration", lambda one: one.arm.name, False, 20),
        Column("values", lambda one: str(one.arm.values), rank=3),
        Column("episodes", lambda one: str(len(one.track.measured)), rank=6),
        Column("ratio", lambda one: _estimate(one.ratio), rank=18),
        Column("to the leader", lambda one: _estimate(one.behind), rank=14),
        Column("95 % simultaneous", lambda one: bounds(one.behind) or DASH, rank=12),
        Column("left after", _left, rank=8),
        Column("standing", lambda one: one.fate, False, 17),
    )


def _estimate(effect: Effect) -> str:
    return DASH if effect.estimate is None else estimate(effect)


def _left(one: Entrant) -> str:
    return str(one.track.left.episodes) if one.track.left else DASH


def picture(course: Course) -> Picture:
    """The figure of the race."""
    return Picture("race", "The race", _CAPTION, partial(plots.field, course))


def _settings(name: str, words: Mapping[str, Mapping[str, object]]) -> Section:
    """What a configuration sets: part, knob and word."""
    rows = [(part, knob, str(word)) for part, own in words.items() for knob, word in own.items()]
    return Section(
        f"What {name} sets",
        table(
            rows,
            Column("part", lambda row: row[0], False),
            Column("value", lambda row: row[1], False),
            Column("set to", lambda row: row[2], False),
        ),
    )


def estimates(course: Course) -> pd.DataFrame:
    """One row a configuration, numbers unrounded."""
    return pd.DataFrame([
        {
            "configuration": one.arm.name,
            "values": one.arm.values,
            "settings": one.arm.settings,
            "episodes": len(one.track.measured),
            "joined_after": one.track.joined,
            "left_after": one.track.left.episodes if one.track.left else None,
            "in_set": one.open,
            "ratio": one.ratio.estimate,
            "to_leader": one.behind.estimate,
            "to_leader_low": one.behind.low,
            "to_leader_high": one.behind.high,
            "standing": one.fate,
        }
        for one in course.entrants
    ])  # fmt: skip
