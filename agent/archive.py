"""The agent as one file, with the same bytes on every machine: `python3 agent/archive.py steer.pyz`."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from functools import lru_cache

NAME = "steer.pyz"
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MAIN = "import sys\n\nfrom agent.cli import main\n\nsys.exit(main())\n"


@lru_cache(maxsize=None)
def archive() -> bytes:
    """A zipapp (PEP 441) of this package; it is not compressed, because compressors differ."""
    sources = {"__main__.py": _MAIN.encode()}
    for name in sorted(os.listdir(_FOLDER)):
        if name.endswith(".py") and name != "__main__.py":
            with open(os.path.join(_FOLDER, name), "rb") as file:
                sources[f"agent/{name}"] = file.read()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as app:
        for name, source in sources.items():
            entry = zipfile.ZipInfo(name)  # of 1980, as if never changed
            entry.create_system = 3  # Unix
            entry.external_attr = 0o644 << 16
            app.writestr(entry, source)
    return made.getvalue()


@lru_cache(maxsize=None)
def digest() -> str:
    """SHA-256 of the archive, in hexadecimal."""
    return hashlib.sha256(archive()).hexdigest()


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as out:
        out.write(archive())
