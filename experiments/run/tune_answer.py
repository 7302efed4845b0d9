"""The answer of a tuning: as data, in sentences, and the commands that apply and undo it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from analysis.load import load
from analysis.report.answer import Commands
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.summary import Summary, summarise
from experiments.run import keep
from experiments.run.sweep import RECORDS, kept_plan
from experiments.run.tune import CONFIRMATION, Tune
from experiments.run.tune_values import BASELINE
from infra.errors import InvalidInput


def confirmed(job: Tune) -> tuple[list[Record], Summary | None]:
    """The records of the confirmation and their conclusions; None where nothing is compared."""
    directory = job.directory / CONFIRMATION
    if not (directory / RECORDS).is_dir():
        return [], None
    found = load(directory).records
    if {BASELINE, job.state.recommended} - {one.configuration for one in found if one.valid}:
        return found, None
    return found, summarise(found, metric=job.by, limits=job.limits)


def document(job: Tune) -> dict[str, Any]:
    """The answer so far, as data."""
    answer = job.tuning.answer()
    standing, names = answer.standing, job.state.names
    name = names[answer.arm]
    made, summary = confirmed(job)
    commands = _commands(job, name, made)
    lines = [one.line for one in commands.lines]
    arms = [one.arm for one in job.state.arms]
    lab = job.lab
    ratio = _ratio(answer.ratio, job.by.sign)
    ranked = sorted(standing.open, key=lambda arm: (arms[arm].complexity, arm))
    settings = arms[answer.arm].document
    settings.pop("summary", None)
    return {
        "recommended": {
            "configuration": name,
            "settings": settings,
            "ratio": ratio if answer.arm else None,
        },
        "set": [names[arm] for arm in ranked],
        "baseline": {"configuration": BASELINE, "in_set": 0 in standing.open},
        "apply": lines[:-1],
        "undo": lines[-1] if lines else None,
        "metrics": _metrics(summary, name),
        "metric": job.by.name,
        "limits": [str(one) for one in job.limits],
        "race": {
            "arms": len(names),
            "episodes": standing.episodes,
            "leader": names[standing.leader],
            "recommended": names[standing.recommended],
            "resolved": standing.resolved,
            "loss": math.expm1(standing.loss) if math.isfinite(standing.loss) else None,
        },
        "confirmation": {
            "configuration": job.state.recommended,
            "episodes": job.state.planned,
            "ratio": ratio,
            "limits_kept": answer.kept,
        },
        "left_out": [
            {"configuration": name, "why": why}
            for name, why in (*job.state.left_out, *job.failing.items())
        ],
        "lab": {"form": lab.form, "queues": lab.queues} if lab else None,
        "seconds": round(job.used, 1),
        "directory": str(job.directory),
    }


def _ratio(found: Effect | None, sign: int) -> dict[str, float | None] | None:
    """The ratio of the metric's values: of one where lower is better, the inverse of "how much better"."""
    if found is None:
        return None
    values = [found.estimate, found.low, found.high]
    if sign < 0:
        values = [None if one is None else 1 / one if one else math.inf for one in values]
        values[1:] = values[:0:-1]
    return dict(zip(("estimate", "low", "high"), values, strict=True))


def _metrics(summary: Summary | None, name: str) -> dict[str, Any]:
    """What the configuration buys and costs, by metric, from the fresh episodes."""
    rows = summary.tradeoff.rows if summary else ()
    return {
        metric: {
            "verdict": one.verdict,
            **{key: asdict(one.effect)[key] for key in ("estimate", "low", "high", "scale")},
        }
        for row in rows
        if row.configuration == name
        for metric, one in row.contrasts.items()
    }


def _commands(job: Tune, name: str, made: Sequence[Record]) -> Commands:
    if name == BASELINE or not made:
        return Commands()
    return keep.commands([name], made, kept_plan(job.directory / CONFIRMATION))


def sentences(found: dict[str, Any]) -> list[str]:
    """The answer for people (pure)."""
    race, fresh = found["race"], found["confirmation"]
    name, ratio = found["recommended"]["configuration"], fresh["ratio"]
    what = fresh["configuration"] or race["recommended"]
    words = []
    if not race["episodes"]:
        return ["There is no answer yet: no episode was complete."]
    if name != BASELINE:
        words.append(
            f"{name} is recommended: {_interval(ratio)} times the {found['metric']} of the baseline, on "
            "this occasion, in fresh episodes."
        )
    elif ratio is not None:
        reason = (
            "it is not shown to keep the limits"
            if fresh["limits_kept"] is False
            else "it is not shown to be better"
        )
        words.append(
            f"Keep the baseline. {what} was the choice of the race; in fresh episodes it has "
            f"{_interval(ratio)} times the {found['metric']} of the baseline: {reason}."
        )
    elif what == BASELINE:
        words.append("Keep the baseline: nothing that was tried is shown to be better by enough.")
    else:
        words.append(f"So far {what} is the choice of the race, but it is not confirmed.")
    rest = found["set"]
    words.append(
        f"{len(rest)} of {race['arms']} configurations may be the best (95 %): {', '.join(rest)}."
    )
    if race["loss"] is not None:
        words.append(f"{what} loses at most {100 * race['loss']:.1f} % against the best of them.")
    if lab := found["lab"]:
        words.append(
            f"Measured in the lab: form {lab['form']}, receive queues of its NIC: {lab['queues']}."
        )
    return words


def _interval(ratio: dict[str, float | None] | None) -> str:
    estimate, low, high = (ratio or {}).values()
    if low is None or high is None:
        return f"{estimate:.3f}"
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def as_yaml(found: dict[str, Any]) -> str:
    """The recommended configuration, as a file of configurations has it."""
    one = found["recommended"]
    return yaml.safe_dump({one["configuration"]: one["settings"]}, sort_keys=False).strip()


def page(job: Tune) -> str:
    """Write the report of the confirmation; its path, or empty where there is nothing to report."""
    from analysis.report import answer as answers
    from analysis.report.pages import write_report

    made, summary = confirmed(job)
    if summary is None:
        return ""
    directory = job.directory / CONFIRMATION
    try:
        commands = keep.commands(answers.chosen(summary), made, kept_plan(directory))
    except InvalidInput as error:
        commands = Commands(reason=str(error))
    answer = answers.answer(summary, commands, [])
    files = write_report(made, summary, directory, answer=answer, faults=[], reproduce="")
    return str(files.html)
