"""A DaemonSet that keeps steering on every node of a cluster."""

from __future__ import annotations

import base64
import hashlib
import json
from textwrap import indent
from typing import Any

from agent.archive import archive
from experiments.host.persist import template

NAME = "steerlab-steering"


def manifest(plan: dict[str, Any], configuration: str, image: str) -> str:
    """YAML for `kubectl apply -f -`; deleting it restores every node."""
    document = json.dumps(plan, indent=1)
    words = {
        "name": NAME,
        "configuration": configuration,
        "owner": plan["owner"],
        "plan": indent(document, " " * 4),
        "archive": base64.b64encode(archive()).decode(),
        "digest": hashlib.sha256(document.encode() + archive()).hexdigest()[:16],
        "image": json.dumps(image),
    }
    return template("daemonset.yaml", words).decode()
