"""The engine's page says what there is: every file, and how many lines they are."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.engines import embedded

FOLDER = Path(embedded.__file__).parent


def test_the_page_names_every_file_and_their_lines() -> None:
    page = (FOLDER / "README.md").read_text()
    files = sorted(FOLDER.glob("*.py"))
    named = re.findall(r"^\| `(\w+\.py)`", page, re.MULTILINE)
    assert sorted(named) == [path.name for path in files]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert f"\n{lines} lines of Python" in page
