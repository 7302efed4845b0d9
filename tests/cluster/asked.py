"""What the tests ask of this project on the test cluster: the settings of a stack, and `doctor`."""

from __future__ import annotations

from typing import Any

import images
from lab_project import Project
from rig.cluster import Cluster


def where(cluster: Cluster, *more: str) -> tuple[str, ...]:
    """The settings of a stack on this cluster."""
    return "target=kubernetes", images.KEY, f"kubernetes.kubeconfig={cluster.kubeconfig}", *more


def doctor(project: Project, cluster: Cluster, *more: str, code: int = 0) -> dict[str, Any]:
    """What `doctor --json` finds on this cluster."""
    target, *settings = where(cluster, *more)
    words = [word for one in settings for word in ("-c", one)]
    found: dict[str, Any] = project.run(
        "doctor", "--target", target.partition("=")[2], *words, "--json", code=code
    ).json
    return found
