"""Names, addresses and files of the test cluster (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NET = "192.168.60"
POD_NET = "10.245"
SERVICES = "10.97.0.0/16"
API = f"https://{NET}.10:6443"
SWITCH, UPLINK = "steerlab-switch", "steerlab-rig"
PAUSE = "registry.local/pause:1"
STATE = Path("/var/tmp/steerlab-cluster")
# They are the machine's, not a namespace's; nodes and privileged pods see them all the same.
MACHINE_SYSCTLS = (
    "rps_sock_flow_entries", "netdev_max_backlog", "netdev_budget", "netdev_budget_usecs",
    "dev_weight", "flow_limit_cpu_bitmap", "flow_limit_table_len",
)  # fmt: skip


@dataclass(frozen=True)
class NodeLayout:
    """One node: its number gives its addresses."""

    name: str
    number: int
    labels: str = ""
    machine_sysctls: bool = True

    @property
    def netns(self) -> str:
        return f"steerlab-{self.name}"

    @property
    def address(self) -> str:
        return f"{NET}.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"{POD_NET}.{self.number}"

    @property
    def mac(self) -> str:
        return f"66:00:00:00:00:{self.number:02x}"

    @property
    def folder(self) -> Path:
        return STATE / "nodes" / self.name


def nodes(workers: int) -> list[NodeLayout]:
    """The control plane and its workers; the first serves, the second sends.

    The third is as a node of kind is: it does not see the machine's sysctls.
    """
    labels = {1: "iperf=server", 2: "iperf=client"}
    return [
        NodeLayout("master", 0),
        *(NodeLayout(f"worker{i}", i, labels.get(i, ""), i != 3) for i in range(1, workers + 1)),
    ]
