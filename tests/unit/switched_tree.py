"""An imitated node for switchback: two pairs that receive, six values, and who starts an episode."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from steer_tree import Tree, plan, rule, steer

OWNER = "rfs-plus-4/server"
PODS = {pid: f"/run/netns/x-server-{pid}" for pid in (71, 72)}


def populate(tree: Tree) -> Tree:
    """Two pods, whose processes 71 and 72 receive on the connections 710 and 720."""
    tree.device("eth1", mask="2", flows=64)
    for pid, place in PODS.items():
        tree.namespace(place, cookie=pid)
        tree.device("eth0", place, mask="1")
        receiving(tree, pid)
    counting(tree)
    return tree


def receiving(tree: Tree, pid: int) -> None:
    """A process with a connection."""
    received(tree, pid, 1000)
    connection = tree.root / f"proc/{pid}/fd/3"
    connection.parent.mkdir()
    connection.symlink_to(f"socket:[{pid}0]")


def counting(tree: Tree) -> None:
    """The counters of the node."""
    tree.write("proc/stat", "cpu  1 2 3\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5 6")
    tree.write("proc/softirqs", "   CPU0\n  HI:  1\n  NET_RX:  7")
    tree.write("proc/net/softnet_stat", "00000001 " * 13)


def received(tree: Tree, pid: int, size: int, waiting: int = 0) -> None:
    tree.write(f"proc/{pid}/io", f"rchar: {size}\nwchar: 5")
    tree.write(f"proc/{pid}/connections", f"{pid}0 {waiting}")


def rules(nic: str, pods: str, flows: int = 0) -> list[dict]:
    of_pods = [rule("pod", "eth0", cpus=pods, namespace=place) for place in PODS.values()]
    return [rule("nic", "eth1", cpus=nic, flows=flows), *of_pods]


PLANS = {
    "baseline": plan(*rules("1", "none"), sock_flow_entries=0),
    "rps": plan(*rules("3", "none"), sock_flow_entries=0),
    "rfs-plus": plan(*rules("1", "3", 32768), sock_flow_entries=32768),
}


def document(*order: str, plans: dict[str, dict] = PLANS, **more: Any) -> dict[str, Any]:
    """An episode with a short window for each name; on a busy machine none is on time."""
    windows = [
        {"plan": name, "at": index / 50, "settle": 0.002, "seconds": 0.005}
        for index, name in enumerate(order)
    ]
    given = {"plans": plans, "windows": windows, "receivers": [*PODS], "lease_seconds": 600}
    return {"version": 1, "tolerance": 10, **given, **more}


class Started:
    """Who starts an episode at once, after a look at the machine."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self._look = look

    def await_start(self) -> None:
        self._look()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class NoSignals:
    def at_once(self) -> nullcontext[None]:
        return nullcontext()


def episode(tree: Tree, schedule: dict, look: Callable[[], Any] = lambda: None) -> dict:
    """The answer of an episode in this process."""
    with tree.machine() as machine:
        parsed = steer.parse_schedule(schedule)
        answer: dict = steer.switchback(machine, parsed, NoSignals(), Started(look))
        return answer
