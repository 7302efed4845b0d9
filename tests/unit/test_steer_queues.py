"""The knob rx_queues: queues come and go, with their steering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from imitation import QueuesFile
from steer_tree import Tree, plan, steer
from switched_tree import document, episode, populate


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A NIC that uses two of four queues."""
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=2, transmit=2, hardware=True)
    tree.device("cali1")
    tree.write("sys/class/net/eth1/rx_queues", 2)
    return tree


def rules(device: str, **values: Any) -> dict[str, Any]:
    return plan({"role": "nic", "devices": [device], "set": values})


def number(tree: Tree) -> str:
    return (tree.root / "sys/class/net/eth1/rx_queues").read_text().strip()


def queues(count: int, **more: Any) -> dict[str, Any]:
    return rules("eth1", rx_queues=count, **more)


def masks(tree: Tree) -> dict[str, str]:
    folder = tree.root / "sys/class/net/eth1/queues"
    return {
        one.parent.name: one.read_text().strip() for one in sorted(folder.glob("rx-*/rps_cpus"))
    }


def test_queues_that_come_are_steered_and_go_again(tree: Tree) -> None:
    before = tree.values()
    answer = tree.apply(queues(4, rps_cpus="all"))
    assert masks(tree) == dict.fromkeys(("rx-0", "rx-1", "rx-2", "rx-3"), "f")
    assert answer["changed"] == 5
    assert [row["rx_queues"] for row in answer["devices"]] == [4]
    assert (tree.apply(queues(4, rps_cpus="all"))["changed"], tree.verify()["drift"]) == (0, [])
    answer = tree.restore()
    assert (answer["failed"], answer["left"], answer["gone"]) == ([], [], [])
    assert tree.values() == before


def test_queues_with_steering_are_not_taken_away(tree: Tree) -> None:
    (tree.queue("eth1", 1) / "rps_cpus").write_text("3\n")
    before = tree.values()
    with pytest.raises(steer.SteerError, match="rx-1 has rps_cpus 3") as refused:
        tree.apply(queues(1, rps_cpus="all"))
    assert refused.value.status == steer.CANNOT
    assert (tree.values(), tree.snapshot().exists()) == (before, False)
    (tree.queue("eth1", 1) / "rps_cpus").write_text("0\n")
    tree.apply(queues(1, rps_cpus="all"))
    assert masks(tree) == {"rx-0": "f"}
    assert tree.restore()["failed"] == []
    assert masks(tree) == {"rx-0": "0", "rx-1": "0"}


def test_steering_of_the_owner_itself_does_not_keep_a_queue(tree: Tree) -> None:
    before = tree.values()
    tree.apply(queues(4, rps_cpus="all"))
    tree.apply(queues(1, rps_cpus="3"))
    assert masks(tree) == {"rx-0": "3"}
    tree.apply(rules("eth1", rps_cpus="1"))  # names no number: the first one comes back
    assert masks(tree) == {"rx-0": "1", "rx-1": "1"}
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_more_queues_than_the_device_has_are_refused(tree: Tree) -> None:
    with pytest.raises(steer.SteerError, match=r"rx_queues of eth1 .* cannot be 5"):
        tree.apply(queues(5))
    assert number(tree) == "2"


def test_a_device_whose_queues_cannot_be_set_is_refused(tree: Tree) -> None:
    with pytest.raises(steer.SteerError, match="this device has no rx_queues"):
        tree.apply(rules("cali1", rx_queues=1))


def test_the_number_comes_back_when_the_rest_fails(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree.values()
    write = QueuesFile.write

    def without_tables(file: QueuesFile, line: bytes) -> None:
        write(file, line)
        for queue in file.path.parent.glob("queues/rx-[23]/rps_cpus"):
            queue.unlink()

    monkeypatch.setattr(QueuesFile, "write", without_tables)
    with pytest.raises(steer.SteerError, match="this kernel has no rps_cpus"):
        tree.apply(queues(4, rps_cpus="all"))
    assert (tree.values(), tree.snapshot().exists()) == (before, False)


def test_a_number_of_queues_is_not_switched_under_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer.os, "sched_setscheduler", lambda *_: None)
    tree = populate(Tree(tmp_path))
    tree.write("sys/class/net/eth1/rx_queues", 1)
    plans = {"one": rules("eth1", rps_cpus="1"), "two": queues(2, rps_cpus="1")}
    with pytest.raises(steer.SteerError, match=r"rx_queues .* cannot be switched") as refused:
        episode(tree, document("one", "two", plans=plans))
    assert refused.value.status == steer.CANNOT
    assert number(tree) == "1"
    same = {"one": queues(1, rps_cpus="1"), "two": queues(1, rps_cpus="2")}
    assert len(episode(tree, document("one", "two", plans=same))["windows"]) == 2
