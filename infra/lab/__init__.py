"""The lab target: two namespaces as nodes, a wire, an overlay, pods, steering."""

from __future__ import annotations

from pathlib import Path

import pulumi

from infra import measured
from infra.lab import claim, layout, measurement, node, overlay, plan, steering, wire
from infra.lab.pods import PodPair
from infra.settings import StackSettings


class Lab(pulumi.ComponentResource):
    """All resources of a lab's stack except its measurement."""

    def __init__(self, state: StackSettings) -> None:
        super().__init__("steerlab:lab:Lab", "lab", None)
        server, client = layout.nodes(state.stack)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

        claimed = claim.declare(state.stack, boot, parent=self)
        nodes = [node.declare(where, boot, claimed, parent=self).id for where in (server, client)]
        form, queues = state.lab.form, state.lab.queues
        carriers = [wire.declare(server, client, nodes, form, queues, parent=self)]
        if state.lab.path == "overlay":
            below = [carriers[0].id]
            carriers.append(overlay.declare(server, client, below, form, parent=self))
        pairs = [
            PodPair(
                layout.pair(state.stack, index, host=state.lab.path == "host"),
                kind,
                cores=state.cores.server,
                limit=state.pod_cpu_limit,
                stands_on=nodes,
                parent=self,
            )
            for index, kind in state.pairs.items()
        ]
        carriers += [pair.pods for pair in pairs if pair.pods is not None]
        steered = [
            steering.declare(state, where, boot_id=boot, carriers=carriers, parent=self)
            for where in plan.steered_nodes(state)
        ]
        self.ready: list[pulumi.Resource] = [
            *carriers,
            *(pair.server for pair in pairs),
            *steered,
        ]
        self.register_outputs({})


def declare(state: StackSettings) -> None:
    """Declare the lab, its measurement unless `runs` is 0, and the stack's outputs."""
    lab = Lab(state)
    measured.declare(state, lambda: measurement.of(state).to_stdin(), stands_on=lab.ready)
