"""Switchback against isolated runs on a cluster: which is faster, and do their ratios agree?

    .venv/bin/python -m benchmarks.cluster -c kubernetes.images=... > benchmarks/cluster.json

Words after it are options of `sweep` that select the cluster. The figures are those of `benchmarks.methods`:
`speed` is how many times longer isolated runs need for the same half-width. The wall time of each method
is that of its whole command, with set-up and report. About ten minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine, methods, show

PAIRS = 4
CONFIGURATIONS = methods.CONFIGURATIONS[methods.ALL]
METHODS = {
    "switchback": ("--method", "switchback", "--runs", "30"),
    "isolated": ("--method", "isolated", "--runs", "10", "--duration", "2", "--omit", "1"),
}


def main(where: list[str]) -> None:
    """Measure and print the figures."""
    with TemporaryDirectory(prefix="steerlab-") as folder:
        words = ("--target", "kubernetes", "--configurations", CONFIGURATIONS, *where)
        found = methods.measured(Path(folder), PAIRS, METHODS, 1, words)
    figures = methods.compared(found, methods.concluded(found))
    show({"machine": machine(), "pairs": PAIRS, **figures})


if __name__ == "__main__":
    main(sys.argv[1:])
