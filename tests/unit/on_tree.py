"""Runs an agent, its package or its archive, on a tree: on_tree.py AGENT ROOT VERB [OPTIONS]; a program."""

import sys
from pathlib import Path

agent, root, *words = sys.argv[1:]
sys.argv = [agent, *words]
sys.path.insert(0, agent if Path(agent).is_file() else str(Path(agent).parent))

from imitation import on  # noqa: E402

from agent import rollout, watchdog  # noqa: E402
from agent.cli import main  # noqa: E402

rollout.NAP = watchdog.WATCH_NAP = 0.2  # seconds: a test waits for what is seen after one
sys.exit(main(words, on(Path(root))))
