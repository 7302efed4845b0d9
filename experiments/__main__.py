"""The command line, as the `steerlab` wrapper starts it: `python -I experiments/__main__.py`.

Isolated (-I), so that neither the current directory nor PYTHONPATH is searched for modules; this
project's folder is then the only one that is added.
"""

import os
import signal
import sys
from pathlib import Path

# Ctrl-C before the command line is loaded: nothing has started, so there is nothing to undo.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

# For builds only. numpy cannot be imported if it is not a number, and figures have no date.
os.environ.pop("SOURCE_DATE_EPOCH", None)

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from experiments.cli import main  # noqa: E402

main()
