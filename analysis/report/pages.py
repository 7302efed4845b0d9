"""Writes the report: a self-contained HTML file, the same as Markdown, CSV tables and plots."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import files, statistics
from analysis.carryover import SwitchbackChecks
from analysis.dependence import FEWEST_BLOCKS, Check
from analysis.load import Fault
from analysis.plaintext import one_line, visible
from analysis.plots import figures
from analysis.plots.figures import Picture
from analysis.plots.style import Mark
from analysis.report import answer as answers
from analysis.report import cells, grid
from analysis.report.answer import Answer
from analysis.report.grid import Table
from analysis.schema import Record
from analysis.summary import Summary
from analysis.verdict import Contrast, p_value

TITLE = "Packet steering: results and costs"


@dataclass(frozen=True)
class ReportFiles:
    """Written files: `csv` has the tidy runs, `plots` every figure and one PDF of all."""

    html: Path
    markdown: Path
    csv: Path
    comparisons: Path
    cores: Path
    plots: list[Path]


@dataclass(frozen=True)
class Section:
    """One table of the report, with what it shows in sentences and what its columns are."""

    title: str
    table: Table
    note: str = ""
    sentences: Sequence[str] = ()


def write_report(
    records: Sequence[Record],
    summary: Summary,
    directory: Path,
    *,
    answer: Answer | None = None,
    faults: Sequence[Fault] = (),
    reproduce: str = "",
    title: str = TITLE,
    sections: Sequence[Section] | None = None,
    pictures: Sequence[Picture] = (),
) -> ReportFiles:
    """Write report.html, report.md, three CSV files and plots/ into `directory`.

    `records` are the source of `summary`, `answer` is the first screen (by default without
    commands), `reproduce` the commands that measured them, `sections` the tables before the figures
    (by default the results), and `pictures` are drawn before those of the summary. Raises OSError where
    `directory` cannot be written, or its plots/ is a symbolic link.
    """
    directory = files.folder(directory.resolve())  # the folder that was named may be a link
    drawn = figures.write([*pictures, *figures.of(summary)], directory / "plots")
    words = {
        "title": title,
        "summary": summary,
        "answer": answer or answers.answer(summary, faults=faults),
        "faults": [str(fault) for fault in faults],
        "plots": [(plot, inlined(plot)) for plot in drawn],
        "results": results(summary) if sections is None else sections,
        "caveats": [*summary.caveats, *summary.warnings],
        "details": details(summary),
        "markdown": grid.markdown,
        "fenced": grid.fenced,
        "block": answers.block,
        "minor": grid.MINOR,
        "reproduce": reproduce.strip(),
        "reproducible": _reproducible(records),
        **_script(),
    }
    made = ReportFiles(
        html=directory / "report.html",
        markdown=directory / "report.md",
        csv=directory / "report.csv",
        comparisons=directory / "comparisons.csv",
        cores=directory / "cores.csv",
        plots=list(dict.fromkeys(file for one in drawn for file in (one.svg, one.png, one.pdf))),
    )
    files.write(made.html, _render("report.html.jinja", words))
    files.write(made.markdown, _render("report.md.jinja", words))
    files.write(made.csv, spreadsheet(summary.runs))
    files.write(made.comparisons, spreadsheet(comparison_table(summary)))
    files.write(made.cores, spreadsheet(core_means(summary)))
    return made


_EFFECTS = {
    "ratio": "Ratios of geometric means (statistics on logarithms)",
    "difference": "Differences of means",
}


def results(summary: Summary) -> list[Section]:
    """The tables before the figures; those without rows are left out."""
    level = f"{summary.confidence * 100:g} %"
    return _with_rows(
        Section("Results", cells.states(summary),
                f"Means of {summary.metric.heading} over valid runs ± {level} t interval. MDE: the smallest "
                "difference, in this configuration alone, that the adjusted test would find in "
                "80 % of such experiments. Softirq and idle are of the server's cores.",
                summary.verdict[1:]),
        Section("Each server node", cells.nodes(summary),
                f"Means of {summary.metric.heading} over the pairs of the node, and its own comparison with the "
                "baseline; p is adjusted over all nodes together."),
        Section("Every metric against the baseline", cells.tradeoffs(summary),
                f"Effects with {level} intervals, marked where they differ significantly (p Holm below "
                "0.05) or are inconclusive."),
    )  # fmt: skip


def details(summary: Summary) -> list[Section]:
    """The tables after the figures; those without rows are left out."""
    level = f"{summary.confidence * 100:g} %"
    return _with_rows(
        Section("Other metrics", cells.others(summary),
                "Means over valid runs. docs/record.md defines each metric."),
        Section("Against the baseline", cells.contrasts(summary, summary.contrasts),
                f"{_EFFECTS[summary.metric.scale]} with {level} intervals: t on paired values where runs "
                "share blocks, else Welch's. Median: of paired effects. Bootstrap: "
                "of blocks, shown for comparison; no verdict uses it. p Holm: adjusted over this "
                "table; verdicts and MDE use it, while intervals are not adjusted. Lag-1: "
                "autocorrelation of the values behind the interval."),
        Section("Against each other", cells.contrasts(summary, summary.pairwise),
                "The same between steered configurations; p Holm is adjusted at each replica "
                "count and path."),
        Section("Overlay over host network", cells.paths(summary)),
        Section("Checks of switchback", cells.checks(summary),
                _switchback(summary.switchback)),
        Section("Validity of runs", cells.validity(summary),
                f"{_dependence(summary.check)} Lag-1: autocorrelation of one configuration's runs, "
                "a description. Drift: Theil and Sen's slope over the run order; p is Kendall's, "
                "adjusted over this table. Blocks protect the comparison from drift that all configurations share."),
        Section("Invalid runs", cells.invalid(summary)),
    )  # fmt: skip


def _with_rows(*sections: Section) -> list[Section]:
    return [section for section in sections if section.table.rows]


def _script() -> dict[str, object]:
    """The script of the page, and its hash, which is the only one that the page may run."""
    text = Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": f"sha256-{digest}"}  # noqa: S704 (our own)


def _switchback(checks: SwitchbackChecks | None) -> str:
    """The results of the checks, and what the columns are."""
    if checks is None:
        return ""
    return (
        f"{' '.join(checks.sentences())} Windows after it: the metric in the windows that follow a "
        "configuration, relative to their mean over all configurations, by regression with "
        "effects of episode and configuration. Halves: ratio to the baseline in the first and "
        "the second half of the windows. Intervals are not adjusted (docs/statistics.md)."
    )


def _dependence(check: Check) -> str:
    """The result and the power of the test for dependence."""
    if check.p is None:
        return (
            f"Dependence between blocks cannot be tested here: {check.blocks} blocks, and "
            f"{FEWEST_BLOCKS} are needed."
        )
    return (
        f"Dependence between blocks, one test over the whole table at 5 %: lag-1 {check.lag1:.2f} "
        f"over {check.blocks} blocks and {check.columns} columns, p {p_value(check.p)}"
        f"{f' (found: a block is worth {check.worth:.2f} independent ones)' * check.found}. With few blocks "
        "it often misses even strong dependence (docs/statistics.md)."
    )


def comparison_table(summary: Summary) -> pd.DataFrame:
    """One row a comparison (baseline family, then pairwise), numbers unrounded."""
    rows = [
        {"metric": summary.metric.name, "family": family, **_flat(one)}
        for family, which in (("baseline", summary.contrasts), ("pairwise", summary.pairwise))
        for one in which
    ]
    return pd.DataFrame(rows)


def core_means(summary: Summary) -> pd.DataFrame:
    """One row a core of a state: mean and t interval half-width of soft and idle, percent."""
    by = ["path", "replicas", "configuration", "node", "core"]
    grouped = summary.cores.groupby(by)
    parts = [
        statistics.spread(grouped[metric], summary.confidence).add_prefix(f"{metric}_")
        for metric in ("soft", "idle")
    ]
    return pd.concat(parts, axis=1).reset_index()


def spreadsheet(table: pd.DataFrame) -> str:
    """CSV without formulas: text that starts like one gets an apostrophe."""
    return table.map(_no_formula).to_csv(index=False)


def _no_formula(value: object) -> object:
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value


def inlined(plot: figures.Plot) -> Markup:
    """The plot's SVG for a page with several: unique ids, a label for screen readers, and the
    configuration of each part with the texts of its points."""
    text = plot.svg.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\n +", "\n", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r' (?:d|x|y)="[^"]*"', _rounded, text)
    parts = re.split(r'<g id="(of-\d+)">', text)
    text = parts[0] + "".join(
        _marked(plot.marks[group], part)
        for group, part in zip(parts[1::2], parts[2::2], strict=True)
    )
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda m: _id(plot.name, m[1]) if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{plot.name}-", text)
    label = f'<svg role="img" aria-label="{Markup.escape(plot.title)}"'
    return Markup(text.replace("<svg", label, 1))  # noqa: S704 (written by matplotlib)


def _rounded(place: re.Match[str]) -> str:
    """A hundredth of a point is less than a pixel."""
    return re.sub(r"(\.\d\d)\d+", r"\1", place[0])


def _marked(mark: Mark, part: str) -> str:
    """A group of the SVG and what follows it; its points are the first ones of this part."""
    points = iter(mark.tips)

    def tipped(match: re.Match[str]) -> str:
        tip = next(points, None)
        return match[0] if tip is None else f'{match[0]} data-tip="{_attribute(tip)}"'

    return f'<g data-of="{_attribute(mark.name)}">{re.sub("<use", tipped, part)}'


def _attribute(text: str) -> str:
    return str(Markup.escape(one_line(text)))


def _id(plot: str, name: str) -> str:
    return f' id="{plot}-{name}"'


def _flat(one: Contrast) -> dict[str, object]:
    effect = one.effect
    check = effect.check or (None, None)
    return {
        "path": one.path,
        "replicas": one.replicas,
        "configuration": one.b,
        "against": one.a,
        "method": effect.method,
        "runs": effect.n_b,
        "runs_against": effect.n_a,
        effect.scale: effect.estimate,
        "low": effect.low,
        "high": effect.high,
        f"median_{effect.scale}": effect.median,
        "bootstrap_low": check[0],
        "bootstrap_high": check[1],
        "p": effect.p,
        "p_holm": one.p_holm,
        "mde": effect.mde,
        "lag1": effect.lag1,
        "verdict": one.verdict,
        "doubt": one.doubt,
    }


def _render(template: str, words: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.jinja"),
        finalize=grid.in_markdown if template.endswith(".md.jinja") else _visible,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(words)


def _visible(value: object) -> object:
    """Text without control characters; markup unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _reproducible(records: Sequence[Record]) -> str:
    seeds = sorted({record.seed for record in records if record.seed is not None})
    plans = sorted({record.plan for record in records if record.plan is not None})
    sources = sorted({record.source for record in records if record.source is not None})
    parts = [f"{len(records)} runs"]
    if seeds:
        parts.append(f"seed {', '.join(map(str, seeds))}")
    if plans:
        parts.append(f"plan {', '.join(plans)}")
    if sources:
        parts.append(f"imported from {', '.join(sources)}")
    return f"{'; '.join(parts)}. Figures in full precision: report.csv, comparisons.csv, cores.csv."
