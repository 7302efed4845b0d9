"""The pods of processes, by their control groups (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.plan import POD_UID

# Where a kubelet keeps its pods: at the root, in a cgroup of its own, or in a container of Docker's.
# Users can create other cgroups, for example below user.slice, with the name of any pod.
_KUBELET = (
    r"(?:system\.slice|kubelet(?:\.slice)?|k3s|docker|docker-[0-9a-f]{64}\.scope|[0-9a-f]{64})"
)
_CLASS = r"(?:(?:[a-z0-9_]+-)*(?:kubepods|burstable|besteffort|guaranteed)(?:\.slice)?)"
MAX_HIERARCHIES = 1000  # a line each; there are some dozen controllers, and names that root gave
_POD_CGROUP = re.compile(
    # a view from within a cgroup namespace begins with .. and can lack what both have above them
    rf"/(?:(?:\.\./)*(?:{_KUBELET}/)*(?:[a-z0-9_]+-)*kubepods(?:\.slice)?/|(?:\.\./)+)"
    rf"(?:{_CLASS}/)*(?:(?:[a-z0-9_]+-)*)pod({POD_UID})(?:\.slice)?(/.*)?"
)
# CRI-O's monitor of a container, which is in the node's network namespace, and the container itself with crun.
_MONITOR = re.compile(r"/crio-conmon-")
_CRUN = re.compile(r"/crio-[0-9a-f]{64}(?:\.scope)?/container")


def pods_of(words: str) -> Iterator[tuple[str, bool]]:
    """The pods of a process by /proc/PID/cgroup, and whether it is in a container of a container."""
    for line in words.split("\n", MAX_HIERARCHIES)[:MAX_HIERARCHIES]:
        found = _POD_CGROUP.fullmatch(line.split(":", 2)[-1])
        if found and not _MONITOR.match(found[2] or ""):
            deep = (found[2] or "").count("/") > 1 and not _CRUN.fullmatch(found[2])
            yield found[1].replace("_", "-"), deep
