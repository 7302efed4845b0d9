"""Re-analysis of the published study: its raw text against its tables, and its conclusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from analysis.load import Fault, Loaded
from analysis.report import grid
from analysis.report.cells import text_table
from analysis.report.grid import Column
from analysis.study.check import Checked, Raw, Status, check
from analysis.study.importer import import_study, write_records
from analysis.study.tables import key, read_tables
from analysis.summary import Summary, summarise

__all__ = ["Reanalysis", "import_study", "reanalyse", "write_records"]


@dataclass(frozen=True)
class Reanalysis:
    """Every published cell with its status, and the conclusions from the runs."""

    loaded: Loaded
    cells: list[Checked]
    faults: list[Fault]
    summary: Summary

    def counts(self) -> dict[str, int]:
        """How many cells have each status."""
        return dict(Counter(one.status for one in self.cells))

    def text(self) -> str:
        """The whole re-analysis as plain text."""
        parts = [_counts(self.cells)]
        for table in dict.fromkeys(one.cell.table for one in self.cells):
            wrong = [
                one
                for one in self.cells
                if one.cell.table == table and one.status in ("other computation", "not reproduced")
            ]
            if wrong:
                parts.append(f"{table}: published, corrected and why\n{_wrong(wrong)}")
        parts.append("Conclusions from the runs:\n" + "\n".join(self.summary.verdict))
        parts.append(text_table(self.summary))
        for heading, lines in (
            ("Warnings:", self.summary.warnings),
            ("Files left out:", [str(fault) for fault in self.faults]),
        ):
            if lines:
                parts.append("\n".join([heading, *lines]))
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return {
            "counts": self.counts(),
            "cells": [
                {**asdict(one.cell), "status": one.status, "corrected": one.sound, "why": one.why}
                for one in self.cells
            ],
            "faults": [str(fault) for fault in self.faults],
            "summary": self.summary.to_json(),
        }


def reanalyse(directory: Path, *, baseline: str = "baseline") -> Reanalysis:
    """Check every published table in `directory` against the raw text that is there.

    Works with any subset of the files. Raises OSError where `directory` cannot be read.
    """
    loaded = import_study(directory)
    published, faults = read_tables(directory)
    faults = [*loaded.faults, *faults, *_ambiguous(loaded)]
    return Reanalysis(
        loaded=loaded,
        cells=check(published, Raw(loaded.records, baseline)),
        faults=faults,
        summary=summarise(loaded.records, baseline=baseline),
    )


def _ambiguous(loaded: Loaded) -> list[Fault]:
    """Files whose configurations differ only in spelling, so that labels are ambiguous."""
    spelled: dict[tuple[str, ...], str] = {}
    faults: dict[Path, Fault] = {}
    for record, path in zip(loaded.records, loaded.paths, strict=True):
        first = spelled.setdefault(key(record.configuration), record.configuration)
        if first != record.configuration:
            faults[path] = Fault(
                path, None, f"is another spelling of {first}; both are counted together"
            )
    return list(faults.values())


def _counts(checked: Sequence[Checked]) -> str:
    tables = dict.fromkeys(one.cell.table for one in checked)

    def statuses(name: str) -> list[Status]:
        return [one.status for one in checked if name in (one.cell.table, "all")]

    return grid.aligned(
        grid.table(
            [*tables, "all"],
            Column("table", str, numeric=False),
            Column("cells", lambda name: str(len(statuses(name)))),
            *(
                Column(status, lambda name, s=status: str(statuses(name).count(s)))  # type: ignore[misc]
                for status in get_args(Status)
            ),
        )
    )


def _wrong(wrong: Sequence[Checked]) -> str:
    def subject(one: Checked) -> str:
        core = "" if one.cell.core is None else f", core {one.cell.core}"
        return f"{one.cell.field}{core}"

    def factor(one: Checked) -> str:
        if one.sound is None or not one.cell.value:
            return grid.DASH
        return grid.fixed(one.sound / one.cell.value, 2)

    return grid.aligned(
        grid.table(
            wrong,
            Column("configuration", lambda one: one.cell.label, numeric=False),
            Column("replicas", lambda one: str(one.cell.replicas)),
            Column("value of", subject, numeric=False),
            Column("published", lambda one: one.cell.text),
            Column("corrected", lambda one: grid.fixed(one.sound, 4)),
            Column("factor", factor),
            Column("why", lambda one: one.why, numeric=False),
        )
    )
