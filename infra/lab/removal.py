"""The removal of a whole lab by its names alone, for where its stack's state is out of reach (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from infra.lab import claim, layout
from infra.lab.pods import remove_pods, stop_server
from infra.lab.script import delete_script, remove_link, remove_namespace


def script(stack: str, pairs: Iterable[int]) -> str:
    """Takes away what `stack` and these pairs of it may have made; what is gone is passed over.

    Steering is not part of it: the agent restores that first.
    """
    nodes = layout.nodes(stack)
    both = [layout.pair(stack, index, host=False) for index in pairs]
    return delete_script(
        [
            *(line for pair in both for line in stop_server(pair)),
            *(line for pair in both for line in remove_pods(pair)),
            *(remove_link(node.namespace, name) for node in nodes for name in _DEVICES),
            *(remove_namespace(node.namespace) for node in nodes),
            *claim.release(),
            claim.remove_folders(stack),
        ]
    )


_DEVICES = (layout.OVERLAY, layout.WIRE)
