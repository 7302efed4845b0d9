"""The plan of a tuning: which arms race, under which options, in what time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.limits import parse_all
from analysis.machine import EMULATED
from analysis.metrics import METRICS, Metric
from analysis.race import FEWEST, KEPT, Costs
from analysis.tuning import SHARE
from experiments.run import arms as candidates
from experiments.run import episodes, options
from experiments.run.arms import Arm
from experiments.run.measurable import Way
from experiments.run.options import Options
from experiments.run.tune_state import MOST_MINUTES, Kept, TuneState
from experiments.run.tune_values import BASELINE
from experiments.targets import TARGETS
from infra import config, configurations, traffic
from infra.errors import InvalidInput
from infra.settings import StackSettings

# Seconds of an episode beside its windows and warm-up, until some were measured.
AROUND_S = 1.0
# The lab's form of a race that does not name one: what only undoes an emulation is no gain.
_FORM, _STOCK = "lab.form", "stock"


def plan(
    wanted: Mapping[str, Any], *, minutes: float, by: str, chosen: Sequence[Arm] = ()
) -> TuneState:
    """The tuning of these options, with `chosen` arms or else all candidates.

    Raises `InvalidInput` naming the option, and `PrerequisiteMissing` where the target does not answer.
    """
    if not 0 < minutes <= MOST_MINUTES:
        raise InvalidInput(f"minutes: must be above 0, at most {MOST_MINUTES}, not {minutes:g}")
    given = _stock(options.layer(wanted))
    draft = _asked(given, [BASELINE])
    if len(draft.replicas) != 1 or len(draft.paths) != 1:
        raise InvalidInput(
            "replicas: a race has one number of pairs and one path: give one of each"
        )
    _refuse_unmeasured(
        draft, [("by", METRICS[by]), *(("limit", one.metric) for one in parse_all(draft.limits))]
    )
    state = config.state("tune", draft.stack(BASELINE, draft.replicas[0], draft.paths[0]))
    target = TARGETS[state.target]
    cpus = target.cpus(state)
    cores = len(state.cores.server) if state.target == "lab" else cpus
    arms = list(chosen) or candidates.candidates(cores)
    why_not = {arm.name: _why_not(arm, state, cpus) for arm in arms}
    fit = [arm for arm in arms if not why_not[arm.name]]
    if len(fit) < 2:
        reasons = "; ".join(f"{name} {why}" for name, why in why_not.items() if why)
        raise InvalidInput(f"configurations: nothing races against the baseline: {reasons}")
    racing = [arm.configuration for arm in fit]
    by_change = "settle" not in given
    if by_change:
        given = {**given, "settle": episodes.settle_of(racing)}
    asked = _asked(given, [arm.name for arm in fit])
    why = episodes.standing(racing) or episodes.cannot(asked, state, target.steered(state))
    if why:
        raise InvalidInput(f"tune: switchback {why}")
    # of those that are generated only some are raced where time is short
    least = _least_minutes(len(fit) if chosen else KEPT, asked)
    if minutes < least:
        raise InvalidInput(
            f"minutes: a race of {len(fit) if chosen else KEPT} arms takes at least {least:.1f} minutes, not {minutes:g}: "
            "give more, or fewer --configurations"
        )
    return TuneState(
        options=options.kept(asked),
        minutes=minutes,
        by=by,
        generated=not chosen,
        by_change=by_change,
        arms=tuple(map(Kept.of, fit)),
        left_out=tuple((name, why) for name, why in why_not.items() if why),
    )


def chosen(words: str) -> list[Arm]:
    """The user's arms: names of configurations or of generated arms, or a file; the baseline first.

    Raises `InvalidInput` for an unknown name.
    """
    is_file = words.endswith((".yaml", ".yml"))
    known = configurations.load(words if is_file else None)
    names = [*known] if is_file else [word.strip() for word in words.split(",") if word.strip()]
    if is_file:
        names = [name for name in names if name not in configurations.load()]
    every = {arm.name: arm for arm in candidates.candidates(candidates.STAGES)}
    every |= {name: candidates.of(one) for name, one in known.items()}
    for name in names:
        if name not in every:
            raise InvalidInput(f"configurations: {name!r} is unknown (known: {', '.join(every)})")
    arms = [every[name] for name in dict.fromkeys(names) if name != BASELINE]
    arms = [arm for arm in arms if arm.settings]
    if not arms:
        raise InvalidInput("configurations: nothing races against the baseline: name one or more")
    return [candidates.BASELINE, *arms]


def _why_not(arm: Arm, state: StackSettings, cpus: int) -> str:
    """Why an arm does not race; empty: it does."""
    if arm.configuration.needs_cpus > cpus:
        return f"needs {arm.configuration.needs_cpus} CPUs"
    if state.target == "lab" and state.lab.form == "study":
        undone = [
            " ".join(key) for key in EMULATED & arm.settings.keys() if arm.settings[key] == "on"
        ]
        if undone:
            return (
                f"undoes the form study of the lab ({', '.join(sorted(undone))}): that is no gain on a "
                f"real node; race it with -c {_FORM}={_STOCK}"
            )
    return ""


def _stock(given: dict[str, Any]) -> dict[str, Any]:
    """The options, on the lab with the form stock unless told."""
    config = dict(given.get("config", ()))
    if {"lab", _FORM} & config.keys() or given.get("target", "lab") != "lab":
        return given
    return {**given, "config": {**config, _FORM: _STOCK}}


def _asked(given: Mapping[str, Any], names: Sequence[str]) -> Options:
    usual = {"replicas": "4", "blocks": 1}
    asked = {**usual, **given, "configurations": tuple(names), "method": "switchback"}
    return options.with_congestion(options.read(asked))


def _refuse_unmeasured(asked: Options, wanted: Sequence[tuple[str, Metric]]) -> None:
    """Raise `InvalidInput` for a metric that episodes of this traffic do not measure."""
    pairs = asked.replicas[0]
    for option, metric in wanted:
        if not Way(traffic.of(asked.traffic), "switchback", pairs).has(metric):
            able = [
                name
                for name, kind in traffic.TRAFFIC.items()
                if Way(kind(), "switchback", pairs).has(metric)
            ]
            remedy = (
                f"give --traffic {able[-1]}, or another metric" if able else "choose another metric"
            )
            raise InvalidInput(
                f"{option}: {metric.name} is not measured with traffic {asked.traffic} and {pairs} pairs "
                f"under switchback: {remedy}"
            )


def timing_of(asked: Options) -> episodes.Timing:
    return episodes.Timing(asked.window, asked.settle, episodes.warm_up(asked.replicas[0]))


def costs_of(asked: Options) -> Costs:
    timing = timing_of(asked)
    return Costs(timing.warm_up + AROUND_S, timing.period)


def most_arms(state: TuneState) -> int:
    """How many arms, with the baseline, there is time to race."""
    asked = state.asked
    fit = (n for n in range(len(state.arms), 0, -1) if _least_minutes(n, asked) <= state.minutes)
    return max(KEPT, next(fit, 0))


def _least_minutes(arms: int, asked: Options) -> float:
    """Time for the episodes that measure all arms, before the confirmation."""
    return FEWEST * costs_of(asked).of(arms) / (1 - SHARE) / 60
