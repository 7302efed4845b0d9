"""Raw text as the study's scripts wrote it, with numbers of one's own."""

from __future__ import annotations

import numpy as np

FIELDS = ("usr", "nice", "sys", "iowait", "irq", "soft", "steal", "guest", "gnice", "idle")


def write_text(bitrates: list[list[int]], cores: int, width: int = 5, seed: int = 0) -> str:
    """A file as the study's script wrote it: an experiment a row of `bitrates`."""
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    for number, row in enumerate(bitrates, 1):
        lines += [f"Running experiment {number}...", f"Experiment {number} completed."]
        lines += [str(value) for value in row]
    percent = rng.uniform(0, 50, (len(bitrates), cores, len(FIELDS))).round(2)
    heading = "Average:     CPU    " + "   ".join(f"%{name}" for name in FIELDS)
    for number, experiment in enumerate(percent):
        lines += [heading] * (number % 3 != 2)
        for name, row in zip(
            ["all", *range(cores)], [experiment.mean(0), *experiment], strict=True
        ):
            lines.append(f"Average:       {name}    " + "   ".join(f"{x:.2f}" for x in row))
        lines.append("")
    flat = [str(value) for row in bitrates for value in row]
    lines += ["", "Numbers grid:"]
    lines += [" ".join(flat[i : i + width]) for i in range(0, len(flat), width)]
    for core in range(cores):
        for name in ("idle", "soft", "sys", "usr"):
            lines.append(f"Core {core} {name}: ")
            lines += [f"{x:.2f}" for x in percent[:, core, FIELDS.index(name)]]
    return "\n".join(lines) + "\n"
