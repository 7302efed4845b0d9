"""The wire with several receive queues, and the form stock, on this kernel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from lab_project import Project

from infra.lab import layout

SETTINGS = ("duration=3", "omit=1")
QUEUES = ("lab.queues=2", 'lab.cpus={"server": [0, 1], "client": [1], "irq": 0}')
STACK = "baseline-4"
SERVER, CLIENT = (node.namespace for node in layout.nodes(STACK))


def _inside(namespace: str, *words: str) -> str:
    command = ["ip", "netns", "exec", namespace, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _measured(project: Project) -> dict[str, Any]:
    project.run("measure", "-s", STACK)
    return project.last(STACK)


def _share(record: dict[str, Any], core: int) -> float:
    """Share of a core in the packets that all cores processed, at each device."""
    counts = {row["core"]: row["processed"] for row in record["softnet"]}
    return float(counts[core] / sum(counts.values()))


def _sent(number: int) -> list[int]:
    """Packets that left the client through each queue of the wire: those of rx-(N-1) for tx-N."""
    text = json.loads(_inside(CLIENT, "tc", "-s", "-j", "qdisc", "show", "dev", layout.WIRE))
    by_queue = {one.get("parent", ""): one["packets"] for one in text if one["kind"] != "mq"}
    return [by_queue[f"1:{n + 1:x}"] for n in range(number)]


def _masks(masks: Sequence[str]) -> None:
    path = f"/sys/class/net/{layout.WIRE}/queues"
    write = "; ".join(f"echo {mask} > {path}/rx-{n}/rps_cpus" for n, mask in enumerate(masks))
    _inside(SERVER, "sh", "-ec", write)


def test_flows_spread_over_two_queues_each_on_its_core(project: Project) -> None:
    project.up(STACK, "streams=8", *SETTINGS, "runs=0")
    alone = _share(_measured(project), 0)
    project.up(STACK, *QUEUES)
    number = layout.device_queues(2)
    # a queueing discipline with counters, which the wire has not
    _inside(CLIENT, "tc", "qdisc", "replace", "dev", layout.WIRE, "root", "handle", "1:", "mq")
    record = _measured(project)

    assert (record["machine"]["form"], record["machine"]["nic_queues"]) == ("study", 2)
    rows = [row for row in record["steering_before"]["queues"] if row["role"] == "nic"]
    assert [row["rps_cpus"] for row in rows] == [str(1 + n % 2) for n in range(number)]
    received = {
        role: sum(row["bytes"] for row in record["received"] if row["role"] == role)
        for role in ("nic", "overlay", "veth", "pod")
    }
    assert 0 < received.pop("veth") < received["pod"]  # acknowledgements
    assert min(received.values()) > 0.9 * received["pod"]
    assert record["path"] == "overlay"
    first, *entries = _sent(number)
    assert first == 0
    assert min(entries) > 0
    of_queues = [sum(entries[n::2]) for n in range(2)]
    assert min(of_queues) > 0.2 * sum(of_queues)
    both = _share(record, 0)
    assert 0.2 < both < alone - 0.1

    # the packets of a queue follow its core: all on the first one, then all on the second
    _masks(["1"] * number)
    assert _share_now(project) > both + 0.1
    _masks(["2"] * number)
    assert _share_now(project) < both - 0.1


def _share_now(project: Project) -> float:
    """The share of the first core in a run that is invalid, because its masks are not the declared ones."""
    project.run("measure", "-s", STACK, code=1)
    return _share(project.records(f"results/{STACK}")[-1], 0)


def test_the_form_stock_has_the_kernels_offloads(project: Project) -> None:
    project.up(STACK, "lab.form=stock", "runs=0")
    record = _measured(project)
    assert (record["machine"]["form"], record["machine"]["nic_queues"]) == ("stock", 1)
    name = "steerlab-plain"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "-n", name, "link", "add"]
        subprocess.run([*inside, "plain0", "type", "veth", "peer", "name", "plain1"], check=True)
        subprocess.run(
            [*inside, "plain2", "type", "vxlan", "id", "7", "dstport", "4789"], check=True
        )
        for device, plain in ((layout.WIRE, "plain0"), (layout.OVERLAY, "plain2")):
            defaults = _inside(name, "ethtool", "-k", plain).partition("\n")[2]
            for node in (SERVER, CLIENT):
                assert _inside(node, "ethtool", "-k", device).partition("\n")[2] == defaults
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_another_form_and_changes_by_hand_are_repaired(project: Project) -> None:
    server = layout.nodes("baseline-1")[0].namespace

    def up(*settings: str) -> dict[str, str]:
        return project.up("baseline-1", "runs=0", *settings).changes

    up("lab.form=stock")
    _inside(server, "ethtool", "-K", layout.OVERLAY, "gro", "off")
    assert up() == {"overlay-vxlan": "replace", "steer-server": "update"}
    above = {"overlay-vxlan": "replace", "steer-server": "update"}
    assert up("lab.form=study") == {"wire-veth": "replace", **above}
    _inside(server, "ethtool", "-K", layout.WIRE, "gso", "on")
    assert up() == {"wire-veth": "replace", **above}
    assert up(*QUEUES) == {"wire-veth": "replace", **above}
    _inside(server, "ethtool", "-L", layout.WIRE, "rx", "1")
    assert up()["wire-veth"] == "replace"
    assert up() == {}
