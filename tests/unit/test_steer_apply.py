"""Apply: from any plan to any other, whole or not at all, with a snapshot before any write."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from steer_tree import Tree, eventually, plan, replace, rule, steer

POD = "/run/netns/x-server-1"
RFS = plan(
    rule("nic", "eth1", flows=32768),
    rule("pod", "eth0", cpus="all", namespace=POD, pod="iperf-server-1"),
    sock_flow_entries=32768,
)
RPS = plan(rule("nic", "eth1", cpus="all"), sock_flow_entries=0)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A node with odd values everywhere, so that going back to zero is not going back."""
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    tree.namespace(POD, cookie=11)
    tree.device("lo", POD)
    tree.device("eth0", POD, mask="2", flows=64)
    return tree


def refused(tree: Tree, document: dict, status: int, words: str) -> None:
    """Refused with these words, and neither steering nor snapshots touched."""
    before = tree.stamps()
    files = {f: f.read_bytes() for f in tree.root.glob("run/steerlab/*") if f.name != "lock"}
    with pytest.raises(steer.SteerError, match=words) as refusal:
        tree.apply(document)
    assert refusal.value.status == status
    assert tree.stamps() == before
    assert files == {
        f: f.read_bytes() for f in tree.root.glob("run/steerlab/*") if f.name != "lock"
    }


def test_each_queue_of_a_nic_gets_its_core_and_goes_back(tmp_path: Path) -> None:
    tree = Tree(tmp_path, cpus="0-3")
    tree.device("eth1", queues=12)
    tree.device("eth2", queues=2)
    before = tree.values()
    nic = rule("nic", "eth1", cpus="none"), rule("overlay", "eth2", cpus="none")
    answer = tree.apply(plan(*nic, cores=[0, 2], queue_cores=[0, 2]))
    masks = [row["rps_cpus"] for row in answer["queues"]]
    assert masks == ["1", "4"] * 6 + ["0", "0"]
    assert tree.verify()["drift"] == []
    # tables of hashes have more entries than a NIC has queues; rx-10 comes after rx-9
    assert [row["queue"] for row in answer["queues"]][9:12] == ["rx-9", "rx-10", "rx-11"]
    tree.restore()
    assert tree.values() == before


def test_apply_writes_every_queue_and_says_what_stands(tree: Tree) -> None:
    answer = tree.apply(RFS)
    assert answer["changed"] == 7  # two values of two queues and of the pod's, and the table
    assert answer["queues"] == [
        {
            "role": "nic",
            "pod": None,
            "namespace": None,
            "device": "eth1",
            "queue": f"rx-{queue}",
            "rps_cpus": "0",
            "rps_flow_cnt": 32768,
        }
        for queue in (0, 1)
    ] + [
        {
            "role": "pod",
            "pod": "iperf-server-1",
            "namespace": POD,
            "device": "eth0",
            "queue": "rx-0",
            "rps_cpus": "3",
            "rps_flow_cnt": 0,
        }
    ]
    assert (answer["owner"], answer["boot_id"]) == ("rfs-plus-4/server", "boot-one")
    assert answer["sock_flow_entries"] == 32768
    assert (answer["drift"], answer["warnings"]) == ([], [])
    assert tree.queue("eth1", 1).joinpath("rps_flow_cnt").read_text() == "32768\n"


def test_queues_are_reported_by_number(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.device("eth1", queues=11)
    answer = tree.apply(RPS)
    assert [queue["queue"] for queue in answer["queues"]] == [f"rx-{n}" for n in range(11)]


def test_a_second_apply_writes_nothing(tree: Tree) -> None:
    first = tree.apply(RFS)
    stamps, snapshot = tree.stamps(), tree.snapshot().stat()
    second, third = tree.apply(RFS), tree.apply(RFS)
    assert second["changed"] == 0
    assert second == third == {**first, "changed": 0}
    assert tree.stamps() == stamps
    assert tree.snapshot().stat().st_ino == snapshot.st_ino


def test_restore_gives_back_what_the_first_plan_found(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    tree.apply(RPS)
    tree.apply(RFS)
    tree.apply(plan(rule("nic", "eth1", cpus="last", flows=8), sock_flow_entries=16))
    assert tree.values() != before
    assert tree.restore()["failed"] == []
    assert tree.values() == before
    assert not tree.snapshot().exists()


def test_what_a_new_plan_no_longer_names_goes_back(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    answer = tree.apply(plan(rule("pod", "eth0", flows=128, namespace=POD)))
    after = tree.values()
    pod = [name for name in before if "server-1/sys/class/net/eth0" in name]
    assert {name: after[name] for name in before if name not in pod} == {
        name: before[name] for name in before if name not in pod
    }
    assert [after[name] for name in sorted(pod)] == ["0", "128"]
    assert answer["sock_flow_entries"] is None
    assert [(entry["device"], entry["knob"]) for entry in tree.saved()["entries"]] == [
        ("eth0", "rps_cpus"),
        ("eth0", "rps_flow_cnt"),
    ]
    tree.restore()
    assert tree.values() == before


def test_an_empty_plan_puts_everything_back(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    tree.apply(plan())
    assert tree.values() == before


def test_a_machine_table_of_zero_is_a_value_to_go_back_to(tmp_path: Path) -> None:
    tree = Tree(tmp_path, sock_flow_entries=0)
    tree.device("eth1")
    tree.apply(plan(sock_flow_entries=32768))
    tree.apply(plan(sock_flow_entries=64))
    assert tree.restore()["sock_flow_entries"] == 0
    assert tree.table.read_text() == "0\n"


def test_the_snapshot_is_private_and_says_who_steers(tree: Tree) -> None:
    tree.apply(RFS)
    assert tree.snapshot().name == "rfs-plus-4%2Fserver.snapshot"
    assert tree.snapshot().stat().st_mode & 0o777 == 0o600
    assert tree.snapshot().parent.stat().st_mode & 0o777 == 0o700
    saved = tree.saved()
    assert (saved["owner"], saved["plan"], saved["pid"]) == (RFS["owner"], RFS, os.getpid())
    assert saved["entries"][1]["knob"] == "rps_flow_cnt"
    assert saved["entries"][1]["before"] == "64"
    assert saved["entries"][1]["written"] == ["32768"]


def test_auto_finds_devices_by_role(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    lower = tree.device("ens5")
    tree.device("flannel.4096", iflink=lower, kind="vxlan")
    for name in ("cali1", "cali2", "docker0", "vxlan9"):
        tree.device(name)
    answer = tree.apply(plan(*(rule(role, "auto") for role in ("nic", "overlay", "veth"))))
    assert [(queue["role"], queue["device"]) for queue in answer["queues"]] == [
        ("nic", "ens5"),
        ("overlay", "flannel.4096"),
        ("veth", "cali1"),
        ("veth", "cali2"),
    ]


def test_the_nic_is_the_device_that_sysfs_links_below_the_overlay(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for name in ("eth0", "eth1"):
        tree.device(name)
    tree.device("flannel.1", on=("eth1",), kind="vxlan")
    assert tree.apply(plan(rule("nic", "auto")))["queues"][0]["device"] == "eth1"


def test_without_a_device_below_the_nic_is_that_of_the_default_route(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for name in ("eth0", "eth1"):
        tree.device(name)
    tree.device("cilium_vxlan", kind="vxlan")
    routes = "Iface Destination\neth1 00000000 0138A8C0 0003 0 0 0 00000000 0 0 0"
    tree.write("proc/net/route", routes)
    assert tree.apply(plan(rule("nic", "auto")))["queues"][0]["device"] == "eth1"


def overlay(tree: Tree, name: str, flags: str, on: str) -> None:
    tree.device(name, on=(on,), kind="vxlan")
    tree.write(f"sys/class/net/{name}/flags", flags)


def test_an_overlay_that_is_down_is_left_out_and_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.device("eth0")
    tree.device("eth1")
    overlay(tree, "flannel.1", "0x1002", "eth0")
    overlay(tree, "cilium_vxlan", "0x1003", "eth1")
    answer = tree.apply(plan(rule("nic", "auto"), rule("overlay", "auto")))
    assert [queue["device"] for queue in answer["queues"]] == ["eth1", "cilium_vxlan"]
    (warning,) = answer["warnings"]
    assert "flannel.1" in warning
    named = plan(rule("nic", "eth0"), rule("overlay", "flannel.1"))
    assert tree.apply(named)["warnings"] == []


def test_two_overlays_that_are_up_are_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.device("eth0")
    overlay(tree, "flannel.1", "0x1003", "eth0")
    overlay(tree, "cilium_vxlan", "0x1003", "eth0")
    answer = tree.apply(plan(rule("overlay", "auto")))
    assert [queue["device"] for queue in answer["queues"]] == ["cilium_vxlan"]
    assert "flannel.1" in " ".join(answer["warnings"])


def test_a_dead_overlay_does_not_name_the_nic(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.device("eth0")
    tree.device("eth1")
    overlay(tree, "flannel.1", "0x1002", "eth0")
    assert tree.apply(plan(rule("nic", "auto")))["queues"][0]["device"] == "eth0"
    routes = "Iface Destination\neth1 00000000 0138A8C0 0003 0 0 0 00000000 0 0 0"
    tree.write("proc/net/route", routes)
    assert tree.apply(plan(rule("nic", "auto")))["queues"][0]["device"] == "eth1"


def test_lo_never_matches_and_files_beside_devices_are_none(tree: Tree) -> None:
    tree.write("sys/class/net/bonding_masters", "")
    devices = {queue["device"] for queue in tree.apply(plan(rule("nic", "*")))["queues"]}
    assert devices == {"eth1"}


@pytest.mark.parametrize(
    ("document", "status", "words"),
    [
        (
            plan(rule("nic", "eth7", "ens*")),
            3,
            r"rules\[0\]: no nic device of this namespace matches eth7, ens\*; it has eth1$",
        ),
        (plan(rule("overlay", "auto")), 3, "no overlay device .* matches auto; it has eth1"),
        (
            plan(rule("pod", "eth9", namespace=POD)),
            3,
            rf"no pod device of {POD} matches eth9; it has eth0",
        ),
        (plan(rule("veth", "cali*", optional=False)), 3, "no veth device"),
        (
            plan(rule("nic", "eth1", flows=64), rule("pod", "eth0", namespace="/run/netns/none")),
            3,
            r"rules\[1\]: there is no namespace /run/netns/none",
        ),
        (plan(rule("nic", "eth1", cpus="f")), 2, "CPU 3 does not exist"),
        (
            plan(rule("nic", "eth1", flows=64), rule("nic", "eth*", flows=128)),
            2,
            r"rules\[0\] and rules\[1\] want different values for eth1 rx-0",
        ),
    ],
)
def test_a_plan_that_does_not_fit_the_machine_changes_nothing(
    tree: Tree, document: dict, status: int, words: str
) -> None:
    refused(tree, document, status, words)
    tree.apply(RPS)
    refused(tree, document, status, words)


def test_an_optional_rule_may_match_nothing(tree: Tree) -> None:
    assert tree.apply(plan(rule("veth", "cali*")))["queues"] == []


def test_two_rules_may_agree_on_a_device(tree: Tree) -> None:
    answer = tree.apply(plan(rule("nic", "eth1", cpus="3"), rule("veth", "eth*", cpus="all")))
    assert [queue["role"] for queue in answer["queues"]] == ["nic", "nic"]


def test_a_kernel_without_rps_is_named(tree: Tree) -> None:
    tree.queue("eth1", 1).joinpath("rps_cpus").unlink()
    refused(tree, RPS, 3, r"eth1 rx-1 in this namespace: this kernel has no rps_cpus")


def test_a_device_without_receive_queues_is_named(tree: Tree) -> None:
    tree.device("eth2", queues=0)
    refused(tree, plan(rule("nic", "eth*")), 3, "eth2: it has no receive queues")


def test_without_the_machine_table_only_plans_that_need_none_work(tmp_path: Path) -> None:
    tree = Tree(tmp_path, sock_flow_entries=None)
    tree.device("eth1")
    refused(tree, plan(rule("nic", "eth1"), sock_flow_entries=64), 3, "first network namespace")
    answer = tree.apply(plan(rule("nic", "eth1", cpus="all"), sock_flow_entries=0))
    assert (answer["changed"], answer["sock_flow_entries"]) == (1, None)
    assert tree.verify()["drift"] == []
    assert tree.restore()["failed"] == []


def test_a_plan_may_leave_the_machine_table_alone(tree: Tree) -> None:
    tree.apply(plan(rule("nic", "eth1"), owner="other"))
    tree.table.write_text("512\n")
    tree.apply(plan(rule("nic", "eth1", cpus="all"), owner="other"))
    tree.restore("other")
    assert tree.table.read_text() == "512\n"


def test_a_queue_that_another_owner_steers_is_refused_by_name(tree: Tree) -> None:
    tree.apply(plan(rule("pod", "eth0", namespace=POD), owner="first/one"))
    refused(
        tree,
        RFS,
        3,
        rf"eth0 rx-0 in {POD} is steered by owner first/one \(pid {os.getpid()}, 20.*Z\): "
        "first run python3 .*/agent restore --owner first/one",
    )
    tree.restore("first/one")
    assert tree.apply(RFS)["changed"] > 0


def test_one_queue_under_two_paths_is_still_one_queue(tree: Tree) -> None:
    tree.apply(plan(rule("pod", "eth0", namespace=POD), owner="first"))
    tree.root.joinpath("proc/77/ns").mkdir(parents=True)
    tree.root.joinpath("proc/77/ns/net").symlink_to(tree.root / POD.lstrip("/"))
    again = plan(rule("pod", "eth0", namespace="/proc/77/ns/net"))
    refused(tree, again, 3, "is steered by owner first")


def test_the_machine_table_has_one_owner(tree: Tree) -> None:
    tree.apply(plan(sock_flow_entries=0, owner="first"))
    refused(tree, RPS, 3, "rps_sock_flow_entries is steered by owner first")
    tree.apply(plan(rule("nic", "eth1")))


def test_a_recreated_device_is_snapshot_anew(tree: Tree) -> None:
    """Same path, same ifindex, same inode: only the cookie tells."""
    tree.apply(RFS)
    tree.namespace(POD, cookie=12)
    for name, value in (("rps_cpus", "1"), ("rps_flow_cnt", "8")):
        tree.queue("eth0", namespace=POD).joinpath(name).write_text(value)
    assert tree.apply(RFS)["changed"] == 2
    cookies = [entry["cookie"] for entry in tree.saved()["entries"] if entry["device"]]
    assert cookies == ["own"] * 4 + ["12"] * 2
    tree.restore()
    queue = tree.queue("eth0", namespace=POD)
    assert queue.joinpath("rps_cpus").read_text().strip() == "1"
    assert queue.joinpath("rps_flow_cnt").read_text().strip() == "8"


def test_a_snapshot_of_an_earlier_boot_is_worthless(tree: Tree) -> None:
    tree.apply(RFS)
    tree.apply(plan(owner="another"))
    tree.write("proc/sys/kernel/random/boot_id", "boot-two")
    between = tree.values()
    assert tree.restore()["restored"] == 0
    assert tree.values() == between
    tree.apply(RPS)
    tree.restore()
    assert tree.values() == between
    tree.apply({**RFS, "owner": "third"})  # nobody of an earlier boot owns anything


def read_only(tree: Tree) -> Path:
    """Makes the flow count of the last queue to be written readable and not writable."""
    file = tree.queue("eth0", namespace=POD) / "rps_flow_cnt"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/random/poolsize")
    return file


@pytest.mark.parametrize("after", [None, RPS])
def test_a_failure_half_way_puts_back_what_apply_found(tree: Tree, after: dict | None) -> None:
    read_only(tree)
    if after:
        tree.apply(after)
    before, snapshot = tree.values(), after and tree.saved()
    with pytest.raises(steer.SteerError) as failure:
        tree.apply(RFS)
    assert failure.value.status == 1
    assert f"rps_flow_cnt of eth0 rx-0 in {POD}: Permission denied" in str(failure.value)
    assert tree.values() == before
    assert tree.snapshot().exists() == bool(after)
    assert not after or tree.saved() == snapshot


def test_a_value_that_does_not_stick_is_a_failure(tree: Tree) -> None:
    before = tree.values()
    words = "rps_flow_cnt of eth1 .*1000.*1000"
    with pytest.raises(steer.SteerError, match=words):  # no kernel here that makes it 1024
        tree.apply(plan(rule("nic", "eth1", cpus="all", flows=1000)))
    assert tree.values() == before
    assert not tree.snapshot().exists()


@pytest.mark.parametrize("kind", ["directory", "/dev/full", "/dev/null"])
def test_a_queue_that_cannot_be_read_stops_apply_before_it_writes(tree: Tree, kind: str) -> None:
    file = tree.queue("eth1", 1) / "rps_cpus"
    file.unlink()
    file.mkdir() if kind == "directory" else file.symlink_to(kind)
    before = tree.values()
    with pytest.raises(steer.SteerError, match="rps_cpus of eth1 rx-1 in this namespace: "):
        tree.apply(RPS)
    assert tree.values() == before
    assert not tree.snapshot().exists()


def test_what_cannot_be_put_back_stays_in_the_snapshot(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = read_only(tree)
    before = tree.values()
    first = tree.queue("eth1", 0) / "rps_flow_cnt"
    put = steer.Setting.put

    def stubborn(setting: object, wanted: str, unusable: int, back: bool = False) -> None:
        if setting.path == first and wanted == "64":
            raise steer.SteerError(f"{setting}: Input/output error")
        put(setting, wanted, unusable, back)

    monkeypatch.setattr(steer.Setting, "put", stubborn)
    words = r"snapshot stays: rps_flow_cnt of eth1 rx-0.*Input/output error"
    with pytest.raises(steer.SteerError, match=words):
        tree.apply(RFS)
    monkeypatch.undo()
    target.unlink()
    target.write_text("256\n")  # the symlink's
    assert tree.values() != before
    tree.restore()
    assert tree.values() == before


def stuck_half_way(tree: Tree, document: dict) -> tuple[Any, int]:
    """An apply in the middle: it has written the second queue's mask, and waits."""
    return tree.half_way(tree.queue("eth1", 1) / "rps_cpus", document)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_half_way_puts_back_what_apply_found(tree: Tree, number: int) -> None:
    before = tree.values()
    process, end = stuck_half_way(tree, RFS)
    process.send_signal(number)
    os.close(end)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert err.startswith(f"steer: interrupted by {signal.Signals(number).name}")
    assert err.count("\n") == 1
    assert tree.values() == before
    assert not tree.snapshot().exists()


def kill_half_way(tree: Tree, document: dict) -> None:
    before = tree.values()
    process, end = stuck_half_way(tree, document)
    process.kill()
    process.communicate(timeout=30)
    os.close(end)
    assert tree.values() != before


def test_after_a_kill_half_way_restore_gives_back_everything(tree: Tree) -> None:
    before = tree.values()
    kill_half_way(tree, RFS)
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_after_a_kill_half_way_apply_goes_on_from_the_first_values(tree: Tree) -> None:
    before = tree.values()
    kill_half_way(tree, RFS)
    tree.apply(RPS)
    assert tree.verify()["drift"] == []
    saved = [(entry["knob"], entry["before"]) for entry in tree.saved()["entries"]]
    assert saved == [("rps_cpus", "2"), ("rps_flow_cnt", "64")] * 2 + [
        ("rps_sock_flow_entries", "4096")
    ]
    tree.restore()
    assert tree.values() == before


def test_a_kill_between_two_plans_forgets_neither(tree: Tree) -> None:
    before = tree.values()
    tree.apply(plan(rule("pod", "eth0", cpus="all", namespace=POD), sock_flow_entries=64))
    kill_half_way(tree, plan(rule("nic", "eth1", flows=32768)))
    tree.restore()
    assert tree.values() == before


def full_disk() -> None:
    """Files may grow to 100 bytes: room for every value, not for a snapshot."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_without_room_for_the_snapshot_nothing_is_written(tree: Tree) -> None:
    stamps = tree.stamps()
    done = tree.run("apply", plan=RFS, preexec_fn=full_disk)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"steer: snapshot {tree.snapshot()}: File too large" in done.stderr
    assert tree.stamps() == stamps
    assert [file.name for file in tree.snapshot().parent.iterdir()] == ["lock"]


def test_without_room_an_earlier_snapshot_stays_whole(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RPS)
    stamps, saved = tree.stamps(), tree.saved()
    assert tree.run("apply", plan=RFS, preexec_fn=full_disk).returncode == 1
    assert (tree.stamps(), tree.saved()) == (stamps, saved)
    tree.restore()
    assert tree.values() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda text: text.replace('"before": "2"', '"before": "two"'),
        lambda text: text.replace('"cookie"', '"biscuit"'),
        lambda text: text.replace('"owner": "', '"owner": "x'),
        lambda text: text.replace('"version": 2', '"version": 3'),
        lambda text: json.dumps({**json.loads(text), "lease": 3}),
        lambda text: json.dumps({**json.loads(text), "entries": None}),
        lambda text: json.dumps({**json.loads(text), "entries": [3]}),
        lambda _: "\udcff",
        lambda _: "[" * 100_000,
    ],
)
def test_a_damaged_snapshot_is_named_and_left_alone(tree: Tree, damage: object) -> None:
    """Its owner applies nothing before it is seen to: nobody knows the values to go back to."""
    tree.apply(RFS)
    file = tree.snapshot()
    file.write_text(damage(file.read_text()), errors="surrogateescape")
    refused(tree, RPS, 1, rf"snapshot {file} is damaged")
    before = file.read_bytes()
    with pytest.raises(steer.SteerError, match=f"snapshot {file} is damaged"):
        tree.restore()
    assert file.read_bytes() == before
    # other owners go on, and are told
    (warning,) = tree.apply({**RPS, "owner": "another"})["warnings"]
    assert f"snapshot {file} is damaged" in warning
    assert tree.restore("another")["failed"] == []
    assert file.read_bytes() == before


def test_agents_take_turns(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, "LOCK_TIMEOUT", 0.05)
    tree.apply(RPS)
    with steer.Store(tree.root / "run/steerlab", "boot-one").locked():
        refused(tree, RFS, 1, r"another agent holds .*/run/steerlab/lock")
    assert tree.apply(RFS)["changed"] > 0


def test_who_waits_for_the_lock_can_be_interrupted(tree: Tree) -> None:
    stamps = tree.stamps()
    with steer.Store(tree.root / "run/steerlab", "boot-one").locked():
        process = tree.start("apply", plan=RFS)
        eventually(lambda: opens(process.pid, "run/steerlab/lock"))
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, "steer: interrupted by SIGTERM\n")
    assert tree.stamps() == stamps


def opens(pid: int, file: str) -> bool:
    try:
        return any(str(fd.readlink()).endswith(file) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # one that was closed meanwhile
        return False


def test_a_pattern_of_namespaces_means_those_that_there_are(tree: Tree) -> None:
    pods = plan(rule("pod", "eth0", namespace="/run/netns/cni-*", flows=64, optional=True))
    assert tree.apply(pods)["queues"] == []
    for number in (1, 2):
        tree.namespace(f"/run/netns/cni-{number}", cookie=900 + number)
        tree.device("eth0", f"/run/netns/cni-{number}", mask="2")
        found = [queue["namespace"] for queue in tree.apply(pods)["queues"]]
        assert found == [f"/run/netns/cni-{n}" for n in range(1, number + 1)]
    assert tree.verify(document=pods)["drift"] == []
    assert tree.run("show", "--namespace", "/run/netns/cni-*").answer["queues"][-1]["device"] == (
        "eth0"
    )
    assert tree.restore()["restored"] == 4
    refused(tree, plan(rule("pod", "eth0", namespace="/run/x*")), 3, r"no namespace /run/x\*")


def test_auto_leaves_out_what_another_rule_names(tree: Tree) -> None:
    tree.device("veth-wire")
    tree.device("veth7")
    document = plan(rule("nic", "veth-wire", cpus="3"), rule("veth", "auto", flows=64))
    found = [(q["role"], q["device"], q["rps_cpus"]) for q in tree.apply(document)["queues"]]
    assert ("nic", "veth-wire", "3") in found
    assert ("veth", "veth7", "0") in found
    assert len(found) == len({device for _, device, _ in found})
