"""Parses the raw text of one file of the study: experiments, mpstat averages, and both again.

A file has everything twice: bitrates after each experiment and as a grid, CPU as mpstat averages
and as lists. The two must agree, so a file that was cut, reordered or edited is detected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# mpstat's columns and the record's fields; others (%guest, %gnice) are parts of these.
FIELDS = {
    "%usr": "usr",
    "%nice": "nice",
    "%sys": "sys",
    "%iowait": "iowait",
    "%irq": "irq",
    "%soft": "soft",
    "%steal": "steal",
    "%idle": "idle",
}
_STARTED = re.compile(r"Running experiment ([0-9]{1,9})\.\.\.")
_COMPLETED = re.compile(r"Experiment ([0-9]{1,9}) completed\.")
_LIST = re.compile(r"Core ([0-9]{1,9}) (\w+):")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


class Damaged(Exception):
    """The text does not have the format of such a file, from this line on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Experiment:
    """One run: Mbit/s of each pair, and for each core percent by the record's field names."""

    bitrates: list[float] = field(default_factory=list)
    cores: dict[int, dict[str, float]] = field(default_factory=dict)


class _Lines:
    """The lines that are not blank, with their numbers, and a look-ahead of one line."""

    def __init__(self, text: str) -> None:
        lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
        self._lines = [(i, line) for i, line in lines if line]
        self._at = 0
        self.last = len(lines)

    def peek(self) -> str:
        return self._lines[self._at][1] if self._at < len(self._lines) else ""

    @property
    def number(self) -> int:
        return self._lines[self._at][0] if self._at < len(self._lines) else self.last

    def take(self) -> str:
        line = self.peek()
        self._at += 1
        return line

    def expected(self, what: str) -> Damaged:
        if not self.peek():
            return Damaged(self.last, f"ends before {what}: truncated")
        return Damaged(self.number, f"{self.peek()[:60]!r} instead of {what}")


def parse(text: str, replicas: int) -> list[Experiment]:
    """The experiments of a file with `replicas` pairs.

    Raises Damaged with the first unexpected line.
    """
    lines = _Lines(text)
    experiments = list(_experiments(lines, replicas))
    _averages(lines, experiments)
    _grid(lines, experiments)
    _lists(lines, experiments)
    if lines.peek():
        raise lines.expected("the end of the file")
    return experiments


def _experiments(lines: _Lines, replicas: int) -> Iterator[Experiment]:
    number = 0
    while number == 0 or _STARTED.fullmatch(lines.peek()):
        number += 1
        for pattern, word in ((_STARTED, "start"), (_COMPLETED, "completion")):
            match = pattern.fullmatch(lines.peek())
            if not match or int(match[1]) != number:
                raise lines.expected(f"the {word} of experiment {number}")
            lines.take()
        experiment = Experiment()
        for pair in range(1, replicas + 1):
            what = f"the bitrate of pair {pair} of {replicas} in experiment {number}"
            experiment.bitrates.append(_number(lines, what))
        yield experiment


def _averages(lines: _Lines, experiments: list[Experiment]) -> None:
    columns: list[str] = []
    expected: list[int] = []
    for number, experiment in enumerate(experiments, 1):
        where = f"the CPU averages of experiment {number}"
        heading = lines.peek().split()
        if heading[:2] == ["Average:", "CPU"] or not columns:
            columns = heading[2:]
            if heading[:2] != ["Average:", "CPU"] or not {"%soft", "%idle"} <= set(columns):
                raise lines.expected(f"a heading with %soft and %idle for {where}")
            lines.take()
        if lines.peek().split()[:2] != ["Average:", "all"]:
            raise lines.expected(where)
        lines.take()
        while re.match(r"Average:\s+\d", lines.peek()):
            row = lines.peek().split()
            if not re.fullmatch("[0-9]{1,9}", row[1]) or not _percentages(row[2:], len(columns)):
                raise lines.expected(f"{len(columns)} percentages in {where}")
            if int(row[1]) in experiment.cores:
                raise lines.expected(f"another core than {row[1]} again in {where}")
            experiment.cores[int(row[1])] = {
                FIELDS[name]: float(value)
                for name, value in zip(columns, row[2:], strict=True)
                if name in FIELDS
            }
            lines.take()
        expected = expected or list(experiment.cores)
        if not expected or list(experiment.cores) != expected:
            raise lines.expected(f"cores {', '.join(map(str, expected)) or '0, ...'} in {where}")


def _grid(lines: _Lines, experiments: list[Experiment]) -> None:
    """Every bitrate again, in the order of the experiments, in rows of any width."""
    if lines.peek() != "Numbers grid:":
        raise lines.expected("the numbers grid")
    lines.take()
    wanted = [
        (value, f"pair {pair} in experiment {number}")
        for number, experiment in enumerate(experiments, 1)
        for pair, value in enumerate(experiment.bitrates, 1)
    ]
    read = 0
    while read < len(wanted):
        row = lines.peek().split()
        if not row or not all(_NUMBER.fullmatch(value) for value in row):
            raise lines.expected(f"the grid's bitrate of {wanted[read][1]}")
        if len(row) > len(wanted) - read:
            raise Damaged(lines.number, "the grid has more bitrates than the experiments")
        for text, (value, where) in zip(row, wanted[read:], strict=False):
            if float(text) != value:
                raise Damaged(
                    lines.number,
                    f"the grid has {text} for {where}, the experiment itself {value:g}",
                )
        read += len(row)
        lines.take()


def _lists(lines: _Lines, experiments: list[Experiment]) -> None:
    seen: dict[int, list[str]] = {}
    while match := _LIST.fullmatch(lines.peek()):
        core, name = int(match[1]), match[2]
        values = [one.cores.get(core, {}).get(name) for one in experiments]
        if None in values or name in seen.get(core, ()):
            raise lines.expected("a list of a core and field that the averages have, once")
        seen.setdefault(core, []).append(name)
        lines.take()
        for number, value in enumerate(values, 1):
            what = f"{name} of core {core} in experiment {number}"
            at = lines.number
            listed = _number(lines, what)
            if listed != value:
                raise Damaged(at, f"the list has {listed:g} for {what}, the averages {value:g}")
    fields = next(iter(seen.values()), [])
    for core in experiments[0].cores:
        if missing := [name for name in fields or ["idle"] if name not in seen.get(core, ())]:
            raise lines.expected(f"the list of {missing[0]} of core {core}")


def _number(lines: _Lines, what: str) -> float:
    if not _NUMBER.fullmatch(lines.peek()):
        raise lines.expected(what)
    return float(lines.take())


def _percentages(values: list[str], count: int) -> bool:
    return len(values) == count and all(
        _NUMBER.fullmatch(value) and float(value) <= 100.5 for value in values
    )
