"""Imports the study's raw text files as run records, and writes these."""

from __future__ import annotations

import json
from pathlib import Path

from analysis import files
from analysis.load import Fault, Loaded, leads_out, text_of
from analysis.metrics import described
from analysis.schema import Core, Pair, Record
from analysis.study.text import Damaged, Experiment, parse

DURATION = 30.0


def import_study(directory: Path, *, duration: float = DURATION) -> Loaded:
    """The runs of every `<configuration>-<replicas>.txt` directly under `directory`.

    The text has neither start nor duration of a run: `order` is the position in its file, block
    and start are null, and `duration` (s) is that of the study's protocol by default. A file that
    is truncated, reordered, damaged or a link out of `directory` is a fault, with its line where
    it has one, and gives no runs; files that do not end in .txt are ignored.
    Raises OSError where `directory` is not a readable directory.
    """
    loaded = Loaded()
    for path in sorted(path for path in directory.iterdir() if path.suffix == ".txt"):
        outside = leads_out(path, directory)
        if outside:
            loaded.faults.append(outside)
            continue
        configuration, dash, replicas = path.stem.rpartition("-")
        if not dash or not configuration or not _count(replicas):
            message = "is not named <configuration>-<replicas>.txt"
            loaded.faults.append(Fault(path, None, message))
            continue
        experiments = _experiments(path, int(replicas))
        if isinstance(experiments, Fault):
            loaded.faults.append(experiments)
            continue
        for order, experiment in enumerate(experiments):
            loaded.records.append(_record(experiment, configuration, order, path, duration))
            loaded.paths.append(path)
    return loaded


def write_records(loaded: Loaded, out: Path) -> list[Path]:
    """Write each record to `out`/records/run-NNNN.json and return the paths.

    Each file is written atomically. Raises FileExistsError where `out` is not empty, so that
    records of two imports never mix.
    """
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: choose a new directory")
    folder = out / "records"
    files.folder(folder)
    written = []
    for number, record in enumerate(loaded.records, 1):
        path = folder / f"run-{number:04}.json"
        text = json.dumps(record.model_dump(mode="json"), indent=1)
        written.append(files.write(path, text + "\n"))
    return written


def _experiments(path: Path, replicas: int) -> list[Experiment] | Fault:
    data = text_of(path)
    if isinstance(data, Fault):
        return data
    try:
        return parse(data.decode("utf-8"), replicas)
    except Damaged as damage:
        return Fault(path, damage.line, str(damage))


def _record(
    experiment: Experiment, configuration: str, order: int, path: Path, duration: float
) -> Record:
    return Record(
        target="published",
        configuration=configuration,
        replicas=len(experiment.bitrates),
        valid=True,
        metrics=described(["bitrate_mbps"]),
        pairs=[
            Pair(index=index, values={"bitrate_mbps": bitrate})
            for index, bitrate in enumerate(experiment.bitrates, 1)
        ],
        cores=[
            Core.model_validate({"node": "server", "core": core, **fields})
            for core, fields in experiment.cores.items()
        ],
        order=order,
        duration=duration,
        source=path.name,
    )


def _count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) >= 1
