"""A node of the lab: a network namespace that forwards, as a Kubernetes node does."""

from __future__ import annotations

import pulumi

from infra.lab.layout import Node as Where
from infra.lab.script import create_script, delete_script, lab_command, remove_namespace, settings

# Proxy ARP answers for 169.254.1.1 at once instead of after a random delay, as Calico sets it.
_SETTINGS = {
    "net/ipv4/conf/*/forwarding": 1,
    "net/ipv4/conf/*/proxy_arp": 1,
    "net/ipv4/neigh/default/proxy_delay": 0,
}


class Node(pulumi.ComponentResource):
    """One namespace with its forwarding settings; the wire gives it its device."""

    def __init__(
        self, where: Where, boot_id: str, claim: pulumi.Resource, *, parent: pulumi.Resource
    ) -> None:
        super().__init__(
            "steerlab:lab:Node", where.side, None, pulumi.ResourceOptions(parent=parent)
        )
        undo = [remove_namespace(where.namespace)]
        self.command = lab_command(
            f"{where.side}-namespace",
            create=create_script(
                [
                    f"ip netns add {where.namespace}",
                    f"ip -n {where.namespace} link set lo up",
                    settings(where.namespace, _SETTINGS),
                ],
                undo,
                {"namespaces": {where.namespace: ["lo"]}},
            ),
            delete=delete_script(undo),
            triggers=[boot_id],
            parent=self,
            depends_on=[claim],
        )
        self.register_outputs({})
