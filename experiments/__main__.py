"""The command line, as the `steerlab` wrapper starts it: `python -I experiments/__main__.py`.

Isolated (-I), so that neither the current directory nor PYTHONPATH is searched for modules; this
project's folder is then the only one that is added.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from experiments.cli import main  # noqa: E402

main()
