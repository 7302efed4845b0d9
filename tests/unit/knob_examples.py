"""An example of each knob: the kernel's text before, a word of a plan, and the text that it becomes."""

from __future__ import annotations

from typing import NamedTuple

from agent.knobs import KNOBS


class Example(NamedTuple):
    before: str
    word: str | int
    after: str


_ON = Example("off", "on", "on")
EXAMPLES = {
    "rps_cpus": Example("1", "all", "f"),
    "rps_flow_cnt": Example("64", 128, "128"),
    "xps_cpus": Example("1", "last", "c"),
    "threaded": Example("0", "on", "1"),
    "napi_defer_hard_irqs": Example("0", 2, "2"),
    "gro_flush_timeout": Example("10", 20000, "20000"),
    "gro": _ON,
    "rx-gro-list": _ON,
    "rx-udp-gro-forwarding": _ON,
    "lro": Example("on", "off", "off"),
    "tx-checksum-ip-generic": Example("on", "off", "off"),
    "tso": Example("on", "off", "off"),
    "gso": Example("on", "off", "off"),
    "tx-udp_tnl-segmentation": _ON,
    "rx_queues": Example("2", 4, "4"),
    "rps_default_mask": Example("0", "first", "1"),
    "rps_sock_flow_entries": Example("0", 64, "64"),
    "netdev_budget": Example("300", 600, "600"),
    "netdev_budget_usecs": Example("8000", 16000, "16000"),
    "dev_weight": Example("64", 128, "128"),
    "dev_weight_rx_bias": Example("1", 2, "2"),
    "netdev_max_backlog": Example("1000", 4000, "4000"),
    "gro_normal_batch": Example("8", 16, "16"),
    "netdev_tstamp_prequeue": Example("1", "off", "0"),
    "skb_defer_max": Example("64", 0, "0"),
    "flow_limit_table_len": Example("4096", 8192, "8192"),
    "flow_limit_cpu_bitmap": Example("0", "all", "f"),
}
assert set(EXAMPLES) == set(KNOBS), "each knob needs an example"
