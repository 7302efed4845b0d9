"""The record of one run: the only contract between experiments and analysis.

One JSON file for each run. `null` means "not measured" and always comes with a reason;
it is never zero. The JSON Schema beside this file is generated from these models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from analysis.fields import Count, Number, Percent, Quantile, Rows, Seconds, Text, Value
from analysis.older_schema import upgraded

SCHEMA_VERSION: Literal[2] = 2

# Of goodput: a window with fewer cannot show a change within it.
FEWEST_READINGS = 4


class Model(BaseModel):
    """Frozen, closed, and without NaN or infinity, which JSON cannot encode."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricWords(Model):
    """Title, unit and direction of a metric, for readers that do not know its name."""

    title: Text = Field(description="The metric in words.")
    unit: Text
    better: Literal["higher", "lower"]
    scale: Literal["ratio", "difference"] = Field(description="How two values are compared.")


class Pair(Model):
    """One client and its server, with the values measured between them."""

    index: Number = Field(description="From 1.")
    kind: Text | None = Field(
        default=None,
        description="Kind of the pair's traffic where the pairs of the run have several; null: the "
        "record's traffic.",
    )
    values: dict[Text, Value | None] = Field(
        description="By metric, over the measured window; null where it could not be measured."
    )
    latency: Rows[Quantile] = Field(
        default=[],
        description="Distribution of the latency of its messages (half of the round trip): "
        "quantiles as a fraction from 0 to 1, and microseconds.",
    )
    halves: tuple[Value, Value] | None = Field(
        default=None,
        description="Median latency (microseconds) in the first and the second half of the window; "
        "null for isolated runs.",
    )
    reason: Text | None = Field(
        default=None,
        description="Why the pair has no values; a warning has the reason of a single null value.",
    )
    server_node: Text | None = Field(
        default=None, description="Node of the server; null in older records."
    )
    client_node: Text | None = Field(
        default=None, description="Node of the client; null in older records."
    )
    throttled_periods: Count | None = Field(
        default=None, description="nr_throttled of the server pod's CPU quota during the run."
    )


class Core(Model):
    """Time of one core over the window, percent of the window as mpstat defines the fields."""

    node: Text = Field(description="'lab', or the node of the cluster.")
    core: Count = Field(description="Its number in the kernel.")
    usr: Percent | None = None
    nice: Percent | None = None
    sys: Percent | None = None
    iowait: Percent | None = None
    irq: Percent | None = None
    soft: Percent | None = Field(default=None, description="Softirq: packet processing.")
    steal: Percent | None = Field(default=None, description="Taken by the hypervisor.")
    idle: Percent | None = None
    side: Literal["server", "client"] | None = Field(
        default=None,
        description="The side of a measured pair that this core works for, server where it works "
        "for both; null where it works for none, and in older records.",
    )

    @property
    def server(self) -> bool:
        """Whether this core works for the server of a measured pair."""
        return self.side == "server"


class Softnet(Model):
    """Differences of one row of /proc/net/softnet_stat over the window.

    `received_rps` counts inter-processor interrupts that handed packets to this
    core's backlog, not packets.
    """

    node: Text
    core: Count
    processed: Count = Field(description="Packets.")
    dropped: Count = Field(description="Packets dropped because the backlog was full.")
    squeezed: Count = Field(description="Times that NET_RX used up its budget or time.")
    received_rps: Count = Field(description="Inter-processor interrupts that RPS sent here.")
    flow_limit: Count = Field(description="Packets dropped by the flow limit.")
    net_rx: Count | None = Field(default=None, description="NET_RX softirqs of /proc/softirqs.")


class Datagrams(Model):
    """UDP on one node: differences of counters over the window.

    Those of UDP are of the network namespaces of the measured pods (/proc/net/snmp); a fragmented
    datagram counts once there, but each fragment is a packet of a device.
    """

    node: Text
    sent: Count | None = Field(
        description="OutDatagrams, also of servers that reply; null if a client is on a node that "
        "was not read."
    )
    delivered: Count = Field(
        description="InDatagrams: read by the receiving programs, also replies by clients."
    )
    socket_drops: Count = Field(
        description="RcvbufErrors: dropped because the receive buffer of a socket was full."
    )
    other_errors: Count = Field(description="InErrors other than those, such as checksums.")
    device_drops: Count = Field(
        description="rx_dropped and rx_missed_errors of all devices of these namespaces and, on a "
        "cluster, of the node. Most drops of a full backlog (softnet) are among them."
    )


class QueueSteering(Model):
    """Steering of one receive queue as read back from the kernel."""

    node: Text
    role: Literal["nic", "overlay", "veth", "pod"]
    device: Text
    queue: Text = Field(description="rx-N.")
    rps_cpus: Text = Field(description="The mask, as the kernel prints it.")
    rps_flow_cnt: Count = Field(description="Entries of the queue's flow table.")
    pod: Text | None = Field(default=None, description="The pod that the device is in.")


class Setting(Model):
    """The value of another knob, as read back from the kernel."""

    node: Text
    role: Literal["nic", "overlay", "veth", "pod", "machine"]
    device: Text = Field(description="Empty for a knob of a network namespace or of the machine.")
    place: Text = Field(description="The queue, such as tx-0, or device, namespace, machine.")
    knob: Text = Field(description="The kernel's name, such as xps_cpus.")
    value: Text = Field(description="As the kernel prints it.")


class Steering(Model):
    """Steering as read back from the steered nodes: every queue and the flow table."""

    sock_flow_entries: Count | None = Field(
        description="net.core.rps_sock_flow_entries; null where it is not visible."
    )
    queues: Rows[QueueSteering]
    settings: Rows[Setting] = Field(default=[], description="Other settings.")


class Received(Model):
    """What a steered device, or another tunnel of a node, received between the two readings of the steering, before and after a run.

    Under switchback both are at the ends of the episode.
    """

    node: Text
    role: Literal["nic", "overlay", "veth", "pod"]
    device: Text
    pod: Text | None = Field(default=None, description="The pod that the device is in.")
    steered: bool = Field(description="Whether the stack steers it.")
    packets: Count = Field(description="rx_packets; what GRO has merged may count once.")
    bytes: Count = Field(description="rx_bytes.")


class NodeFacts(Model):
    """A node of the run, as far as it is known."""

    name: Text
    side: Literal["server", "client"]
    kernel: Text | None = Field(default=None, description="uname -r.")
    cpu: Text | None = Field(
        default=None, description="Model name, or the numbers of implementer and part."
    )
    cores: Number | None = Field(default=None, description="CPUs of the node.")
    nic: Text | None = Field(default=None, description="Driver and speed of its steered NICs.")
    instance_type: Text | None = Field(
        default=None, description="The node's label node.kubernetes.io/instance-type."
    )


class Machine(Model):
    """The machine of the run. docs/statistics.md lists the fields in which records must agree to be compared."""

    kernel: Text = Field(description="uname -r.")
    cpu: Text = Field(description="Model name, or the numbers of implementer and part.")
    cores: Number = Field(description="Cores online.")
    server_cores: Rows[Count] = Field(default=[], description="Cores of the servers (lab).")
    client_cores: Rows[Count] = Field(default=[], description="Cores of the clients (lab).")
    irq_core: Count | None = Field(
        default=None, description="Core of the emulated NIC, or of its first receive queue (lab)."
    )
    form: Literal["study", "stock"] | None = Field(
        default=None,
        description="Form of the lab (docs/lab.md). Null on a cluster; older records of the lab are study.",
    )
    nic_queues: Number | None = Field(
        default=None,
        description="Receive queues of the emulated NIC (docs/lab.md). Null on a cluster; older records have one.",
    )
    irq_time_accounting: bool | None = Field(
        default=None, description="Whether softirq time is exact instead of sampled at the tick."
    )
    mtu: dict[Text, Count] = Field(default={}, description="Bytes, by device.")
    offloads: dict[Text, dict[Text, bool]] = Field(
        default={}, description="By device, as ethtool -k names them."
    )
    queues: dict[Text, Count] = Field(default={}, description="Receive queues in use, by device.")
    versions: dict[Text, Text] = Field(default={}, description="Of the traffic tools and Python.")
    nodes: Rows[NodeFacts] = Field(
        default=[],
        description="The nodes of a cluster (the other fields are those of the first server node); empty in "
        "older records.",
    )


class Confounders(Model):
    """Influences on a result other than steering, at one edge of the window."""

    nic_interrupts: dict[Text, Rows[Count]] = Field(
        default={},
        description="Interrupts of each NIC vector by core, cumulative; 0 where it is offline.",
    )
    irqbalance: bool | None = Field(default=None, description="Whether the daemon runs.")
    rps_default_mask: Text | None = Field(
        default=None, description="net.core.rps_default_mask, the mask of new devices."
    )
    xps: dict[Text, Text] = Field(default={}, description="Transmit steering masks, by queue.")
    governor: Text | None = Field(default=None, description="CPU frequency governor.")


class Harness(Model):
    """CPU time of the measuring process itself within the window, seconds."""

    cpu_seconds: Seconds


class Goodput(Model):
    """Goodput of all pairs together in one part of an episode."""

    at: Seconds = Field(description="Start of the part, seconds after the start of the episode.")
    seconds: Annotated[float, Field(gt=0, le=1e9)] = Field(description="Length of the part.")
    mbps: Value = Field(description="Mbit/s.")

    @property
    def end(self) -> float:
        return self.at + self.seconds


class Record(Model):
    """One measurement of one configuration: the unit of analysis."""

    schema_version: Literal[2] = SCHEMA_VERSION
    traffic: Text = Field(default="stream", description="Kind of traffic between each pair.")
    method: Literal["isolated", "switchback"] = Field(
        default="isolated",
        description="isolated: the run has connections of its own; switchback: it shares those of "
        "its episode, which is its block.",
    )
    metrics: dict[Text, MetricWords] = Field(
        default={}, description="The metrics of the pairs' values; empty in older records."
    )
    target: Literal["lab", "kubernetes", "published"]
    stack: Text | None = None
    configuration: Annotated[Text, Field(min_length=1)] = Field(
        description="Name of the configuration."
    )
    replicas: Number = Field(
        description="Pairs that were measured, without the one of another kind beside them."
    )
    definition: Text | None = Field(
        default=None, description="Hash of the configuration's definition; null in older records."
    )
    path: Literal["overlay", "direct", "host"] = Field(
        default="overlay",
        description="Through the overlay; between pods without a tunnel, as `received` shows (direct); "
        "or between the lab's nodes without pods (host).",
    )
    valid: bool = Field(description="Whether the run counts; others are kept but not analysed.")
    reasons: Rows[Text] = Field(default=[], description="Why the run is not valid.")
    causes: Rows[Text] = Field(
        default=[], description="One word for each kind of reason; empty in older records."
    )
    warnings: Rows[Text] = Field(default=[], description="Possible problems of a valid run.")
    pairs: Rows[Pair]
    idle_pairs: Count = Field(default=0, description="Pairs that existed without traffic.")
    cores: Rows[Core] = []
    softnet: Rows[Softnet] = []
    datagrams: Rows[Datagrams] = Field(
        default=[], description="One for each measured node, if the traffic uses UDP."
    )
    received: Rows[Received] = Field(
        default=[],
        description="By each steered device and each tunnel of a node; empty where it was not read, and "
        "in older records.",
    )
    attempt: Number = Field(
        default=1, description="Attempt at this run of the sweep, from 1; each has its own record."
    )
    block: Count | None = Field(default=None, description="Block of the sweep, from 0.")
    order: Count | None = Field(
        default=None, description="Position of the run in the whole sweep, from 0."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, description="Seed of the sweep's order."
    )
    plan: Text | None = Field(default=None, description="Hash of the sweep's plan.")
    start: datetime | None = Field(default=None, description="When traffic began, UTC.")
    duration: Annotated[float, Field(ge=1e-3, le=1e9)] = Field(description="Seconds measured.")
    omit: Seconds = Field(default=0, description="Seconds of traffic before the measured ones.")
    window: Annotated[float, Field(ge=1e-3, le=1e9)] | None = Field(
        default=None, description="Seconds between the two reads of the counters."
    )
    goodput: Rows[Goodput] = Field(
        default=[],
        description="Goodput over time, from the switch to the end of the window (switchback); "
        "empty where it was not read, and in older records.",
    )
    streams: Number = Field(default=1, description="Connections of each pair.")
    congestion: Text | None = Field(
        default=None, description="TCP congestion control of the senders."
    )
    foreign_cpu: Seconds | None = Field(
        default=None,
        description="CPU time of other programs over the window (switchback: over the episode), in "
        "cores, on the nodes of the experiment; null where it is not measured.",
    )
    pod_cpu_limit: Text | None = Field(default=None, description="CPU quota of each pod.")
    steering_before: Steering | None = Field(
        default=None, description="As read before the traffic."
    )
    steering_after: Steering | None = Field(default=None, description="As read after the traffic.")
    machine: Machine | None = None
    confounders_before: Confounders | None = None
    confounders_after: Confounders | None = None
    harness: Harness | None = None
    source: Text | None = Field(default=None, description="The file this run was imported from.")
    _elsewhere: int = PrivateAttr(default=0)

    @property
    def elsewhere(self) -> int:
        """The measured pairs that a part of a record (`on`) lacks: their servers are on other nodes."""
        return self._elsewhere

    def on(self, node: str) -> Record:
        """The part of the record that is about the servers of one node.

        Without CPU figures where nodes share a kernel: then they are of several nodes together.
        """
        pairs = [pair for pair in self.pairs if pair.server_node == node]
        shared = {pair.server_node for pair in self.pairs} - {core.node for core in self.cores}
        here = {
            field: [row for row in getattr(self, field) if row.node == node and not shared]
            for field in ("cores", "softnet", "datagrams", "received")
        }
        part = self.model_copy(update={**here, "pairs": pairs})
        others = (one for one in self.pairs if one not in pairs and one.kind == self.pairs[0].kind)
        part._elsewhere = sum(1 for _ in others)
        return part

    @model_validator(mode="before")
    @classmethod
    def _of_older_schema(cls, document: object) -> object:
        return upgraded(document) if isinstance(document, dict) else document


def json_schema() -> dict[str, Any]:
    """The record's JSON Schema, as kept in `analysis/record.schema.json`."""
    return Record.model_json_schema()
