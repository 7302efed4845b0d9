"""The agent on this machine's kernel: veth pairs in real network namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

AGENT = Path(__file__).resolve().parents[2] / "agent"
TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
OWNER = f"slt-{os.getpid()}/server"
NODE, POD = f"slt-{os.getpid()}-node", f"slt-{os.getpid()}-pod"
NODE_PATH, POD_PATH = f"/run/netns/{NODE}", f"/run/netns/{POD}"
CPUS = os.cpu_count() or 1


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


def inside(namespace: str, *command: str, check: bool = True) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=check
    )
    return done.stdout


def steer(verb: str, *options: str, plan: dict | None = None, within: str = "") -> Any:
    done = subprocess.run(
        [
            *(["ip", "netns", "exec", within] if within else []),
            sys.executable,
            AGENT,
            verb,
            *options,
        ],
        input=json.dumps(plan) if plan else "",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    done.answer = json.loads(done.stdout) if done.stdout else None  # type: ignore[attr-defined]
    return done


def eventually(holds: Callable[[], Any], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def queue(device: str, number: int = 0) -> str:
    return f"/sys/class/net/{device}/queues/rx-{number}"


def preset(namespace: str, device: str, queues: int) -> None:
    for number in range(queues):
        inside(
            namespace,
            "sh",
            "-c",
            f"echo 2 > {queue(device, number)}/rps_cpus; "
            f"echo 64 > {queue(device, number)}/rps_flow_cnt",
        )


def values() -> list[str]:
    """Every value of the two namespaces, and the machine's."""
    script = "grep -H . /sys/class/net/*/queues/rx-*/rps_*"
    return [*(inside(ns, "sh", "-c", script) for ns in (NODE, POD)), TABLE.read_text()]


def make_pod() -> None:
    ip("netns", "add", POD)
    ip("-n", NODE, "link", "add", "cali1", "type", "veth", "peer", "name", "eth0", "netns", POD)


@pytest.fixture
def table() -> Iterator[None]:
    """The machine's flow table, 4096 for a while; there is one, so a lab that is up comes first."""
    if os.geteuid() != 0 or not TABLE.exists():
        pytest.skip("needs root and the first network namespace of a kernel with RPS")
    holders = [s for s in steer("show").answer["snapshots"] if s.get("holds_sock_flow_entries")]
    if holders:
        pytest.skip(f"{holders[0]['owner']} holds the machine's flow table: destroy that lab first")
    before = TABLE.read_text()
    TABLE.write_text("4096")
    yield
    TABLE.write_text(before)


@pytest.fixture
def node(table: None) -> Iterator[None]:  # noqa: ARG001
    """A node with eth1 (two queues), an overlay on it and one pod; mask 2, flows 64 everywhere."""
    if CPUS < 2:
        pytest.skip("needs 2 CPUs: with one there is nowhere to steer to")
    ip("netns", "add", NODE)
    try:
        peer = ("peer", "name", "wire")
        queues = ("numrxqueues", "2", "numtxqueues", "2")
        ip("-n", NODE, "link", "add", "eth1", *queues, "type", "veth", *peer)
        overlay = ("type", "vxlan", "id", "4096", "dstport", "4789", "dev", "eth1")
        ip("-n", NODE, "link", "add", "vxlan.calico", *overlay)
        make_pod()
        for namespace, device, count in (
            (NODE, "eth1", 2),
            (NODE, "vxlan.calico", 1),
            (NODE, "cali1", 1),
            (POD, "eth0", 1),
        ):
            preset(namespace, device, count)
        yield
    finally:
        steer("restore", "--owner", OWNER)
        for namespace in (POD, NODE):
            if Path(f"/run/netns/{namespace}").exists():
                ip("netns", "del", namespace)


def plan(nic: str, flows: int, pod: str, table: int | None, **more: Any) -> dict:
    """The roles of a node, found by themselves, and one pod."""
    node_rule = {"namespace": NODE_PATH, "devices": ["auto"], "flows": flows}
    return {
        "version": 1,
        "owner": OWNER,
        "cores": [0, 1],
        "sock_flow_entries": table,
        "rules": [
            {**node_rule, "role": "nic", "cpus": nic},
            {**node_rule, "role": "overlay", "cpus": "none"},
            {**node_rule, "role": "veth", "cpus": nic},
            {
                "role": "pod",
                "namespace": POD_PATH,
                "devices": ["eth0"],
                "cpus": pod,
                "flows": flows,
                "pod": "iperf-server-1",
            },
        ],
        **more,
    }


RFS = plan("none", 32768, "none", 32768)
RPS = plan("all", 0, "all", 0)


@pytest.mark.usefixtures("node")
def test_plan_to_plan_and_back_to_exactly_what_was() -> None:
    before = values()
    first = steer("apply", plan=RFS)
    assert first.returncode == 0, first.stderr
    said = [
        (q["role"], q["device"], q["queue"], q["rps_cpus"], q["rps_flow_cnt"])
        for q in first.answer["queues"]
    ]
    assert said == [
        ("nic", "eth1", "rx-0", "0", 32768),
        ("nic", "eth1", "rx-1", "0", 32768),
        ("overlay", "vxlan.calico", "rx-0", "0", 32768),
        ("veth", "cali1", "rx-0", "0", 32768),
        ("pod", "eth0", "rx-0", "0", 32768),
    ]
    assert first.answer["changed"] == 11
    assert (first.answer["sock_flow_entries"], TABLE.read_text()) == (32768, "32768\n")
    assert inside(POD, "cat", f"{queue('eth0')}/rps_flow_cnt") == "32768\n"
    assert steer("apply", plan=RFS).answer == {**first.answer, "changed": 0}

    second = steer("apply", plan=RPS)
    assert second.answer["changed"] == 10  # the overlay's mask stays 0, and so do the flows' 0
    assert steer("verify", plan=RPS).returncode == 0
    assert inside(NODE, "cat", f"{queue('eth1', 1)}/rps_cpus") == "3\n"

    fewer = {**RFS, "rules": RFS["rules"][:1], "sock_flow_entries": None}
    assert steer("apply", plan=fewer).returncode == 0
    assert TABLE.read_text() == "4096\n"
    assert inside(POD, "cat", f"{queue('eth0')}/rps_cpus") == "2\n"

    restored = steer("restore", "--owner", OWNER)
    assert (restored.returncode, restored.answer["gone"]) == (0, [])
    assert values() == before
    again = steer("restore", "--owner", OWNER)
    assert (again.returncode, again.answer["restored"]) == (0, 0)
    assert values() == before


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("asked", "kept"), [(1, 1), (3, 4), (1000, 1024), (1024, 1024)])
def test_the_kernel_rounds_as_the_agent_expects(asked: int, kept: int) -> None:
    document = plan("none", asked, "none", asked)
    answer = steer("apply", plan=document).answer
    assert {q["rps_flow_cnt"] for q in answer["queues"]} == {kept}
    assert answer["sock_flow_entries"] == kept
    assert steer("apply", plan=document).answer["changed"] == 0
    assert steer("verify", plan=document).returncode == 0


@pytest.mark.usefixtures("table")
def test_the_kernel_takes_no_larger_machine_table_than_the_agent() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        TABLE.write_text(str(2**29 + 1))
    done = steer("apply", plan=plan("none", 0, "none", 2**29 + 1))
    assert (done.returncode, TABLE.read_text()) == (2, "4096\n")


@pytest.mark.usefixtures("node")
def test_a_cpu_beyond_the_machine_is_refused_before_any_write() -> None:
    before = values()
    done = steer("apply", plan=plan(f"{1 << CPUS:x}", 0, "none", 0))
    assert done.returncode == 2
    assert f"CPU {CPUS} does not exist" in done.stderr
    assert values() == before


@pytest.mark.usefixtures("node")
def test_a_recreated_pod_is_told_and_left_alone() -> None:
    steer("apply", plan=RPS)
    ip("netns", "del", POD)
    eventually(lambda: "cali1" not in ip("-n", NODE, "link"))
    make_pod()
    preset(POD, "eth0", 1)
    kinds = {(d["kind"], d["device"]) for d in steer("verify", "--owner", OWNER).answer["drift"]}
    assert ("recreated", "eth0") in kinds
    assert ("recreated", "cali1") in kinds
    done = steer("restore", "--owner", OWNER)
    assert done.returncode == 0
    assert any(f"eth0 rx-0 in {POD_PATH}: " in words for words in done.answer["gone"])
    assert inside(POD, "cat", f"{queue('eth0')}/rps_cpus") == "2\n"
    assert inside(NODE, "cat", f"{queue('eth1')}/rps_cpus") == "2\n"
    assert TABLE.read_text() == "4096\n"


def gro(namespace: str, device: str) -> str:
    """As ethtool prints it: on or off."""
    said = inside(namespace, "ethtool", "-k", device)
    (line,) = (line for line in said.splitlines() if line.startswith("generic-receive-offload:"))
    return line.split()[1]


@pytest.mark.usefixtures("node")
def test_gro_is_switched_in_each_namespace_and_restored() -> None:
    devices = [(NODE, "eth1"), (NODE, "vxlan.calico"), (NODE, "cali1"), (POD, "eth0")]
    before = [gro(*one) for one in devices]
    assert before == ["off", "on", "off", "off"]  # the kernel's defaults
    steps = [
        ("nic", NODE_PATH, "auto", "on"),
        ("overlay", NODE_PATH, "auto", "off"),
        ("pod", POD_PATH, "eth0", "on"),
    ]
    rules = [
        {"role": role, "namespace": path, "devices": [device], "set": {"gro": word}}
        for role, path, device, word in steps
    ]
    document = {"version": 1, "owner": OWNER, "rules": rules}
    done = steer("apply", plan=document)
    assert (done.returncode, done.answer["changed"]) == (0, 3)
    assert [row["gro"] for row in done.answer["devices"]] == ["on", "off", "on"]
    assert [gro(*one) for one in devices] == ["on", "off", "off", "on"]
    assert steer("apply", plan=document).answer["changed"] == 0
    shown = steer("show", f"--namespace={NODE_PATH}").answer["devices"]
    assert {row["device"]: row["gro"] for row in shown if row["namespace"]} == {
        "cali1": "off", "eth1": "on", "vxlan.calico": "off", "wire": "off",
    }  # fmt: skip
    inside(NODE, "ethtool", "-K", "vxlan.calico", "gro", "on")
    (drift,) = steer("verify", "--owner", OWNER).answer["drift"]
    assert (drift["kind"], drift["device"]) == ("value", "vxlan.calico")
    ip("-n", NODE, "link", "set", "eth1", "name", "lan0")
    restored = steer("restore", "--owner", OWNER)
    assert (restored.returncode, restored.answer["restored"]) == (0, 2)
    assert [gro(NODE, "lan0"), *(gro(*one) for one in devices[1:])] == before


# reads or writes a feature of eth1
FEATURE = """
import socket, sys
from agent.ethtool import Ethtool, Feature, opened_here
tso = Feature(Ethtool(opened_here()), socket.if_nametoindex("eth1"), "tx-tcp-segmentation")
for line in sys.argv[1:]:
    tso.write(line.encode())
print(tso.read().decode(), end="")
"""


@pytest.mark.usefixtures("node")
def test_a_feature_that_depends_on_another_is_restored_as_it_was_requested() -> None:
    def feature(*lines: str) -> str:
        return inside(
            NODE, "env", f"PYTHONPATH={AGENT.parent}", sys.executable, "-c", FEATURE, *lines
        )

    assert feature() == "on"
    inside(NODE, "ethtool", "-K", "eth1", "tx", "off")  # no segmentation without checksums
    before = feature()
    assert before == "off [requested on]"
    assert feature("off") == "off"
    assert feature(before) == before
    inside(NODE, "ethtool", "-K", "eth1", "tx", "on")
    assert feature() == "on"


@pytest.mark.usefixtures("node")
def test_a_device_that_took_the_name_keeps_its_gro() -> None:
    rule = {"role": "nic", "namespace": NODE_PATH, "devices": ["eth1"], "set": {"gro": "on"}}
    steer("apply", plan={"version": 1, "owner": OWNER, "rules": [rule]})
    ip("-n", NODE, "link", "del", "eth1")
    ip("-n", NODE, "link", "add", "eth1", "type", "veth", "peer", "name", "wire")
    inside(NODE, "ethtool", "-K", "eth1", "gro", "on")
    done = steer("restore", "--owner", OWNER)
    assert (done.returncode, len(done.answer["gone"]), gro(NODE, "eth1")) == (0, 1, "on")


@pytest.mark.usefixtures("node")
def test_a_gone_namespace_is_skipped_by_restore_and_refused_by_apply() -> None:
    steer("apply", plan=RPS)
    ip("netns", "del", POD)
    refused = steer("apply", plan=RFS)
    assert refused.returncode == 3
    assert f"there is no namespace {POD_PATH}" in refused.stderr
    assert steer("restore", "--owner", OWNER).returncode == 0
    assert inside(NODE, "cat", f"{queue('eth1')}/rps_flow_cnt") == "64\n"


@pytest.mark.usefixtures("node")
def test_a_pod_is_found_again_when_the_process_of_its_path_has_ended() -> None:
    with subprocess.Popen(["ip", "netns", "exec", POD, "sleep", "600"]) as process:
        path = f"/proc/{process.pid}/ns/net"
        eventually(lambda: Path(path).stat().st_ino == Path(POD_PATH).stat().st_ino)
        rules = [{**RPS["rules"][-1], "namespace": path}]
        assert steer("apply", plan={**RPS, "rules": rules}).returncode == 0
        process.kill()
    assert inside(POD, "cat", f"{queue('eth0')}/rps_cpus") == "3\n"
    assert steer("restore", "--owner", OWNER).answer["gone"] == []
    assert inside(POD, "cat", f"{queue('eth0')}/rps_cpus") == "2\n"


@pytest.mark.usefixtures("node")
def test_a_value_changed_by_hand_is_drift() -> None:
    steer("apply", plan=RPS)
    inside(POD, "sh", "-c", f"echo 1 > {queue('eth0')}/rps_cpus")
    done = steer("verify", "--owner", OWNER, "--saved")
    assert done.returncode == 1
    assert [d["message"] for d in done.answer["drift"]] == [
        f"rps_cpus of eth0 rx-0 in {POD_PATH} is 1, not 3"
    ]


@pytest.mark.usefixtures("node")
def test_a_lease_restores_and_its_watchdog_keeps_no_namespace() -> None:
    before = TABLE.read_text()
    steer("apply", plan={**RPS, "lease_seconds": 600})
    (snapshot,) = [s for s in steer("show").answer["snapshots"] if s["owner"] == OWNER]
    ip("netns", "del", POD)
    # the kernel takes the pod's veths, and so the node's ends, only when nobody holds the pod
    eventually(lambda: "cali1" not in ip("-n", NODE, "link"))
    assert Path(f"/proc/{snapshot['watchdog']}").exists()
    make_pod()
    steer("apply", plan={**RPS, "lease_seconds": 1})
    eventually(lambda: not any(s["owner"] == OWNER for s in steer("show").answer["snapshots"]))
    assert inside(NODE, "cat", f"{queue('eth1')}/rps_cpus") == "2\n"
    assert inside(POD, "cat", f"{queue('eth0')}/rps_cpus") == "0\n"
    assert TABLE.read_text() == before


@pytest.mark.usefixtures("node")
def test_the_agent_leaves_no_mount_behind() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    steer("apply", plan=RPS)
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.usefixtures("node")
def test_without_the_machine_table_only_plans_that_need_none_work() -> None:
    """The agent within a namespace, as on a node that is a container."""
    rules = [{"role": "nic", "devices": ["auto"], "cpus": "all", "flows": 0}]
    needs = {"version": 1, "owner": OWNER, "sock_flow_entries": 64, "rules": rules}
    before = values()
    refused = steer("apply", plan=needs, within=NODE)
    assert refused.returncode == 3
    assert str(TABLE) in refused.stderr
    assert values() == before
    done = steer("apply", plan={**needs, "sock_flow_entries": 0}, within=NODE)
    assert (done.returncode, done.answer["sock_flow_entries"]) == (0, None)
    assert [q["device"] for q in done.answer["queues"]] == ["eth1", "eth1"]
    assert steer("restore", "--owner", OWNER, within=NODE).returncode == 0
    assert values() == before


@pytest.mark.usefixtures("node")
def test_a_path_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    rules = [{**RPS["rules"][-1], "namespace": str(file)}]
    done = steer("apply", plan={**RPS, "rules": rules})
    assert (done.returncode, done.stderr) == (3, f"steer: rules[0]: there is no namespace {file}\n")


@pytest.mark.usefixtures("node")
def test_signals_during_apply_leave_all_or_nothing() -> None:
    """Whenever the signal comes, the machine holds the old values or the new ones."""
    old, new = values(), None
    for delay in (0.0, 0.03, 0.06, 0.08, 0.1, 0.12):
        process = subprocess.Popen(
            [sys.executable, AGENT, "apply", "--plan", json.dumps(RPS)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        if process.returncode == 0:
            new = new or values()
            assert values() == new
            assert steer("verify", plan=RPS).returncode == 0
            steer("restore", "--owner", OWNER)
        else:  # said so itself, or had not begun
            assert process.returncode in (143, -signal.SIGTERM)
        assert values() == old


@pytest.fixture
def locked_pod() -> Iterator[str]:
    """A namespace whose sysfs was first mounted read-only, as container runtimes do."""
    name = f"slt-{os.getpid()}-locked"
    ip("netns", "add", name)
    ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    script = "mount -t sysfs -o ro sysfs /sys && echo mounted && exec sleep 60"
    pod = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
    )
    assert pod.stdout
    assert pod.stdout.readline() == b"mounted\n"
    yield str(pod.pid)
    pod.kill()
    pod.wait()
    pod.stdout.close()
    ip("netns", "del", name)


def test_a_pod_whose_sysfs_is_read_only_is_steered_and_stays_so(locked_pod: str) -> None:
    path = f"/proc/{locked_pod}/ns/net"
    rule = {"role": "pod", "namespace": path, "devices": ["eth0"], "cpus": "all", "flows": 64}
    done = steer("apply", plan={"version": 1, "owner": OWNER, "rules": [rule]})
    assert done.returncode == 0, done.stderr
    (row,) = done.answer["queues"]
    assert row["rps_flow_cnt"] == 64
    within = ["nsenter", "--target", locked_pod, "--mount", "--net"]
    tried = subprocess.run(
        [*within, "sh", "-c", f"echo 0 > {queue('eth0')}/rps_cpus"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Read-only file system" in tried.stderr
    assert steer("restore", "--owner", OWNER).answer["restored"] == 2


UPPERS = {
    "bond": (
        "bond0",
        ["link add bond0 type bond", "link set eth1 down", "link set eth1 master bond0"],
    ),
    "team": (
        "team0",
        ["link add team0 type team", "link set eth1 down", "link set eth1 master team0"],
    ),
    "vlan": ("eth1.5", ["link add link eth1 name eth1.5 type vlan id 5"]),
    "bridge": ("br0", ["link add br0 type bridge", "link set eth1 master br0"]),
    "macvlan": ("mv0", ["link add link eth1 name mv0 type macvlan mode bridge"]),
    "ipvlan": ("iv0", ["link add link eth1 name iv0 type ipvlan"]),
}


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("kind", UPPERS)
def test_the_device_below_is_steered_and_put_back(kind: str) -> None:
    upper, make = UPPERS[kind]
    ip("netns", "add", NODE)
    try:
        ip("-n", NODE, "link", "add", "eth1", "type", "veth", "peer", "name", "wire")
        preset(NODE, "eth1", 1)
        try:
            for words in make:
                ip("-n", NODE, *words.split())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel makes no {kind}: {error.stderr.strip()}")
        rule = {"role": "nic", "namespace": NODE_PATH, "devices": [upper], "cpus": "all"}
        document = {"version": 1, "owner": OWNER, "rules": [{**rule, "flows": 128}]}
        done = steer("apply", plan=document)
        assert done.returncode == 0, done.stderr
        (row,) = done.answer["queues"]
        assert (row["device"], row["for"], row["rps_flow_cnt"]) == ("eth1", upper, 128)
        assert inside(NODE, "cat", f"{queue('eth1')}/rps_cpus") == f"{(1 << CPUS) - 1:x}\n"
        assert inside(NODE, "cat", f"{queue(upper)}/rps_cpus").strip("0,\n") == ""
        assert steer("verify", plan=document).returncode == 0

        shown = steer("show", "--namespace", NODE_PATH).answer["uppers"]
        assert shown == [{"namespace": NODE_PATH, "device": upper, "receives_on": ["eth1"]}]

        if kind in ("bond", "team", "bridge"):  # another slave
            ip("-n", NODE, "link", "set", "wire", "down")
            ip("-n", NODE, "link", "set", "wire", "master", upper)
            drift = steer("verify", plan=document).answer["drift"]
            assert [(one["kind"], one["device"]) for one in drift] == [("unsteered", "wire")]
        assert steer("restore", "--owner", OWNER).returncode == 0
        assert inside(NODE, "cat", f"{queue('eth1')}/rps_cpus") == "2\n"
        assert inside(NODE, "cat", f"{queue('eth1')}/rps_flow_cnt") == "64\n"
    finally:
        steer("restore", "--owner", OWNER)
        ip("netns", "del", NODE)


@pytest.mark.usefixtures("node")
def test_the_kernel_takes_as_much_memory_for_a_table_as_the_agent_counts() -> None:
    def used() -> int:
        (line,) = [
            line
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("VmallocUsed:")
        ]
        return int(line.split()[1]) * 1024

    entries = 2**22
    before = used()
    rule = {"role": "pod", "namespace": POD_PATH, "devices": ["eth0"], "cpus": "none"}
    document = {"version": 1, "owner": OWNER, "rules": [{**rule, "flows": entries}]}
    assert steer("apply", plan=document).returncode == 0
    per_entry = (used() - before) / entries
    assert 7.5 < per_entry < 12.5
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available < 2**36:  # of more the largest table is less than a tenth
        refused = steer("apply", plan={**document, "rules": [{**rule, "flows": 2**30}]})
        assert refused.returncode == 3
    assert inside(POD, "cat", f"{queue('eth0')}/rps_flow_cnt") == f"{entries}\n"


@pytest.mark.usefixtures("table")
def test_a_node_of_more_pods_than_open_files_by_default() -> None:
    names = [f"slt-{os.getpid()}-many-{number}" for number in range(60)]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        paths = [f"--namespace=/run/netns/{name}" for name in names]
        command = ["sh", "-c", 'ulimit -Sn 40; exec "$@"', "sh", sys.executable, str(AGENT), "show"]
        done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        for name in made:
            ip("netns", "del", name)
