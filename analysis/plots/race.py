"""Figure of a race: how far each arm is behind the leader, and how the field narrows."""

from __future__ import annotations

from analysis.course import Course, Entrant
from analysis.plots.library import Axes
from analysis.plots.style import COLOURS, WIDTH, Drawing, figure, label
from analysis.verdict import bounds, estimate

_ROW, _MARGIN = 0.17, 0.1  # inches of a row, and of the panels beside their rows
_LONGEST = 34  # characters of a name
_CHARACTER = 0.056  # inches
# Colours of arms that may be the best, of the leader, and of those that left.
_OPEN, _LEADER, _LEFT = COLOURS[2], COLOURS[3], "#777777"


def field(course: Course) -> Drawing:
    """A row for each arm, in the order of the course.

    Left: the ratio to the leader. Right: the episodes that measured the arm, until it left (x).
    """
    rows = course.entrants
    made, (ratios, episodes) = figure(1, 2, _ROW * len(rows) + _MARGIN)
    names = [_cut(label(one.arm.name)) for one in rows]
    wide = 0.1 + _CHARACTER * max(map(len, names))
    made.subplots_adjust(left=wide / WIDTH, wspace=0.06)
    ratios.axvline(1.0, color="#555555", lw=0.8)
    for place, one in enumerate(rows):
        colour = _LEFT if not one.open else _LEADER if one.arm.name == course.leader else _OPEN
        _ratio(made, ratios, place, one, colour)
        _episodes(made, episodes, place, one, colour, course.episodes)
    ratios.set_yticks(range(len(names)), names, size=7)
    episodes.set_yticks(range(len(names)), [])
    for axis in (ratios, episodes):
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
    ratios.set_xlabel(f"{course.metric.title}, ratio to the leader")
    episodes.set_xlabel("episode")
    episodes.locator_params(axis="x", integer=True)
    episodes.set_xlim(0.2, course.episodes + 0.8)
    return made


def _ratio(made: Drawing, axis: Axes, place: int, one: Entrant, colour: str) -> None:
    """The estimate with its interval; hollow where there is none yet."""
    effect = one.behind
    if effect.estimate is None:
        return
    low = effect.estimate if effect.low is None else effect.low
    high = effect.estimate if effect.high is None else effect.high
    bars = [[effect.estimate - low], [high - effect.estimate]]
    drawn = axis.errorbar(
        effect.estimate, place, xerr=bars, color=colour, marker="o", ms=4, capsize=2, lw=1.1,
        mfc=colour if effect.low is not None or colour == _LEADER else "white",
    )  # fmt: skip
    line, caps, lines = drawn.lines
    tip = f"{one.arm.name}: {estimate(effect)} of the leader {bounds(effect)}".rstrip()
    made.mark(line, one.arm.name, [tip])
    for artist in (*caps, *lines):
        made.mark(artist, one.arm.name)


def _episodes(
    made: Drawing, axis: Axes, place: int, one: Entrant, colour: str, episodes: int
) -> None:
    """A line while the arm is in the race, a point for each episode that measured it, x where it left."""
    left = one.track.left
    end = left.episodes if left else episodes
    (span,) = axis.plot([one.track.joined + 0.5, end + 0.5], [place] * 2, color=colour, lw=0.8)
    measured = one.track.measured
    (dots,) = axis.plot(
        measured, [place] * len(measured), color=colour, marker="o", ms=2.2, ls="", clip_on=False
    )
    made.mark(span, one.arm.name)
    made.mark(dots, one.arm.name, [f"{one.arm.name}: {one.fate}"] * len(measured))
    if left:
        (cross,) = axis.plot(end + 0.5, place, color=colour, marker="x", ms=4, ls="")
        made.mark(cross, one.arm.name, [f"{one.arm.name}: {one.fate}"])


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
