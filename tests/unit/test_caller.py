"""What the caller's environment and streams may not change: figures, results, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic import sweep
from experiments.run import records

ROOT = Path(__file__).resolve().parents[2]
RC = b"axes.facecolor: red\nlines.linewidth: \xff\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results, in a folder that has a matplotlibrc of its own."""
    made = tmp_path_factory.mktemp("caller")
    for index, record in enumerate(sweep({"baseline": 1.0, "rps": 1.2}, replicas=(1,))):
        records.write(made / "results", f"{index:03d}", record, [])
    (made / "rc").mkdir()
    (made / "rc/matplotlibrc").write_bytes(RC)
    return made


def run(
    folder: Path, shell: str, words: str = "report ../results", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a shell, where `steerlab` is the program."""
    start = f"{sys.executable} -I {ROOT}/experiments/__main__.py {words}"
    return subprocess.run(
        ["bash", "-c", f"steerlab() {{ {start}; }}; {shell}"],
        cwd=folder / "rc", env={**os.environ, **variables}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "results").rglob("*.svg")}


def test_no_variable_changes_a_figure_or_ends_a_report(folder: Path) -> None:
    (folder / "rc/matplotlibrc").rename(folder / "aside")
    plain = run(folder, "steerlab")
    (folder / "aside").rename(folder / "rc/matplotlibrc")
    first = figures(folder)
    assert first, plain.stderr
    hostile = run(
        folder, "steerlab", MPLBACKEND="module://matplotlib_inline.backend_inline",
        MATPLOTLIBRC=str(folder / "rc"), MPLCONFIGDIR="/proc/none", HOME="/proc/none",
        XDG_CACHE_HOME="/proc/none", SOURCE_DATE_EPOCH="abc", PILLOW_ALIGNMENT="3", TZ="no/where",
        LC_NUMERIC="de_DE.UTF-8", TERM="dumb", NO_COLOR="1",
    )  # fmt: skip
    assert (hostile.returncode, hostile.stdout) == (0, plain.stdout), hostile.stderr
    assert hostile.stderr == plain.stderr
    assert figures(folder) == first


def test_nothing_else_loads_matplotlib() -> None:
    loading = re.compile(r"^\s*(import|from) matplotlib", re.MULTILINE)
    found = {
        path.name
        for part in ("analysis", "experiments", "infra")
        for path in (ROOT / part).rglob("*.py")
        if loading.search(path.read_text())
    }
    assert found == {"library.py"}


@pytest.fixture(scope="module")
def plain(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "steerlab", "sweep --plan --seed 1")


@pytest.mark.parametrize("size", ["abc", "²", "0", "-5", "", "9" * 5000])
def test_a_size_that_no_terminal_has_is_none(
    folder: Path, plain: subprocess.CompletedProcess[str], size: str
) -> None:
    odd = run(folder, "steerlab", "sweep --plan --seed 1", COLUMNS=size, LINES=size)
    assert (odd.returncode, odd.stdout) == (plain.returncode, plain.stdout), odd.stderr


def test_a_forced_colour_breaks_no_line_of_a_pipe() -> None:
    code = "from experiments.cli.terminal import drawn, say; say('word ' * 60); raise SystemExit(drawn())"
    for variables in ({"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.count("\n") == 1
        assert done.returncode == 0, "redrawn in a log"


@pytest.mark.parametrize("words", ["--version", "report ../results", "--help"])
def test_output_that_cannot_be_written_is_a_failure_with_a_reason(folder: Path, words: str) -> None:
    done = run(folder, "steerlab >/dev/full", words)
    assert done.returncode == 1
    assert "standard output: No space left" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["--version", "report ../results", "--help"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(folder: Path, words: str) -> None:
    # the reader ends before the first word
    done = run(folder, "{ sleep 0.3; steerlab; echo $? >code; } | true", words)
    assert (folder / "rc/code").read_text() == "141\n"
    assert "Exception" not in done.stderr
    assert "Broken pipe" not in done.stderr
