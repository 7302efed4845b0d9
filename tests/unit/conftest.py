"""What tests of this tier share."""

from __future__ import annotations

import io
from pathlib import Path

import pytest


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn once, as SVG, for tests that open no PNG and no PDF: these take longest."""
    from analysis import files
    from analysis.plots import figures, style

    def save(made: style.Drawing, directory: Path, name: str, _book: object) -> list[Path]:
        svg = io.BytesIO()
        made.savefig(svg, format="svg", **style._FORMATS["svg"])
        contents = {"svg": svg.getvalue(), "png": b""}
        return [files.write(directory / f"{name}.{kind}", data) for kind, data in contents.items()]

    monkeypatch.setattr(figures, "save", save)
