"""What is decided about a cluster without one: commands, answers, drift, pods, a node in words."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Model
from typing import Any

import pytest
import websocket
from kubernetes.stream import ws_client
from pydantic import ValidationError

from agent import procstat
from agent.archive import digest
from experiments.engines.embedded import kubernetes as kinds
from experiments.host.calls import AgentFailed
from experiments.host.machine import described
from experiments.targets.kubernetes import agents, drift, shell
from experiments.targets.kubernetes.counters import read_edges
from experiments.targets.kubernetes.doctor import NodeFindings, _limited, concluded
from experiments.targets.kubernetes.pods import moved, running, topology
from experiments.targets.kubernetes.probes import pairs
from experiments.targets.kubernetes.shell import LOOK, Answer, PodSession, SshShell
from experiments.validity import Cause
from infra import config
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes import access, measurement
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.nodes import Node, Nodes
from infra.settings import Ssh

NODES = Nodes(
    (Node("s1", "s1", "192.0.2.1", "boot 1", "6.1", 8, True),),
    (Node("c1", "c1", "192.0.2.2", "boot 2", "6.1", 8, True),),
)
IMAGES = '{"iperf3": "registry.example/iperf3:1", "steering": "registry.example/steering:1"}'
STATE = config.state("rfs-plus-2", {"target": "kubernetes", "images": IMAGES}, online=(0, 1))
WHAT = measurement.of(STATE, NODES)

# --- commands ---


def test_ssh_is_strict_and_asks_nobody() -> None:
    words = SshShell("192.0.2.1", Ssh()).command(("python3", "-", "show"))
    assert "BatchMode=yes" in words
    assert "StrictHostKeyChecking=yes" in words
    assert words[-3:] == ["--", "192.0.2.1", "python3 - show"]
    assert "-i" not in words
    assert "-l" not in words


def test_ssh_takes_the_files_that_are_named_and_sudo_for_others_than_root() -> None:
    named = Ssh(user="ops", port=2222, identity_file="/k e/y", known_hosts_file="/ho sts")
    words = SshShell("node", named).command(("cat", "a file; rm -rf /"))
    assert words[words.index("-i") + 1] == "/k e/y"
    assert words[words.index("-p") + 1] == "2222"
    assert 'UserKnownHostsFile="/ho sts"' in words
    assert words[-1] == "sudo -n cat 'a file; rm -rf /'"


BAD_ADDRESSES = [
    "-oProxyCommand=touch MARK", "--", "", "a b", "a;b", "a\nb", "root@node", "node:22", "[::1]",
    "fe80::1%-oProxyCommand=x", "-n.example", "a..b", "a" * 64, "$(touch MARK)", "999.1.1.1/8",
]  # fmt: skip


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_an_address_that_is_none_runs_nothing(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="address"):
        SshShell(address.replace("MARK", str(tmp_path / "mark")), Ssh()).start(("true",))
    assert not (tmp_path / "mark").exists()
    guard = {
        "stack": "s", "node": "n", "hostname": "n", "address": address, "boot_id": "b",
        "kubeconfig": "", "context": "", "image": "i:1", "ssh": None,
    }  # fmt: skip
    with pytest.raises(ValidationError):
        Finalizer.model_validate(guard)


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "2001:db8::1", "node", "Node-1.example.com.", "ip-10-0-0-1.ec2.internal"],
)
def test_an_address_is_an_ip_or_a_dns_name(address: str) -> None:
    assert SshShell(address, Ssh()).command(("true",))[-3:] == ["--", address, "true"]


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("user", "-oProxyCommand=x"),
        ("user", "a b"),
        ("knownHostsFile", '/h" "/other'),
        ("knownHostsFile", "/h\nProxyCommand x"),
        ("configFile", "/c\0"),
    ],
)
def test_words_for_ssh_that_could_become_others_are_refused(key: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=rf"ssh\.{key}"):
        config.state(
            "rfs-plus-2",
            {"target": "kubernetes", "nodeAccess": "ssh", "ssh": json.dumps({key: word})},
            online=(0, 1),
        )


# --- the agent's answers ---


@pytest.mark.parametrize(
    ("status", "raised"),
    [(2, InvalidInput), (3, PrerequisiteMissing), (1, AgentFailed), (137, AgentFailed)],
)
def test_a_refusal_keeps_its_meaning_and_says_where(status: int, raised: type) -> None:
    with pytest.raises(raised, match="pod agent-1: no such device"):
        agents.read(Answer(status, "", "steer: no such device\n"), "apply", "pod agent-1")


def test_drift_is_an_answer() -> None:
    said = json.dumps(
        {"drift": [{"message": "x"}], "queues": [], "warnings": [], "sock_flow_entries": None}
    )
    assert agents.read(Answer(1, said, "steer: drift"), "verify", "n")["drift"]
    with pytest.raises(AgentFailed):
        agents.read(Answer(1, said, ""), "apply", "n")


def test_an_answer_that_is_no_json_is_a_failure() -> None:
    with pytest.raises(AgentFailed, match="exit status 0"):
        agents.read(Answer(0, "Traceback", ""), "show", "n")


# --- look ---


def test_look_runs_anywhere_and_leaves_out_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mtu").write_text("1450\n")
    assert procstat.read_files(("a", "a/*", "b"), tmp_path) == {"/a": "a", "/a/mtu": "1450\n"}
    request = json.dumps({"files": ["proc/sys/kernel/osrelease"], "commands": [["echo", "hi"]]})
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOOK, request], capture_output=True, check=True
    )
    answer = json.loads(said.stdout)
    assert answer["files"].keys() == {"/proc/sys/kernel/osrelease"}
    assert answer["commands"] == {"echo hi": "hi\n"}


def looking(seconds: float | None) -> subprocess.Popen[str]:
    """The reader of a window of so many seconds."""
    request = json.dumps({"window": [0.0, seconds]})
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LOOK, request],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_window_has_two_edges_and_begins_when_it_is_told() -> None:
    with looking(0.2) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        out, _ = process.communicate("go\n", timeout=20)
    first, last = json.loads(out)
    assert last["at"] - first["at"] == pytest.approx(0.2, abs=0.1)
    assert first.keys() >= {"stat", "softirqs", "softnet", "own_cpu"}


def test_a_window_without_a_duration_ends_when_it_is_told() -> None:
    with looking(None) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(0.3)
        assert process.poll() is None
        out, _ = process.communicate("end\n", timeout=20)
    first, last = json.loads(out)
    assert last["at"] - first["at"] > 0.2


def test_a_window_that_nobody_begins_ends() -> None:
    request = json.dumps({"window": [0.0, 60.0]})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOOK, request],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert b"start signal" in done.stderr


# --- pods ---


def pod(index: int, role: str = "server", uid: str = "u", restarts: int = 0, **more: Any) -> Model:
    ready = more.get("ready", "True")
    return Model(
        metadata=Model(
            labels={"steerlab/role": role, "steerlab/pair": str(index)},
            name=f"iperf-{role}-{index}-x",
            uid=uid,
            deletion_timestamp=more.get("going"),
        ),
        spec=Model(
            node_name=more.get("node", "c1" if role == "client" else "s1"),
            containers=[
                Model(name="sidecar", resources=None),
                Model(name=more.get("image", "iperf3"), resources=Model(limits=more.get("limits"))),
            ],
        ),
        status=Model(
            conditions=[Model(type="Ready", status=ready)],
            container_statuses=[Model(restart_count=restarts)],
            pod_ip=f"10.0.0.{index}",
            host_ip="192.0.2.1",
            phase="Running",
        ),
    )


def test_pods_that_run_are_ready_and_not_going() -> None:
    listed = [pod(1), pod(2, ready="False"), pod(3, going="now"), pod(4, role="client")]
    assert running(listed, "server", {"iperf3"}).keys() == {1}
    assert running(listed, "client", {"iperf3"})[4].address == "10.0.0.4"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([pod(1)], []),
        ([pod(1, uid="v")], ["pod iperf-server-1 was recreated on node s1"]),
        ([pod(1, restarts=1)], ["pod iperf-server-1 was restarted"]),
        ([], ["pod iperf-server-1 no longer exists or is not ready"]),
    ],
)
def test_pods_that_moved_spoil_a_run(after: list[Any], said: list[str]) -> None:
    client = running([pod(1, role="client")], "client", {"iperf3"})
    before, now = running([pod(1)], "server", {"iperf3"}), running(after, "server", {"iperf3"})
    reasons = moved((before, client), (now, client), [1])
    assert [reason.text for reason in reasons] == said
    assert {reason.cause for reason in reasons} <= {Cause.TOPOLOGY}


@pytest.mark.parametrize(
    ("asked", "server", "client", "limit", "wrong"),
    [
        ("", {}, {}, None, None),
        ("", {"limits": {"memory": "1Gi"}}, {}, None, None),
        # a LimitRange's default, of both
        ("", {"limits": {"cpu": "500m"}}, {"limits": {"cpu": "0.5"}}, "0.5", None),
        ("200m", {"limits": {"cpu": "200m"}}, {"limits": {"cpu": "0.2"}}, "0.2", None),
        ("200m", {}, {}, None, "the pods have a CPU quota of none, not 200m"),
        ("", {"limits": {"cpu": "1"}}, {}, "1", "the pods have different CPU quotas: 1 and none"),
        (
            "",
            {"node": "c1"},
            {},
            None,
            "pod iperf-server-1 runs on node c1, which is not a server node",
        ),
    ],
)
def test_the_quota_is_that_of_the_pods_and_their_nodes_are_held_against_the_claim(
    asked: str, server: dict[str, Any], client: dict[str, Any], limit: str | None, wrong: str | None
) -> None:
    values = {"target": "kubernetes", "images": IMAGES, "podCpuLimit": asked}
    state = config.state("rfs-1", values, online=(0, 1))
    what = measurement.of(state, NODES)
    there = (
        running([pod(1, **server)], "server", {"iperf3"}),
        running([pod(1, "client", **client)], "client", {"iperf3"}),
    )
    found = topology(what, there, 1)
    assert found.pod_cpu_limit == limit
    assert [reason.text for reason in found.reasons] == ([] if wrong is None else [wrong])


def test_a_pod_that_does_not_run_is_named() -> None:
    [reason] = topology(WHAT, (running([pod(1)], "server", {"iperf3"}), {}), 1).reasons
    assert reason.text == "pod iperf-client-1 does not run in steerlab-rfs-plus-2"


EDGE = {"at": 1.0, "own_cpu": 0.1, "stat": "cpu0 1", "softirqs": "", "softnet": "", "own": None}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "in time"),
        (Answer(1, "", "Traceback\nMemoryError"), "MemoryError"),
        (Answer(137, "", ""), "SIGKILL"),
        (Answer(0, "", ""), "cannot be read"),
        (Answer(0, "ready\n[1", ""), "cannot be read"),
        (Answer(0, json.dumps([EDGE]), ""), "cannot be read"),
        (Answer(0, json.dumps([EDGE, {"at": 1}]), ""), "cannot be read"),
        (Answer(0, json.dumps([EDGE, 7]), ""), "cannot be read"),
    ],
)
def test_a_reader_that_brings_no_edges_is_a_reason(answer: Answer | None, words: str) -> None:
    edges, [reason] = read_edges({"s1": answer, "s2": Answer(0, json.dumps([EDGE, EDGE]), "")})
    assert edges.keys() == {"s2"}
    assert "node s1" in reason.text
    assert words in reason.text


class Socket:
    """A websocket whose connection was lost in one of several ways."""

    def __init__(self, returncode: Any, error: Exception | None = None) -> None:
        self._returncode, self._error = returncode, error

    def peek_stdout(self, **_: float) -> str:
        if self._error:
            raise self._error
        return ""

    def is_open(self) -> bool:
        return False

    def read_stdout(self, **_: float) -> str:
        return ""

    read_stderr = read_stdout

    @property
    def returncode(self) -> Any:
        if isinstance(self._returncode, Exception):
            raise self._returncode
        return self._returncode


@pytest.mark.parametrize(
    "socket",
    [
        Socket(None),
        Socket(TypeError("'NoneType' object is not subscriptable")),
        Socket(KeyError("status")),
        Socket(ValueError("invalid literal for int()")),
        Socket(None, ConnectionResetError(104, "Connection reset by peer")),
    ],
)
def test_a_lost_connection_is_an_answer(socket: Socket) -> None:
    answer = PodSession(socket).finish(time.monotonic() + 1)
    assert answer is not None
    assert answer.status == 1
    assert "the connection to the pod was lost" in answer.err


@pytest.mark.parametrize("end", ["lost", "closed", "silent"])
def test_a_command_in_a_pod_has_lines_an_end_and_heartbeats(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    here, there = socket.socketpair()
    connection = websocket.WebSocket()
    connection.sock, connection.connected = here, True
    monkeypatch.setattr(ws_client, "create_websocket", lambda *_: connection)
    monkeypatch.setattr(shell, "HEARTBEAT_S", 0.01)
    session = PodSession(ws_client.WSClient(None, "", None, capture_all=True))

    def send(text: str, opcode: int = websocket.ABNF.OPCODE_BINARY) -> None:
        there.sendall(websocket.ABNF.create_frame(text.encode(), opcode).format())

    send("\x01ready\nmore\nla")
    assert [session.await_line(1), session.await_line(1)] == ["ready", "more"]
    assert session.await_line(0.05) == ""
    assert there.recv(2)[0] & 0xF == websocket.ABNF.OPCODE_PING
    assert session.running()
    if end == "lost":
        there.close()
        assert session.await_line(1) == ""
        ended = session.finish(time.monotonic() + 5)
        assert ended
        assert "the connection to the pod was lost" in ended.err
        return
    send("\x01st\n")
    send('\x03{"status": "Success"}')
    if end == "closed":
        send("", websocket.ABNF.OPCODE_CLOSE)
    else:
        there.close()
    assert not session.running()
    assert session.finish(time.monotonic() + 5) == Answer(0, "last\n", "")
    session.close()


def test_a_connection_that_ends_without_a_word_has_the_status_that_arrived() -> None:
    socket = Socket(0, ConnectionResetError(104, "Connection reset by peer"))
    assert PodSession(socket).finish(time.monotonic() + 1) == Answer(0, "", "")


def test_a_node_is_described_by_its_files() -> None:
    """Of unlike nodes' NICs only those that this node has."""
    files = {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: X\n\nprocessor\t: 1\nmodel name\t: X\n",
        "/proc/sys/kernel/osrelease": "6.1.0\n",
        "/sys/devices/system/cpu/online": "0-1\n",
        "/sys/class/net/eth1/mtu": "1500\n",
        "/sys/class/net/eth1/queues/rx-0": "rx-0",
        "/sys/class/net/eth1/queues/rx-1": "rx-1",
    }
    printed = {
        "uname -m": "x86_64\n",
        "ethtool --show-features eth1": "generic-receive-offload: on\nother: off\n",
        "ethtool --show-features enp3s0": "",
    }
    found = described({"files": files, "commands": printed}, ["enp3s0", "eth1"], {"iperf3": "3.12"})
    assert (found.cores, found.cpu, found.kernel) == (2, "X", "6.1.0")
    assert found.mtu == {"eth1": 1500}
    assert found.queues == {"eth1": 2}
    assert found.offloads == {"eth1": {"generic-receive-offload": True}}


# --- drift ---


def resource(kind: str, name: str, **inputs: Any) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:s::steerlab::{kind}::{name}", "type": kind, "inputs": inputs}


def stack() -> list[dict[str, Any]]:
    guard = Finalizer(
        stack="s",
        node="s1",
        hostname="s1",
        address="192.0.2.1",
        boot_id="b",
        kubeconfig="",
        context="",
        image="steerlab/steering:1",
        ssh=None,
    )
    stdin = json.dumps({"guard": guard.model_dump()}, separators=(",", ":"))
    meta = {"name": "steer-s1", "namespace": "n"}
    return [
        resource("pulumi:providers:kubernetes", "cluster"),
        resource("kubernetes:core/v1:Namespace", "n", metadata={"name": "n"}),
        resource("command:local:Command", "guard-s1", stdin=stdin),
        resource("kubernetes:batch/v1:Job", "steer-s1", metadata=meta),
    ]


THERE = {("Namespace", "", "n"), ("Job", "n", "steer-s1")}


def test_what_is_gone_and_what_is_not_steered_is_found() -> None:
    assert drift.compare(stack(), THERE, lambda _: []) == []
    (one,) = drift.compare(stack(), THERE, lambda guard: [f"{guard.node} lost its masks"])
    assert (one.name, one.why) == ("steer-s1", "s1 lost its masks")
    gone = drift.compare(stack(), {("Namespace", "", "n")}, lambda _: ["and not steered"])
    assert [(one.name, one.why) for one in gone] == [("steer-s1", "Job steer-s1 no longer exists")]


def test_a_stack_of_the_lab_is_none_of_a_cluster() -> None:
    assert drift.of_cluster(stack())
    assert not drift.of_cluster([resource("command:local:Command", "x")])


# --- the doctor ---

FILES = {
    "/proc/interrupts": "CPU0 CPU1\n",
    "/proc/7/comm": "irqbalance\n",
    "/proc/sys/net/core/rps_default_mask": "3\n",
    "/sys/class/net/eth0/mtu": "1500\n",
    "/sys/class/net/flannel.1/mtu": "1500\n",
    "/sys/class/net/flannel.1/type": "1\n",
    "/sys/class/net/tunl0/mtu": "1480\n",
    "/sys/class/net/tunl0/type": "768\n",
}
FEATURES = {
    "ethtool --show-features eth0": "generic-receive-offload: off\n",
    "ethtool --show-features flannel.1": "generic-receive-offload: on\n",
    "ethtool --show-features tunl0": "generic-receive-offload: on\n",
}


def examined(overlay: tuple[str, ...] = ("flannel.1",), **more: Any) -> NodeFindings:
    found = NodeFindings("s1", "server", 8, "6.1")
    shown = {"sock_flow_entries": 0, "snapshots": [], **more}
    queues = [
        {"role": "nic", "device": "eth0", "queue": "rx-0"},
        {"role": "nic", "device": "eth0", "queue": "rx-1"},
        {"role": "nic", "device": "eth0", "queue": "tx-0"},
        *({"role": "overlay", "device": name, "queue": "rx-0"} for name in overlay),
        {"role": "pod", "device": "eth0", "queue": "rx-0"},
        *(
            {"role": "veth", "device": name, "queue": "rx-0"}
            for name in more.get("veths", ("cali1",))
        ),
    ]
    meant = {"queues": queues, "drift": more.get("drift", [])}
    commands = FEATURES | more.get("commands", {})
    concluded(found, STATE, shown, meant, {"files": FILES, "commands": commands})
    return found


def test_an_image_with_another_agent_is_named() -> None:
    asked = " ".join(agents.HASH)
    assert not examined(commands={asked: f"{digest()}\n"}).lacks
    for printed in (f"{'0' * 64}\n", ""):
        (said,) = examined(commands={asked: printed}).lacks
        assert "registry.example/steering:1" in said


def test_a_node_s_devices_and_what_could_mislead() -> None:
    found = examined(snapshots=[{"owner": "other/s1"}])
    assert "nic eth0: MTU 1500, 2 rx queues" in found.facts
    assert "eth0 interrupts at most 2 of 8 cores: RPS can use the others" in found.facts
    assert found.lacks == []
    said = "\n".join(found.cautions)
    assert "owner other/s1" in said
    assert "MTU 1500 of flannel.1 with 50 bytes of headers is more than 1500 of eth0" in said
    assert "irqbalance runs" in said
    assert "rps_default_mask is 3" in said
    assert "generic-receive-offload is off on eth0" in said


def test_a_node_without_a_tunnel_and_one_with_smaller_headers() -> None:
    found = examined(())
    assert found.lacks == []
    assert any(fact.startswith("overlay none") for fact in found.facts)
    lost = {
        "kind": "missing",
        "message": "no nic device matches auto, and no route to pod 10.0.0.1",
    }
    assert not any("overlay none" in fact for fact in examined((), drift=[lost]).facts)
    said = "\n".join(examined(("tunl0",)).cautions)
    assert "bytes of headers" not in said  # 1480 and 20 are 1500


def test_pods_without_a_device_on_the_node() -> None:
    assert any("no device on the node" in fact for fact in examined(veths=()).facts)
    assert not any("no device on the node" in fact for fact in examined().facts)


def test_doctor_has_a_pair_of_each_image_on_each_node() -> None:
    nodes = Nodes(NODES.servers, (*NODES.clients, replace(NODES.clients[0], name="c2")))
    found = pairs(STATE, nodes)
    assert [(one.server.name, one.client.name) for one in found] == [("s1", "c1"), ("s1", "c2")]
    images = json.dumps({**json.loads(IMAGES), "rr": "registry.example/rr:1"})
    mixed = config.state(
        "rfs-plus-2", {"target": "kubernetes", "images": images, "traffic": "mixed"}, online=(0, 1)
    )
    kinds_of = [(one.index, one.kind.image, one.client.name) for one in pairs(mixed, nodes)]
    assert sorted(kinds_of, key=lambda one: one[0]) == [
        (1, "iperf3", "c1"), (2, "iperf3", "c2"), (3, "rr", "c1"), (4, "rr", "c2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "wanted", "differs"),
    [(None, "", False), ("100m", "", True), ("0.2", "200m", False), ("100m", "200m", True)],
)
def test_a_cpu_limit_that_a_stack_does_not_set_is_said(
    limit: str | None, wanted: str, differs: bool
) -> None:
    resources = Model(limits={"cpu": limit} if limit else None)
    of = Model(spec=Model(containers=[Model(name="iperf3", resources=resources)]))
    assert bool(_limited(of, wanted)) is differs


def test_a_node_whose_kernel_cpus_and_devices_are_special() -> None:
    found = examined(
        uppers=[{"namespace": None, "device": "bond0", "receives_on": ["eth0", "eth1"]}],
        cpus={"online": [0, 1, 2, 3], "present": [0, 1, 2, 3], "isolated": [2, 3]},
        warnings=["this kernel can crash"],
    )
    said = "\n".join(found.facts)
    assert "bond0 receives on eth0, eth1" in said
    assert "CPUs 2-3 are isolated" in said
    assert "this kernel can crash" in found.cautions


def test_what_a_node_lacks() -> None:
    """A table that is wanted and not visible is missing in the agent's answer, too."""
    missing = {"kind": "missing", "message": "no overlay device matches auto"}
    values = {"kind": "value", "message": "rps_cpus is 0, not 3"}
    found = examined(sock_flow_entries=None, drift=[missing, values])
    assert found.lacks == ["no overlay device matches auto"]


# --- the embedded engine's objects ---


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}, False),
        (
            {
                "observedGeneration": 2,
                "updatedReplicas": 1,
                "availableReplicas": 1,
                "replicas": 1,
            },
            True,
        ),
        (
            {
                "observedGeneration": 1,
                "updatedReplicas": 1,
                "availableReplicas": 1,
                "replicas": 1,
            },
            False,
        ),
        (
            {
                "observedGeneration": 2,
                "updatedReplicas": 1,
                "availableReplicas": 1,
                "replicas": 2,
            },
            False,
        ),
    ],
)
def test_a_rollout_has_ended(status: dict[str, int], done: bool) -> None:
    live = {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}
    assert kinds.rolled_out(live) is done


def test_kubeconfigs_are_named_not_quoted() -> None:
    assert kinds.provider_problems({"kubeconfig": "/path", "context": "x"}) == []
    assert "path of a file" in kinds.provider_problems({"kubeconfig": "apiVersion: v1\nusers:"})[0]
    assert "namespace" in kinds.provider_problems({"namespace": "x"})[0]


@pytest.mark.parametrize("kubeconfig", ["~/config", ""])
def test_without_a_home_there_is_no_kubeconfig_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kubeconfig: str
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrerequisiteMissing, match="kubeconfig"):
        access.connect(kubeconfig, "")


def test_objects_need_names_and_have_ids_as_pulumi_gives_them() -> None:
    assert kinds.problems({"metadata": {"generateName": "x-"}})
    assert kinds.problems({"metadata": {"name": "x"}}) == []
    objects = kinds.Objects({}, threading.Event(), preview=False)
    assert objects.new_id("x", {"metadata": {"namespace": "n", "name": "x"}}) == "n/x"
    assert objects.new_id("x", {"metadata": {"name": "x"}}) == "x"
    assert kinds.kind_of("kubernetes:core/v1:Secret") is None


def test_a_warning_in_the_log_of_a_job_leaves_its_answer_whole() -> None:
    """A container's log has both streams."""
    answer = '{\n "owner": "x/a",\n "restored": 1,\n "failed": []\n}\n'
    for log in (f"{answer}steer: somebody else had written 1\n", f"steer: a warning\n{answer}"):
        said = agents.of_log(0, log)
        assert json.loads(said.out)["restored"] == 1
        assert said.err.startswith("steer: ")
    assert agents.of_log(1, "exec format error\n").err == "exec format error"
