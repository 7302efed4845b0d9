"""The engine's page names every file that there is."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.engines import embedded

FOLDER = Path(embedded.__file__).parent


def test_the_page_names_every_file() -> None:
    page = (FOLDER / "README.md").read_text()
    files = sorted(FOLDER.glob("*.py"))
    named = re.findall(r"^\| `(\w+\.py)`", page, re.MULTILINE)
    assert sorted(named) == [path.name for path in files]
