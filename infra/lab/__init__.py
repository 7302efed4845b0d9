"""The lab target: two namespaces as nodes, a single-queue wire, an overlay, pods, steering."""

from __future__ import annotations

from pathlib import Path

import pulumi

from infra import measured
from infra.lab import layout, measurement, plan
from infra.lab.claim import Claim
from infra.lab.node import Node
from infra.lab.overlay import Overlay
from infra.lab.pods import PodPair
from infra.lab.steering import Steering
from infra.lab.wire import Wire
from infra.settings import StackSettings


class Lab(pulumi.ComponentResource):
    """Everything that one state of the lab is, but its measurement."""

    def __init__(self, state: StackSettings) -> None:
        super().__init__("steerlab:lab:Lab", "lab", None)
        server, client = layout.nodes(state.stack)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

        claim = Claim(state.stack, boot, parent=self).command
        nodes = [Node(where, boot, claim, parent=self).command for where in (server, client)]
        node_ids = [node.id for node in nodes]
        wire = Wire(server, client, node_ids, parent=self).command
        carriers: list[pulumi.CustomResource] = [wire]
        if state.lab.path == "overlay":
            carriers.append(Overlay(server, client, [wire.id], parent=self).command)
        pairs = [
            PodPair(
                layout.pair(state.stack, index, host=state.lab.path == "host"),
                cores=state.cores.server,
                limit=state.pod_cpu_limit,
                stands_on=node_ids,
                parent=self,
            )
            for index in range(1, state.replicas + 1)
        ]
        carriers += [pair.pods for pair in pairs if pair.pods is not None]
        steering = [
            Steering(state, node, boot_id=boot, carriers=carriers, parent=self).command
            for node in plan.steered_nodes(state)
        ]
        self.ready: list[pulumi.Resource] = [
            *carriers,
            *(pair.server for pair in pairs),
            *steering,
        ]
        self.register_outputs({})


def declare(state: StackSettings) -> None:
    """Declare the lab, its measurement where `runs` asks for one, and the stack's outputs."""
    lab = Lab(state)
    measured.declare(state, lambda: measurement.of(state).to_stdin(), stands_on=lab.ready)
