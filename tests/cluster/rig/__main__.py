"""The test cluster by hand: python -m rig up | down | kubectl ... | exec NODE ... | load TAR ..."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rig import cluster
from rig.command import RigError
from rig.layout import nodes


def main(words: list[str]) -> int:
    verb, rest = (words[0], words[1:]) if words else ("", [])
    if verb == "up":
        made = cluster.up(int(rest[0]) if rest else 3)
        print(f"export KUBECONFIG={made.kubeconfig}")  # noqa: T201
    elif verb == "down":
        cluster.down()
    elif verb in ("exec", "load", "kubectl"):
        there = cluster.Cluster(nodes(3))
        if verb == "exec":
            with there.nodes[rest[0]].popen(*rest[1:]) as process:
                process.wait()
            return process.returncode
        if verb == "kubectl":
            command: list[str | Path] = [
                there.binaries / "kubectl",
                "--kubeconfig",
                there.kubeconfig,
                *rest,
            ]
            return subprocess.run(command, check=False).returncode
        there.load(*map(Path, rest))
    else:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RigError as error:
        sys.exit(f"cluster: {error}")
