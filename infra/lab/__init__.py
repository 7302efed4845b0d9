"""The lab target: two namespaces as nodes, a single-queue wire, an overlay, pods, steering."""

from __future__ import annotations

from pathlib import Path

import pulumi
from pulumi_command import local

from infra.config import State
from infra.lab import layout, measurement
from infra.lab.claim import Claim
from infra.lab.node import Node
from infra.lab.overlay import Overlay
from infra.lab.pods import PodPair
from infra.lab.steering import Steering
from infra.lab.wire import Wire
from infra.measured import MEASURE, describe, export_result


class Lab(pulumi.ComponentResource):
    """Everything that one state of the lab is, but its measurement."""

    def __init__(self, state: State) -> None:
        super().__init__("steerlab:lab:Lab", "lab", None)
        server, client = layout.nodes(state.stack)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

        claim = Claim(state.stack, boot, parent=self).command
        nodes = [Node(where, boot, claim, parent=self).command for where in (server, client)]
        node_ids = [node.id for node in nodes]
        wire = Wire(server, client, node_ids, parent=self).command
        carriers: list[pulumi.CustomResource] = [wire]
        if state.path == "overlay":
            carriers.append(Overlay(server, client, [wire.id], parent=self).command)
        pairs = [
            PodPair(
                layout.pair(state.stack, index, host=state.path == "host"),
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
            for node in measurement.steered_nodes(state)
        ]
        self.ready: list[pulumi.Resource] = [
            *carriers,
            *(pair.server for pair in pairs),
            *steering,
        ]
        self.register_outputs({})


def declare(state: State) -> None:
    """Declare the lab, its measurement where `runs` asks for one, and the stack's outputs."""
    lab = Lab(state)
    for name, value in describe(state).items():
        pulumi.export(name, value)
    if state.runs == 0:
        return
    measured = local.Command(
        "measurement",
        create=MEASURE,
        stdin=measurement.of(state).to_stdin(),
        triggers=[state.digest()],
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(depends_on=lab.ready, delete_before_replace=True),
    )
    export_result(measured.stdout)
