"""What is left of a lab after an engine destroyed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.engines import StackRef
from experiments.targets.lab import standing
from infra.lab import layout


@pytest.mark.parametrize(
    "left", [None, "server", "client", "iperf-server-3", "iperf-client-16", "of another"]
)
def test_what_an_interrupted_engine_did_not_record_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str | None
) -> None:
    taken: list[standing.Lab] = []
    monkeypatch.setattr(layout, "NETNS", str(tmp_path))
    monkeypatch.setattr(standing, "take_away", taken.append)
    if left == "of another":
        (tmp_path / "steerlab-another-server").touch()
    elif left:
        (tmp_path / f"steerlab-mine-{left}").touch()
    standing.finish(StackRef(tmp_path, tmp_path, "mine"))
    expected = [] if left in (None, "of another") else [standing.Lab("mine", str(tmp_path))]
    assert taken == expected
