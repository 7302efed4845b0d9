"""Tables of the docs from kept figures, first of all those of `benchmarks.promises` (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def page(text: str, kept: Mapping[str, Any]) -> str:
    """A page of the docs with the kept figures between its marks."""
    tables = {"lab": _lab(kept), "dependence": _dependence(kept), "promises": _promises(kept)}
    for name, lines in tables.items():
        text = marked(text, f"benchmarks/promises.py: {name}", lines)
    return text


def marked(text: str, mark: str, lines: Sequence[str]) -> str:
    """The text with these lines between a mark and its end; unchanged where it lacks the mark."""
    before, start, rest = text.partition(f"<!-- {mark} -->\n")
    return (
        before + start + "\n".join(lines) + "\n" + rest[rest.index("<!-- end -->") :]
        if start
        else text
    )


def _lab(kept: Mapping[str, Any]) -> list[str]:
    names = [*kept["coverage_by_episode_on_the_lab"]]
    lines = [
        f"| noise, episodes | {' | '.join(names)} | false verdict in the family |",
        "|---" * (len(names) + 2) + "|",
    ]
    for noise, key in (("fitted", "on_the_lab"), ("measured", "measured")):
        covers = kept[f"coverage_by_episode_{key}"]
        for episodes, false in kept[f"false_verdict_{key}"].items():
            shares = [covers[name][episodes] if name in covers else None for name in names]
            cells = ["–" if one is None else _percent(one) for one in [*shares, false]]
            lines.append(f"| {' | '.join([f'{noise}, {episodes}', *cells])} |")
    return lines


def _dependence(kept: Mapping[str, Any]) -> list[str]:
    return [
        "| lag-1, configurations x blocks | found | no verdict for this reason | false verdict | without the check "
        "| interval covers |",
        "|---|---|---|---|---|---|",
        *(
            f"| {rho}, {shape} | {_percent(one['found'])} | {_percent(one['withheld'])} | "
            f"{_percent(one['claimed'])} | {_percent(one['claimed without the check'])} | "
            f"{_percent(one['covered'])} |"
            for rho, shapes in kept["dependence"].items()
            for shape, one in shapes.items()
        ),
    ]


def _promises(kept: Mapping[str, Any]) -> list[str]:
    power, false = kept["power_of_the_difference_named"], kept["false_verdict_in_a_family"]
    two, stops = kept["compare_to_false_worse"], kept["coverage_when_until_ci_stops"]
    rows = [
        ("the difference named is found in 80 %, families of 1, 5, 25", power.values()),
        (
            "any false verdict in a family of 1, 5, 25 without an effect, at most 5 %",
            false.values(),
        ),
        (
            "dependence is found in a sound sweep, at most 5 %",
            [
                *(one["found"] for one in kept["dependence"]["0"].values()),
                kept["dependence_found_where_four_of_six_are_closed"],
            ],
        ),
        *(
            (f"the 95 % interval covers: {case}", [share])
            for case, share in kept["coverage_of_the_95_interval"].items()
        ),
        *(
            (f"false positives with 5 windows of a configuration in an episode: {case}", [share])
            for case, share in kept["false_positives_with_5_windows_an_episode"].items()
        ),
        *((f"it covers when `--until-ci` stops: {case}", [share]) for case, share in stops.items()),
        *(
            (
                f"`compare --to` without a change, spread 0, 1, 2, 3 % between sweeps, is worse: {case}",
                [two[spread][case] for spread in two],
            )
            for case in ("both have a baseline", "3 % assumed")
        ),
    ]
    return [
        "| what | simulated |",
        "|---|---|",
        *(f"| {what} | {', '.join(map(_percent, shares))} |" for what, shares in rows),
    ]


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
