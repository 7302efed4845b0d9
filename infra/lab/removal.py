"""The removal of a whole lab by its names alone, for where its stack's state is out of reach (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from infra.lab import claim, layout, quota
from infra.lab.layout import Pair
from infra.lab.pods import remove_pods, stop_server
from infra.lab.script import delete_script, remove_link, remove_namespace


def script(stack: str, pairs: Sequence[Pair]) -> str:
    """Remove all parts of `stack` with these pairs; missing parts are skipped.

    Steering is not included: the agent restores it first.
    """
    nodes = layout.nodes(stack)
    devices = (layout.OVERLAY, layout.WIRE)
    return delete_script(
        [
            *(line for pair in pairs for line in stop_server(pair)),
            *(line for pair in pairs for line in remove_pods(pair)),
            *(remove_link(node.namespace, device) for node in nodes for device in devices),
            *(remove_namespace(node.namespace) for node in nodes),
            *quota.remove_folders(stack),
            *claim.release(),
            claim.remove_folders(stack),
        ]
    )
