"""The command line of the node agent: `python3 -I agent VERB`, without a steer.pyz."""

import os
import sys

if not __package__:  # run as a folder, which is then the first place to import from
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from agent.cli import main

sys.exit(main())
