"""What the agent refuses before any write, and on which devices a plan takes effect."""

from __future__ import annotations

from pathlib import Path

import pytest
from steer_tree import Tree, plan, rule, steer


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path, cpus="0-3")
    made.device("eth0", queues=2, hardware=True)
    return made


def steered(answer: dict) -> list[tuple[str, str | None]]:
    """The devices of an answer, each with the one that it is for."""
    return list(dict.fromkeys((row["device"], row.get("for")) for row in answer["queues"]))


# --- CPUs ---


@pytest.mark.parametrize("before", ["0", "1"])
@pytest.mark.parametrize(
    "lists",
    [
        {"isolated": "2-3"},
        {"nohz_full": "2-3"},
        {"online": "0-1"},
        {"../../../fs/cgroup/cpuset.cpus.isolated": "2-3"},
        {"../../../fs/cgroup/unified/cpuset.cpus.isolated": "2-3"},
    ],
)
def test_a_mask_of_cpus_that_take_no_packets_touches_nothing(
    tree: Tree, before: str, lists: dict[str, str]
) -> None:
    for queue in (0, 1):
        (tree.queue("eth0", queue) / "rps_cpus").write_text(before)
    tree.cpus(**lists)
    values = tree.values()
    with pytest.raises(steer.SteerError, match=r"CPUs 2,3 are"):
        tree.apply(plan(rule("nic", "eth0", cpus="c")))
    assert tree.values() == values
    assert not tree.snapshot().exists()
    answer = tree.apply(plan(rule("nic", "eth0", cpus="all")))
    assert {row["rps_cpus"] for row in answer["queues"]} == {"3"}
    assert answer["warnings"] == []


def test_a_mask_that_mixes_is_written_without_them_and_both_are_shown(tree: Tree) -> None:
    tree.cpus(isolated="1")
    answer = tree.apply(plan(rule("nic", "eth0", cpus="3")))
    assert {(row["rps_cpus"], row["asked_rps_cpus"]) for row in answer["queues"]} == {("1", "3")}
    assert len([words for words in answer["warnings"] if "CPU 1 is isolated" in words]) == 1
    assert tree.verify()["drift"] == []
    tree.cpus(isolated="")
    assert [drift["kind"] for drift in tree.verify()["drift"]] == ["value", "value"]


def test_a_cpu_that_is_isolated_later_is_drift(tree: Tree) -> None:
    document = plan(rule("nic", "eth0", cpus="all"))
    tree.apply(document)
    tree.write("sys/fs/cgroup/cpuset.cpus.isolated", "3")
    assert {drift["kind"] for drift in tree.verify()["drift"]} == {"value"}
    assert {row["rps_cpus"] for row in tree.apply(document)["queues"]} == {"7"}
    assert tree.verify()["drift"] == []


def test_a_cpu_goes_offline_after_apply(tree: Tree) -> None:
    """The kernel keeps its bit and sends it nothing: what stands still is the plan's."""
    document = plan(rule("nic", "eth0", cpus="f"))
    tree.apply(document)
    tree.cpus(online="0-2")
    answer = tree.apply(document)
    assert {row["rps_cpus"] for row in answer["queues"]} == {"7"}
    assert "CPU 3 is offline" in answer["warnings"][0]


def test_a_cpu_that_could_be_plugged_in_one_day_does_not_exist(tree: Tree) -> None:
    tree.cpus(present="0-3", possible="0-127")
    with pytest.raises(steer.SteerError, match="CPU 7 does not exist") as refusal:
        tree.apply(plan(rule("nic", "eth0", cpus="ff")))
    assert refusal.value.status == 2


# --- memory and kernels ---


def test_tables_that_would_exhaust_the_node_touch_nothing(tree: Tree) -> None:
    tree.write("proc/meminfo", "MemTotal:  4000000 kB\nMemAvailable:     245760 kB")
    before = tree.values()
    big = plan(rule("nic", "eth0", flows=2**20))  # two queues of 12.6 MB; 25.2 MB are a tenth
    with pytest.raises(steer.SteerError, match=r"29\.4 MB.* 251\.7 MB.*25\.2 MB") as refusal:
        tree.apply({**big, "sock_flow_entries": 2**20})
    assert refusal.value.status == 3
    assert (tree.values(), tree.snapshot().exists()) == (before, False)
    tree.apply(big)
    tree.write("proc/meminfo", "MemAvailable: 1 kB")
    assert tree.apply(big)["changed"] == 0  # it stands, and takes nothing more


def test_a_kernel_with_the_table_fault_is_warned_of_where_tables_are(tree: Tree) -> None:
    tree.write("proc/sys/kernel/osrelease", "6.18.9-1-default")
    assert tree.apply(plan(rule("nic", "eth0", cpus="3")))["warnings"] == []
    document = plan(rule("nic", "eth0", flows=64))
    for answer in (tree.apply(document), tree.verify()):
        assert len([words for words in answer["warnings"] if "CVE-2026-43208" in words]) == 1
    tree.write("proc/sys/kernel/osrelease", "6.18.16")
    assert tree.verify()["warnings"] == []


def test_on_such_a_kernel_tables_go_before_they_come_in_another_size(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write("proc/sys/kernel/osrelease", "6.19.1")
    tree.apply(plan(rule("nic", "eth0", flows=64)))
    written: list[str] = []
    put = steer.Setting.put

    def noted(setting: steer.Setting, wanted: str, unusable: int, back: bool = False) -> None:
        written.append(wanted)
        put(setting, wanted, unusable, back)

    monkeypatch.setattr(steer.Setting, "put", noted)
    answer = tree.apply(plan(rule("nic", "eth0", flows=128)))
    assert written == ["0", "0", "128", "128"]
    assert answer["changed"] == 2
    tree.restore()
    assert set(tree.values().values()) == {"0"}


# --- devices ---


def bond(tree: Tree) -> None:
    tree.device("eth1", hardware=True)
    tree.device("bond0", on=("eth0", "eth1"), kind="bond")


def vlan(tree: Tree) -> None:
    tree.device("eth0.5", on=("eth0",), kind="vlan")


def vlan_on_bond(tree: Tree) -> None:
    bond(tree)
    tree.device("bond0.5", on=("bond0",), kind="vlan")


def bridge(tree: Tree) -> None:
    """A node's bridge: its NIC and what its virtual machines and containers are on."""
    tree.device("vnet0")
    tree.device("veth1a2b")
    tree.device("br0", on=("eth0", "vnet0", "veth1a2b"), kind="bridge")


def bridge_on_vlan(tree: Tree) -> None:
    vlan(tree)
    tree.device("vnet0")
    tree.device("br0", on=("eth0.5", "vnet0"), kind="bridge")


def bridge_without_hardware(tree: Tree) -> None:
    tree.device("vnet0")
    tree.device("vnet1")
    tree.device("br0", on=("vnet0", "vnet1"), kind="bridge")


def team(tree: Tree) -> None:
    tree.device("eth1", hardware=True)
    tree.device("team0", on=("eth0", "eth1"))


def macvlan(tree: Tree) -> None:
    tree.device("macvlan0", on=("eth0",))


def azure(tree: Tree) -> None:
    """hv_netvsc: the virtual function is a slave of a device that receives too."""
    tree.device("enP1s1", hardware=True)
    tree.enslave("enP1s1", "eth0")


UPPERS = [
    (bond, "bond0", ["eth0", "eth1"]),
    (vlan, "eth0.5", ["eth0"]),
    (vlan_on_bond, "bond0.5", ["eth0", "eth1"]),
    (bridge, "br0", ["eth0"]),
    (bridge_on_vlan, "br0", ["eth0"]),
    (bridge_without_hardware, "br0", ["vnet0", "vnet1"]),
    (team, "team0", ["eth0", "eth1"]),
    (macvlan, "macvlan0", ["eth0"]),
    (azure, "eth0", ["eth0", "enP1s1"]),
]


def route(tree: Tree, device: str) -> None:
    row = f"{device}\t00000000\t0138A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"
    tree.write("proc/net/route", f"Iface\tDestination\n{row}")


@pytest.mark.parametrize(("make", "upper", "receivers"), UPPERS)
@pytest.mark.parametrize("named", [True, False])
def test_what_receives_first_is_steered_and_both_are_named(
    tree: Tree, make: object, upper: str, receivers: list[str], named: bool
) -> None:
    make(tree)  # type: ignore[operator]
    route(tree, upper)
    before = tree.values()
    answer = tree.apply(plan(rule("nic", upper if named else "auto", cpus="f", flows=64)))
    expected = [(device, None if device == upper else upper) for device in receivers]
    assert set(steered(answer)) == set(expected)
    changed = {path for path, value in tree.values().items() if value != before[path]}
    assert {Path(path).parts[3] for path in changed} == set(receivers)
    assert tree.verify()["drift"] == []
    tree.restore()
    assert tree.values() == before


def test_an_overlay_decides_again_and_the_nic_below_it_is_found(tree: Tree) -> None:
    bond(tree)
    tree.device("vxlan.calico", on=("bond0",), kind="vxlan")
    rules = [rule("nic", "auto", cpus="f"), rule("overlay", "auto", cpus="1")]
    answer = tree.apply(plan(*rules))
    assert steered(answer) == [("eth0", "bond0"), ("eth1", "bond0"), ("vxlan.calico", None)]


def test_a_new_slave_and_one_that_left_are_drift(tree: Tree) -> None:
    bond(tree)
    document = plan(rule("nic", "bond0", cpus="f"))
    tree.apply(document)
    tree.device("eth2", hardware=True)
    tree.enslave("eth2", "bond0")
    (drift,) = tree.verify()["drift"]
    assert (drift["kind"], drift["device"]) == ("unsteered", "eth2")
    tree.apply(document)
    (tree.root / "sys/class/net/bond0/lower_eth1").unlink()
    (drift,) = tree.verify()["drift"]
    assert (drift["kind"], drift["device"]) == ("unplanned", "eth1")
    tree.apply(document)
    assert (tree.queue("eth1") / "rps_cpus").read_text() == "0\n"


def test_two_rules_that_mean_one_receiver_are_refused(tree: Tree) -> None:
    bond(tree)
    with pytest.raises(steer.SteerError, match="want different values for eth0"):
        tree.apply(plan(rule("nic", "bond0", cpus="f"), rule("nic", "eth0", cpus="1")))


def test_show_tells_which_devices_receive_for_others(tree: Tree) -> None:
    vlan_on_bond(tree)
    tree.device("vxlan.calico", on=("bond0",), kind="vxlan")
    answer = tree.run("show").answer
    assert {row["device"]: row["receives_on"] for row in answer["uppers"]} == {
        "bond0": ["eth0", "eth1"],
        "bond0.5": ["eth0", "eth1"],
    }


# --- one pod that cannot be steered ---

PODS = plan(
    rule("nic", "eth0", cpus="3", flows=64),
    rule("pod", "eth0", cpus="3", flows=64, namespace="/run/netns/cni-*", optional=True),
)


def pods(tree: Tree) -> list[str]:
    names = [f"/run/netns/cni-{number}" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        tree.namespace(name, cookie=number + 7)
        tree.device("eth0", name, mask="1")
    return names


def unwritable(tree: Tree, pod: str) -> Path:
    file = tree.queue("eth0", namespace=pod) / "rps_flow_cnt"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/random/poolsize")  # a number that nobody can write
    return file


def masks(tree: Tree, pods: list[str]) -> list[str]:
    return [(tree.queue("eth0", namespace=pod) / "rps_cpus").read_text().strip() for pod in pods]


def test_a_pod_that_cannot_be_written_keeps_no_other_unsteered(tree: Tree) -> None:
    names = pods(tree)
    unwritable(tree, names[1])
    before = tree.values()
    answer = tree.apply(PODS)
    assert masks(tree, names) == ["3", "1", "3"]
    assert {row["namespace"] for row in answer["queues"]} == {None, names[0], names[2]}
    (words,) = answer["warnings"]
    assert names[1] in words
    assert tree.apply(PODS) == {**answer, "changed": 0}
    kinds = {(drift["kind"], drift["namespace"]) for drift in tree.verify()["drift"]}
    assert kinds == {("unsteered", names[1])}
    tree.restore()
    assert tree.values() == before


def test_a_pod_without_queues_keeps_no_other_unsteered(tree: Tree) -> None:
    names = pods(tree)
    for file in sorted(tree.queue("eth0", namespace=names[0]).rglob("*")):
        file.unlink()
    tree.queue("eth0", namespace=names[0]).rmdir()
    assert names[0] in str(tree.apply(PODS)["warnings"])
    assert masks(tree, names[1:]) == ["3", "3"]


def test_a_steered_pod_that_can_no_longer_be_written_stays_in_the_snapshot(tree: Tree) -> None:
    names = pods(tree)
    tree.apply(PODS)
    file = unwritable(tree, names[2])
    again = plan(*({**one, "cpus": "f", "flows": 128} for one in PODS["rules"]))
    answer = tree.apply(again)
    assert names[2] in str(answer["warnings"])
    assert masks(tree, names) == ["f", "f", "3"]
    file.unlink()
    file.write_text("64\n")
    tree.restore()
    assert masks(tree, names) == ["1", "1", "1"]


@pytest.mark.parametrize("more", [{}, {"optional": True, "namespace": "/run/netns/cni-2"}])
def test_a_pod_that_was_asked_for_by_name_or_must_be_there_is_all_or_nothing(
    tree: Tree, more: dict
) -> None:
    names = pods(tree)
    unwritable(tree, names[1])
    before = tree.values()
    strict = [{**one, "optional": False} for one in PODS["rules"]]
    strict = [strict[0], {**strict[1], **more}]
    with pytest.raises(steer.SteerError, match="Permission denied"):
        tree.apply(plan(*strict))
    assert tree.values() == before
