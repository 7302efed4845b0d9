"""The record of one run: the only contract between what is run and what is concluded.

One JSON file a run. `null` means "not measured" and always comes with a reason;
it is never zero. The JSON Schema beside this file is generated from these models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1

Percent = Annotated[float, Field(ge=0, le=100.5)]
Count = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    """Frozen, closed, and without NaN or infinity: what JSON can carry."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pair(Model):
    """One iperf3 client and server, measured at the receiver."""

    index: Annotated[int, Field(ge=1)]
    bitrate_mbps: Annotated[float, Field(ge=0)] | None = Field(
        description="Mean goodput at the receiver over the measured window, Mbit/s."
    )
    retransmits: Count | None = None
    reason: str | None = Field(default=None, description="Why there is no bitrate.")
    throttled_periods: Count | None = Field(
        default=None, description="nr_throttled of the server pod's CPU quota during the run."
    )


class Core(Model):
    """Time of one core over the window, percent of the window as mpstat defines the fields."""

    node: str
    core: Count
    usr: Percent | None = None
    nice: Percent | None = None
    sys: Percent | None = None
    iowait: Percent | None = None
    irq: Percent | None = None
    soft: Percent | None = None
    steal: Percent | None = None
    idle: Percent | None = None


class Softnet(Model):
    """Differences of one row of /proc/net/softnet_stat over the window.

    `received_rps` counts inter-processor interrupts that handed packets to this
    core's backlog, not packets.
    """

    node: str
    core: Count
    processed: Count
    dropped: Count
    squeezed: Count
    received_rps: Count
    flow_limit: Count
    net_rx: Count | None = Field(default=None, description="NET_RX softirqs of /proc/softirqs.")


class QueueSteering(Model):
    """Steering of one receive queue as read back from the kernel."""

    node: str
    role: Literal["nic", "overlay", "veth", "pod"]
    device: str
    queue: str
    rps_cpus: str
    rps_flow_cnt: Count
    pod: str | None = None


class Steering(Model):
    """Steering of the steered nodes as read back: every queue and the machine's flow table."""

    sock_flow_entries: Count | None
    queues: list[QueueSteering]


class Machine(Model):
    """What the run ran on. Two records are comparable where `kernel`, `cpu` and `cores` agree."""

    kernel: str
    cpu: str
    cores: Annotated[int, Field(ge=1)]
    server_cores: list[int] = []
    client_cores: list[int] = []
    irq_core: int | None = None
    irq_time_accounting: bool | None = None
    mtu: dict[str, int] = {}
    offloads: dict[str, dict[str, bool]] = {}
    queues: dict[str, int] = {}
    versions: dict[str, str] = {}


class Confounders(Model):
    """What could move a result without being steering, at one edge of the window."""

    nic_interrupts: dict[str, list[int]] = Field(
        default={}, description="Interrupts per core of each NIC queue, cumulative."
    )
    irqbalance: bool | None = None
    rps_default_mask: str | None = None
    xps: dict[str, str] = {}
    governor: str | None = None


class Harness(Model):
    """What the measuring process itself used between the edges of the window, seconds."""

    cpu_seconds: Annotated[float, Field(ge=0)]


class Record(Model):
    """One timed measurement of one state: the unit of analysis."""

    schema_version: Literal[1] = SCHEMA_VERSION
    target: Literal["lab", "kubernetes", "published"]
    stack: str | None = None
    configuration: Annotated[str, Field(min_length=1)]
    replicas: Annotated[int, Field(ge=1)]
    path: Literal["overlay", "host"] = "overlay"
    valid: bool
    reasons: list[str] = Field(default=[], description="Why the run is not valid.")
    warnings: list[str] = []
    pairs: list[Pair]
    idle_pairs: Count = 0
    cores: list[Core] = []
    softnet: list[Softnet] = []
    block: Count | None = None
    order: Count | None = Field(default=None, description="Position of the run in the whole sweep.")
    seed: int | None = None
    plan: str | None = Field(default=None, description="Hash of the sweep's plan.")
    start: datetime | None = None
    duration: Annotated[float, Field(gt=0)]
    omit: Annotated[float, Field(ge=0)] = 0
    window: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds between the two edge reads."
    )
    streams: Annotated[int, Field(ge=1)] = 1
    pod_cpu_limit: str | None = None
    steering_before: Steering | None = None
    steering_after: Steering | None = None
    machine: Machine | None = None
    confounders_before: Confounders | None = None
    confounders_after: Confounders | None = None
    harness: Harness | None = None
    source: str | None = Field(default=None, description="The file this run was imported from.")


def json_schema() -> dict[str, Any]:
    """The record's JSON Schema, as kept in `analysis/record.schema.json`."""
    return Record.model_json_schema()
