"""The knobs: every kernel setting that the agent can write (pure). A new one is one entry of KNOBS.

Sources: https://docs.kernel.org/networking/scaling.html and net/core/net-sysfs.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent import guards
from agent.codecs import Codec, Count, Mask, Switch
from agent.values import parse_mask

if TYPE_CHECKING:  # types that Python 3.8 cannot evaluate
    from agent.guards import Guard

# Scopes: what has one value of a knob. Queues are named rx-N and tx-N.
RX_QUEUE, TX_QUEUE, DEVICE, NAMESPACE, MACHINE = "rx", "tx", "device", "namespace", "machine"


# Seconds after a write in which goodput may still depend on the value before: of steering and GRO, of what
# settles at once, and of NAPI. See benchmarks/settling.json and settling_knobs.json.
SETTLE_S, QUICK_S, SLOW_S = 0.2, 0.1, 0.3


class SysfsFile(NamedTuple):
    """A file of a queue or a device, by its path below that."""

    path: str


class Sysctl(NamedTuple):
    """A file below /proc/sys, of one network namespace or of the machine."""

    path: str


class EthtoolFeature(NamedTuple):
    """A feature of a device, by its name in `ethtool -k`; the path is the file that identifies the device."""

    feature: str
    path: str = "ifindex"


class EthtoolQueues(NamedTuple):
    """The number of receive queues that a device uses, as `ethtool -L` sets it."""

    path: str = "ifindex"


class Knob(NamedTuple):
    """One value of the kernel; `name`, its own or that of ethtool, is the key in plans and records."""

    name: str
    scope: str
    access: SysfsFile | Sysctl | EthtoolFeature | EthtoolQueues
    codec: Codec
    summary: str
    since: str  # the first Linux that has it, and its condition
    guard: Guard = guards.nothing
    entry_bytes: int = 0  # of kernel memory for each entry of a table; no control group limits it
    absent: str | None = None  # the value that a kernel without the file has
    settle: float = SETTLE_S
    live: bool = True  # it can be switched under traffic; else it is measured by isolated runs
    default: str | None = None  # the kernel's, where it is the same on every machine
    base: bool = False  # others depend on it: it is switched on before them, and off after them

    def equal(self, wanted: str, got: str, unusable: int = 0) -> bool:
        """Whether `got`, read back, is what the kernel makes of `wanted`."""
        return self.codec.equal(wanted, got, unusable)

    def as_before(self, before: str, got: str, unusable: int = 0) -> bool:
        """Whether `got` is what a restore of `before` gives: of a feature, the same request."""
        return got == f"off [requested {before}]" or self.equal(before, got, unusable)

    def comes_from(self, written: str, got: str, unusable: int) -> bool:
        """Whether `got` may result from writing `written`, also where the kernel did not round it.

        A feature that is requested may stay off: see agent/ethtool.py.
        """
        return got in (written, f"off [requested {written}]") or self.equal(written, got, unusable)

    def set_by_somebody(self, found: str) -> bool:
        """Whether a value is not the kernel's own."""
        return self.default is not None and not self.equal(self.default, found)

    @property
    def reshapes(self) -> bool:
        """Whether queues come and go with it."""
        return isinstance(self.access, EthtoolQueues)

    def turn(self, value: str) -> int:
        """When a value is written among those of a place: a number that sorts them.

        The number of queues comes last, so that the values of a queue are restored before it goes.
        """
        if self.reshapes:
            return 3
        return 1 if not self.base else 0 if value == "on" else 2

    def lost(self, text: str, unusable: int) -> bool:
        """Whether a value names CPUs that are unusable."""
        return self.codec.is_mask and bool(parse_mask(text) & unusable)


KNOBS = {
    knob.name: knob
    for knob in (
        Knob(
            "rps_cpus",
            RX_QUEUE,
            SysfsFile("rps_cpus"),
            Mask(),
            "CPUs that process the packets of a receive queue",
            "2.6.35, CONFIG_RPS",
            default="0",
        ),
        Knob(
            "rps_flow_cnt",
            RX_QUEUE,
            SysfsFile("rps_flow_cnt"),
            Count(0, 2**30, rounds=True),  # one more is ENOMEM
            "entries of a receive queue's RFS table; rounded up to a power of two",
            "2.6.35, CONFIG_RPS",
            entry_bytes=12,  # struct rps_dev_flow; 8 before Linux 6.18
            default="0",
        ),
        Knob(
            "xps_cpus",
            TX_QUEUE,
            SysfsFile("xps_cpus"),
            Mask(),
            "CPUs that send through a transmit queue, on devices with several",
            "2.6.38, CONFIG_XPS",
            guards.several_queues,
        ),
        Knob(
            "gro",
            DEVICE,
            EthtoolFeature("rx-gro"),
            Switch(),
            "whether the device merges received packets of a flow (GRO)",
            "2.6.39",
            base=True,
        ),
        Knob(
            "threaded",
            DEVICE,
            SysfsFile("threaded"),
            Switch("0", "1"),
            "whether kernel threads receive the packets, not softirqs: their CPU time is system time",
            "5.12",
            guards.threads,
            settle=SLOW_S,
            default="0",
        ),
        Knob(
            "napi_defer_hard_irqs",
            DEVICE,
            SysfsFile("napi_defer_hard_irqs"),
            Count(0, 1000),
            "empty polls after which the device's interrupt is enabled again",
            "5.8",
            guards.needs_napi("napi_defer_hard_irqs"),
            settle=SLOW_S,
            default="0",
        ),
        Knob(
            "gro_flush_timeout",
            DEVICE,
            SysfsFile("gro_flush_timeout"),
            Count(0, 10**9),
            "nanoseconds that GRO waits for more packets of a flow",
            "3.19",
            guards.needs_napi("gro_flush_timeout"),
            settle=SLOW_S,
            default="0",
        ),
        Knob(
            "rx-gro-list",
            DEVICE,
            EthtoolFeature("rx-gro-list"),
            Switch(),
            "whether GRO chains packets that are forwarded instead of merging them",
            "5.6",
            guards.chains,
        ),
        Knob(
            "rx-udp-gro-forwarding",
            DEVICE,
            EthtoolFeature("rx-udp-gro-forwarding"),
            Switch(),
            "whether GRO merges UDP packets that are forwarded",
            "5.12",
            guards.needs_gro("rx-udp-gro-forwarding"),
        ),
        Knob(
            "lro",
            DEVICE,
            EthtoolFeature("rx-lro"),
            Switch(),
            "whether the NIC merges received packets (LRO); it may be switched off only",
            "2.6.39",
            guards.never_on("lro", "packets that a NIC merged cannot be forwarded"),
            live=False,  # some drivers set up their queues again
        ),
        Knob(
            "tx-checksum-ip-generic",
            DEVICE,
            EthtoolFeature("tx-checksum-ip-generic"),
            Switch(),
            "whether the device computes checksums of sent packets; without it tso is off, too",
            "2.6.39",
            settle=QUICK_S,
            base=True,
        ),
        Knob(
            "tso",
            DEVICE,
            EthtoolFeature("tx-tcp-segmentation"),
            Switch(),
            "whether the device segments TCP over IPv4 (TSO)",
            "2.6.39",
            settle=QUICK_S,
        ),
        Knob(
            "gso",
            DEVICE,
            EthtoolFeature("tx-generic-segmentation"),
            Switch(),
            "whether segmentation is left to the last moment before the device (GSO)",
            "2.6.39",
            settle=QUICK_S,
        ),
        Knob(
            "tx-udp_tnl-segmentation",
            DEVICE,
            EthtoolFeature("tx-udp_tnl-segmentation"),
            Switch(),
            "whether the device segments TCP in UDP tunnels, such as VXLAN",
            "3.10",
            settle=QUICK_S,
        ),
        Knob(
            "rx_queues",
            DEVICE,
            EthtoolQueues(),
            Count(1, 2**16),
            "receive queues in use (`ethtool -L` combined, or rx)",
            "3.0, a veth 5.15",
            live=False,
        ),
        Knob(
            "rps_default_mask",
            NAMESPACE,
            Sysctl("net/core/rps_default_mask"),
            Mask(),
            "rps_cpus of queues that are created later, which keep it after a restore",
            "6.3, CONFIG_RPS",
            default="0",
        ),
        Knob(
            "rps_sock_flow_entries",
            MACHINE,
            Sysctl("net/core/rps_sock_flow_entries"),
            Count(0, 2**29, rounds=True),  # one more is EINVAL
            "entries of the machine's RFS table; rounded up to a power of two",
            "2.6.35, CONFIG_RPS",
            entry_bytes=4,
            absent="0",
            default="0",
        ),
        Knob(
            "netdev_budget",
            MACHINE,
            Sysctl("net/core/netdev_budget"),
            Count(1, 10**6),
            "packets that one softirq receives at most",
            "2.6.12",
            settle=QUICK_S,
            default="300",
        ),
        Knob(
            "netdev_budget_usecs",
            MACHINE,
            Sysctl("net/core/netdev_budget_usecs"),
            Count(1, 10**6),
            "microseconds that one softirq receives at most; not less than two timer ticks",
            "4.12",
            settle=QUICK_S,
        ),
        Knob(
            "dev_weight",
            MACHINE,
            Sysctl("net/core/dev_weight"),
            Count(1, 10**4),
            "packets that one poll takes from the CPU backlog",
            "2.6.12",
            settle=QUICK_S,
            default="64",
        ),
        Knob(
            "dev_weight_rx_bias",
            MACHINE,
            Sysctl("net/core/dev_weight_rx_bias"),
            Count(1, 100),
            "factor of dev_weight for receiving",
            "4.11",
            settle=QUICK_S,
            default="1",
        ),
        Knob(
            "netdev_max_backlog",
            MACHINE,
            Sysctl("net/core/netdev_max_backlog"),
            Count(1, 10**6),
            "packets that wait in the backlog of a CPU, and in a queue of a tunnel",
            "2.6.12",
            settle=QUICK_S,
            default="1000",
        ),
        Knob(
            "gro_normal_batch",
            MACHINE,
            Sysctl("net/core/gro_normal_batch"),
            Count(1, 1000),
            "packets that GRO collects before it passes them on",
            "5.4",
            settle=QUICK_S,
            default="8",
        ),
        Knob(
            "netdev_tstamp_prequeue",
            MACHINE,
            Sysctl("net/core/netdev_tstamp_prequeue"),
            Switch("0", "1"),
            "whether packets get their time stamp before RPS, not on the CPU that it selects",
            "2.6.35",
            settle=QUICK_S,
            default="1",
        ),
        Knob(
            "skb_defer_max",
            MACHINE,
            Sysctl("net/core/skb_defer_max"),
            Count(0, 10**6),
            "buffers that wait until the CPU that allocated them frees them",
            "5.19",
            settle=QUICK_S,
        ),
        Knob(  # before the mask: tables get this size when they are made
            "flow_limit_table_len",
            MACHINE,
            Sysctl("net/core/flow_limit_table_len"),
            Count(1, 2**20, power=True),
            "entries of the flow limit of CPUs whose bit of flow_limit_cpu_bitmap is set later",
            "3.11, CONFIG_NET_FLOW_LIMIT",
            settle=QUICK_S,
            default="4096",
        ),
        Knob(
            "flow_limit_cpu_bitmap",
            MACHINE,
            Sysctl("net/core/flow_limit_cpu_bitmap"),
            Mask(),
            "CPUs that drop packets of large flows while their backlog is half full",
            "3.11, CONFIG_NET_FLOW_LIMIT",
            settle=QUICK_S,
            default="0",
        ),
    )
}


def of_scope(*scopes: str) -> list[Knob]:
    """The knobs of some scopes."""
    return [knob for knob in KNOBS.values() if knob.scope in scopes]
