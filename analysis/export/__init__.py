"""Formats of results for other programs: a format is one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.export.bencher import BENCHER
from analysis.export.benchstat import BENCHSTAT
from analysis.export.contract import Export
from analysis.export.github import GITHUB
from analysis.export.junit import JUNIT
from analysis.export.openmetrics import OPENMETRICS

EXPORTS: Mapping[str, Export] = {
    one.name: one for one in (BENCHSTAT, BENCHER, GITHUB, JUNIT, OPENMETRICS)
}
