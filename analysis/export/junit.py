"""JUnit XML: a test case for each limit, or for each comparison where there is no limit (pure)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import tradeoff, verdict
from analysis.export.contract import Export, NothingToExport
from analysis.plaintext import one_line
from analysis.schema import Record
from analysis.summary import Summary

OUTCOMES = {
    "worse": "failure",
    "exceeded": "failure",
    "inconclusive": "skipped",
}


@dataclass(frozen=True)
class Case:
    """One test case: `answer` is a verdict or a standing, `why` what was measured."""

    place: tuple[str, int]
    name: str
    answer: str
    why: str


def cases(summary: Summary) -> list[Case]:
    """As `compare` decides: with limits, they alone; else the comparisons with the baseline."""
    if summary.tradeoff.limits:
        return [
            Case(
                (row.path, row.replicas),
                f"{row.configuration}: limit {one.limit}",
                one.standing,
                f"{one.limit.metric.title}: {tradeoff.stated(one)}",
            )
            for row in summary.tradeoff.rows
            if row.configuration != summary.baseline
            for one in row.limits
        ]
    return [
        Case(
            (one.path, one.replicas),
            f"{one.b} against {one.a}: {summary.metric.title}",
            one.verdict,
            "; ".join(filter(None, (verdict.change(one.effect, summary.metric), one.doubt))),
        )
        for one in summary.contrasts
    ]


def text(records: Sequence[Record], summary: Summary) -> str:
    """One suite; worse and exceeded are failures, inconclusive is skipped, the rest passes."""
    del records
    found = cases(summary)
    if not found:
        raise NothingToExport(
            f"nothing is compared with {summary.baseline}: choose another one with --baseline"
        )
    outcomes = [OUTCOMES.get(one.answer, "") for one in found]
    counts = {
        "tests": str(len(found)),
        "failures": str(outcomes.count("failure")),
        "skipped": str(outcomes.count("skipped")),
        "errors": "0",
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": "steerlab", **counts})
    for one, outcome in zip(found, outcomes, strict=True):
        path, replicas = one.place
        named = {"classname": f"steerlab.{path}.{replicas}", "name": _legal(one.name), "time": "0"}
        case = ET.SubElement(suite, "testcase", named)
        if outcome:
            ET.SubElement(case, outcome, {"message": _legal(f"{one.answer}: {one.why}")})
        else:
            ET.SubElement(case, "system-out").text = _legal(f"{one.answer}: {one.why}")
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _legal(words: str) -> str:
    """Text without characters that XML cannot have."""
    return re.sub("[\ufffe\uffff]", "\ufffd", one_line(words))


JUNIT = Export("junit", "test reports of CI servers", text)
