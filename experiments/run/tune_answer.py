"""The answer of a tuning: as data, in sentences, as a page, and the commands that apply and undo it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from analysis import course as courses
from analysis import files, machine
from analysis.load import Fault, Loaded, load
from analysis.metrics import METRICS
from analysis.report import answer as answers
from analysis.report import race as reports
from analysis.report.answer import Answer, Commands
from analysis.report.grid import Table
from analysis.report.pages import spreadsheet, write_report
from analysis.schema import Record
from analysis.statistics import Effect
from analysis.summary import Summary, summarise
from experiments.run import keep
from experiments.run.sweep import kept_plan
from experiments.run.tune_values import BASELINE
from experiments.run.tuned import CONFIRMATION, RACE, Tuned
from infra import configurations
from infra.commands import command

# Names of the set in a sentence.
MOST_NAMED = 8
# A larger bound on what is lost says nothing that helps to choose.
USEFUL = 0.1
# Why the answer has no commands.
NOTHING = "There is nothing to set: the baseline is kept."


@dataclass(frozen=True)
class Page:
    """The written report: its first screen, the table of the race, and the files that were left out."""

    html: Path
    answer: Answer
    race: Table
    faults: Sequence[Fault]


def _fresh(job: Tuned) -> Loaded:
    """The records of the confirmation."""
    directory = job.directory / CONFIRMATION
    return load(directory) if directory.is_dir() else Loaded()


def _summary(job: Tuned, made: Sequence[Record]) -> Summary:
    return summarise(made, metric=job.by, limits=job.limits)


def document(job: Tuned, shown: Callable[[str], str] = str) -> dict[str, Any]:
    """The answer so far, as data; commands as `shown`."""
    answer = job.tuning.answer()
    standing, names = answer.standing, job.state.names
    name = names[answer.arm]
    made = _fresh(job).records
    commands = _commands(job, name, made)
    lines = [shown(one.line) for one in commands.lines]
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
        "metrics": _metrics(_summary(job, made), name) if made else {},
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


def _metrics(summary: Summary, name: str) -> dict[str, Any]:
    """What the configuration buys and costs, by metric, from the fresh episodes."""
    return {
        metric: {
            "verdict": one.verdict,
            **{key: asdict(one.effect)[key] for key in ("estimate", "low", "high", "scale")},
        }
        for row in summary.tradeoff.rows
        if row.configuration == name
        for metric, one in row.contrasts.items()
    }


def _commands(job: Tuned, name: str, made: Sequence[Record]) -> Commands:
    if name == BASELINE or not made:
        return Commands()
    return keep.commands([name], made, kept_plan(job.directory / CONFIRMATION))


def sentences(found: dict[str, Any]) -> list[str]:
    """The answer for people (pure)."""
    race, fresh, metric = found["race"], found["confirmation"], METRICS[found["metric"]].title
    name, ratio = found["recommended"]["configuration"], fresh["ratio"]
    what = fresh["configuration"] or race["recommended"]
    words = []
    if not race["episodes"]:
        return ["There is no answer yet: no episode was complete."]
    if name != BASELINE:
        words.append(
            f"{name} is recommended: {_interval(ratio)} times the {metric} of the baseline, on "
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
            f"{_interval(ratio)} times the {metric} of the baseline: {reason}."
        )
    elif what == BASELINE:
        words.append("Keep the baseline: nothing that was tried is shown to be better by enough.")
    else:
        words.append(f"So far {what} is the choice of the race, but it is not confirmed.")
    rest = found["set"]
    more = f", and {len(rest) - MOST_NAMED} more" if len(rest) > MOST_NAMED else ""
    words.append(
        f"{len(rest)} of {race['arms']} configurations may be the best (95 %), the simplest first: "
        f"{', '.join(rest[:MOST_NAMED])}{more}."
    )
    loss = race["loss"]
    if not race["resolved"] and (loss is None or loss > USEFUL):
        words.append("The time was too short to tell them apart: a longer race may (--minutes).")
    elif loss is not None:
        words.append(f"{what} loses at most {100 * loss:.1f} % against the best of them.")
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


def page(job: Tuned, found: dict[str, Any], shown: Callable[[str], str] = str) -> Page | None:
    """Write the report of a tuning: the answer, the race, and its confirmation. None without an episode."""
    if not found["race"]["episodes"]:
        return None
    race, fresh = load(job.directory / RACE), _fresh(job)
    records, faults = [*race.records, *fresh.records], [*race.faults, *fresh.faults]
    summary = _summary(job, fresh.records)
    name, settings = (found["recommended"][key] for key in ("configuration", "settings"))
    commands = _commands(job, name, fresh.records) if settings else Commands(reason=NOTHING)
    here = tuple(replace(one, line=shown(one.line)) for one in commands.lines)
    sentence, *details = sentences(found)
    answer = replace(
        answers.answer(summary, replace(commands, lines=here), faults),
        sentence=sentence,
        details=details,
        tradeoff=answers.effects(summary, job.state.recommended or ""),
        basis=f"{_basis(found)} {answers.basis(summary)}".rstrip(),
    )
    run = courses.course(
        [courses.Arm(one.name, one.words, one.arm.complexity) for one in job.state.arms],
        job.tuning.race.tracks(), job.tuning.standing, job.by, job.failing,
    )  # fmt: skip
    files.write(job.directory / "race.csv", spreadsheet(reports.estimates(run)))
    made = write_report(
        records,
        replace(summary, machine=machine.describe(records)),
        job.directory,
        answer=answer,
        faults=faults,
        reproduce=shown(_again(job)),
        title=reports.TITLE,
        sections=reports.sections(run, summary, name, settings, job.state.left_out),
        pictures=[reports.picture(run)],
    )
    return Page(made.html, answer, reports.field(run), faults)


def _basis(found: dict[str, Any]) -> str:
    race = found["race"]
    return f"{race['episodes']} episodes of a race between {race['arms']} configurations."


def _again(job: Tuned) -> str:
    """The command that repeats a tuning."""
    asked, names = job.asked, job.state.names[1:]
    chosen = ",".join(names) if set(names) <= configurations.load().keys() else asked.own
    given = {
        "--minutes": f"{job.state.minutes:g}",
        "--replicas": asked.replicas[0],
        "--by": job.by.name,
        "--configurations": "" if job.state.generated else chosen,
        "--traffic": asked.traffic,
        "--target": asked.target,
        "--window": asked.window,
        "--settle": "" if job.state.by_change else asked.settle,
        "--seed": asked.seed,
    }
    words = [word for flag, value in given.items() if value != "" for word in (flag, value)]
    many = [("--limit", one) for one in asked.limits]
    many += [("-c", f"{key}={value}") for key, value in asked.config]
    return command("tune", *words, *(word for pair in many for word in pair))
