"""Reads files of a node, once or at both edges of a window; sent to nodes as it is.

Standard library only, Python 3.8. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterable, List  # noqa: UP035

EDGE = {"stat": "/proc/stat", "softirqs": "/proc/softirqs", "softnet": "/proc/net/softnet_stat"}


def read_files(patterns: Iterable[str], root: Path = Path("/")) -> Dict[str, str]:  # noqa: UP006
    """Each file by its path below `root`; a directory's text is the name of what it leads to.

    A file that cannot be read, or is gone by then, is left out.
    """
    found = {}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            name = f"/{path.relative_to(root)}"
            with suppress(OSError):
                found[name] = (
                    path.resolve().name if path.is_dir() else path.read_text(errors="replace")
                )
    return found


def edge() -> Dict[str, Any]:  # noqa: UP006
    """The counters of the kernel at this moment, and nothing else."""
    at = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    texts = {name: Path(path).read_text() for name, path in EDGE.items()}
    return {"at": at, "own_cpu": usage.ru_utime + usage.ru_stime, **texts}


def window(omit: float, duration: float) -> List[Dict[str, Any]]:  # noqa: UP006
    """Both edges of a window that begins `omit` seconds after a line on stdin."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        raise SystemExit("nobody said when to begin")
    start = time.monotonic()
    edges = []
    for moment in (start + omit, start + omit + duration):
        time.sleep(max(0.0, moment - time.monotonic()))
        edges.append(edge())
    return edges


def printed(words: List[str]) -> str:  # noqa: UP006
    """What a command prints; nothing where this node does not have it."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace")


def main(request: Dict[str, Any]) -> None:  # noqa: UP006
    if "window" in request:
        answer: Any = window(*request["window"])
    else:
        files = read_files(request["files"])
        said = {" ".join(words): printed(words) for words in request.get("commands", ())}
        answer = {"files": files, "commands": said}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
