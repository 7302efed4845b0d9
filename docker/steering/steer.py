"""The node agent for stacks of the first version, whose scripts name this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.cli import main

sys.exit(main())
