"""Episodes of a cluster without one: the agent's and the clients' execs, windows, what spoils them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cluster_parts import IMAGES, NODES, pod

from agent.archive import digest
from agent.session import LOOK
from experiments.host import calls, procstat
from experiments.host.calls import AgentFailed
from experiments.run import episodes, measure
from experiments.run.episodes import Timing
from experiments.run.verdict import Verdict
from experiments.targets.contract import BarrierBroken, EpisodeLost, WindowResult
from experiments.targets.kubernetes import agents, clients, clocks, sessions
from experiments.targets.kubernetes.backend import KubernetesBackend
from experiments.targets.kubernetes.clients import UNTIL
from experiments.targets.kubernetes.sessions import NodeAgent
from experiments.targets.kubernetes.shell import Answer, SshSession, SshShell
from experiments.validity import Cause
from infra import config
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes import agent as pods
from infra.kubernetes import measurement
from infra.kubernetes.nodes import Node, Nodes
from infra.settings import Ssh
from infra.traffic import pingpong

DATA = Path(__file__).parent / "data"
NAMES = ("rfs-plus", "baseline")
AROUND = {"proc-before": 99.0, "proc-after": 101.0}
UIDS = {1: "0a1b2c3d-0000-4000-8000-000000000001", 2: "0a1b2c3d-0000-4000-8000-000000000002"}


class Exec:
    """Stands for the exec of a pod: its lines, and how it ends."""

    def __init__(
        self, *answers: Answer | None, lines: Sequence[str] = ("ready\n",), running: bool = True
    ) -> None:
        self._answers = iter(answers)
        self._lines = iter(lines)
        self._running = running
        self.told: list[str] = []
        self.closed = False

    def __str__(self) -> str:
        return "pod agent-1"

    def start(self, words: Sequence[str]) -> Exec:
        self.words = words
        return self

    def await_line(self, _: float) -> str:
        return next(self._lines, "")

    def say(self, line: str) -> None:
        self.told.append(line)

    def running(self) -> bool:
        return self._running

    def finish(self, _: float) -> Answer | None:
        return next(self._answers)

    def close(self) -> None:
        self.closed = True


# the agent

EPISODE = '{"start": 1, "plans": {}, "windows": []}'


def ended(status: int, messages: str = "") -> str:
    """The last line of an answer."""
    return json.dumps({"ended": status, "messages": messages})


class OwnAgent:
    """The agent of this machine, each session a process of its own."""

    def __init__(self) -> None:
        self.sessions: list[SshSession] = []

    def __str__(self) -> str:
        return "this machine"

    def start(self, words: Sequence[str]) -> SshSession:
        own = [*calls.COMMAND, *words[len(pods.AGENT) :]]
        if words == agents.HASH:
            own = ["echo", digest()]
        self.sessions.append(SshSession(SshShell("node", Ssh()), own, None))
        return self.sessions[-1]


@pytest.fixture
def node() -> Iterator[OwnAgent]:
    made = OwnAgent()
    yield made
    for session in made.sessions:
        session.close()


def test_calls_of_an_agent_share_a_connection(node: OwnAgent, tmp_path: Path) -> None:
    agent = NodeAgent(lambda: node)
    (tmp_path / "file").write_text("text\n")
    for _ in range(2):
        assert "queues" in agent.verb("show")
        name = str(tmp_path / "file")
        assert agent.look({"files": [name[1:]]})["files"] == {name: "text\n"}
    with pytest.raises(InvalidInput, match="this machine: plan"):
        agent.verb("verify", plan={"version": 0})
    with pytest.raises(InvalidInput, match="plan: missing"):
        agent.verb("apply")
    with pytest.raises(PrerequisiteMissing, match="reading files"):
        agent.look({})
    with pytest.raises(InvalidInput, match="switchback"), agent.episode({}):
        pass
    assert sum(session.running() for session in node.sessions) == 1


def test_lines_to_a_call_that_has_failed_are_no_calls(node: OwnAgent) -> None:
    """Otherwise each later call would get the answer of the one before it."""
    agent = NodeAgent(lambda: node)
    with agent.ready(LOOK, json.dumps({"window": [0, "no number"]})) as call:
        call.say("go")
        answer = call.finish(time.monotonic() + 30)
        assert answer
        assert answer.status == 1
        call.say("end")
    assert "queues" in agent.verb("show")


def test_a_lost_connection_is_opened_again(node: OwnAgent) -> None:
    agent = NodeAgent(lambda: node)
    agent.verb("show")
    node.sessions[0].close()
    assert "queues" in agent.verb("show")
    assert len(node.sessions) == 2


def test_an_episode_of_a_node_starts_when_it_is_told() -> None:
    shell = Exec(lines=("ready", EPISODE, ended(0)))
    with NodeAgent(lambda: shell).episode({"version": 1}) as start:
        assert [json.loads(line) for line in shell.told] == [
            ["switchback", "--schedule", '{"version":1}']
        ]
        assert start(3) == json.loads(EPISODE)
    assert shell.words == ("python3", "-I", "/steer.pyz", "session")
    assert shell.told[1:] == ["start"]
    assert not shell.closed


@pytest.mark.parametrize(
    ("shell", "raised", "words"),
    [
        (Exec(lines=(ended(3, "steer: eth1 is held"),)), PrerequisiteMissing, "agent-1: eth1"),
        (Exec(Answer(1, "", "connection lost"), lines=()), AgentFailed, "connection lost"),
        (Exec(None, lines=()), PrerequisiteMissing, "not ready within .*fuser"),
        (Exec(Answer(1, "", "connection lost")), AgentFailed, "connection lost"),
        (Exec(None), PrerequisiteMissing, "did not end"),
        (Exec(lines=("ready", '{"ended": "x"}')), PrerequisiteMissing, "the end of an answer"),
    ],
)
def test_an_episode_of_a_node_that_fails(shell: Exec, raised: type, words: str) -> None:
    def begin() -> None:
        with NodeAgent(lambda: shell).episode({}) as start:
            start(1)

    with pytest.raises(raised, match=words):
        begin()


def test_an_episode_that_is_given_up_closes_its_connection() -> None:
    shell = Exec(lines=("ready",))
    with NodeAgent(lambda: shell).episode({}):
        assert not shell.closed
    assert shell.closed


def of_version(hashed: str) -> Exec:
    """An agent that does not know the verb, and then the hash of its image."""
    usage = "usage: steer [-h] VERB ...\nsteer: error: argument VERB: invalid choice: 'session'"
    return Exec(Answer(2, "", usage), Answer(0, f"{hashed}\n", ""), lines=())


@pytest.mark.parametrize("call", ["verify", "switchback"])
def test_the_agent_of_another_version_is_named_with_the_remedy(call: str) -> None:
    def begin(shell: Exec) -> None:
        agent = NodeAgent(lambda: shell)
        if call == "verify":
            agent.verb("verify", plan={})
            return
        with agent.episode({}):
            pass

    with pytest.raises(PrerequisiteMissing, match=r"kubernetes\.images"):
        begin(of_version("0" * 64))
    with pytest.raises(InvalidInput) as error:  # the same version: a fault of this program
        begin(of_version(digest()))
    assert "kubernetes.images" not in str(error.value)


def test_an_agent_that_is_not_ready_in_time_is_told_by_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over SSH the end of its session would look like an agent that was killed."""
    monkeypatch.setattr(sessions, "READY_S", 0.05)
    shell = Exec(Answer(-9, "", ""), lines=())
    monkeypatch.setattr(shell, "await_line", lambda seconds: time.sleep(seconds) or "")
    with (
        pytest.raises(PrerequisiteMissing, match="not ready within"),
        NodeAgent(lambda: shell).episode({}),
    ):
        pass


def test_a_session_over_ssh_keeps_stdin_open() -> None:
    look = "import select; input(); print(select.select([0], [], [], 0.3)[0])"
    session = SshSession(SshShell("node", Ssh()), [sys.executable, "-c", look], None)
    session.say("start")
    assert session.running()
    assert session.finish(time.monotonic() + 10) == Answer(0, "[]\n", "")
    session.say("to nobody")
    assert not session.running()
    session.close()


# clients


@pytest.mark.parametrize(("told", "status"), [("go\nstop\n", 143), ("go\n", 143), ("", 1)])
def test_a_client_ends_when_it_is_told_or_its_connection_is_lost(told: str, status: int) -> None:
    done = subprocess.run(
        ["sh", "-c", UNTIL, "sh", "sleep", "60"],
        input=told,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "ready\n")


def test_a_client_that_ends_by_itself_ends_its_shell() -> None:
    words = ["sh", "-c", UNTIL, "sh", "sh", "-c", "echo done; exit 7"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as shell:
        assert shell.stdin
        assert shell.stdout
        shell.stdin.write("go\n")
        shell.stdin.flush()
        assert shell.stdout.read() == "ready\ndone\n"
        assert shell.wait(10) == 7


def slow(name: str, seconds: float, made: list[Exec]) -> Callable[[], Exec]:
    """What starts a session after some seconds; that of `fails` is not ready."""

    def start() -> Exec:
        time.sleep(seconds)
        lines = () if name == "fails" else ("ready\n",)
        made.append(shell := Exec(Answer(1, "", "no"), lines=lines))
        return clients.ready(shell, ("true",), name)  # type: ignore[return-value]

    return start


def test_clients_start_at_the_same_time_and_are_closed() -> None:
    made: list[Exec] = []
    both = threading.Barrier(2)

    def start() -> Exec:
        both.wait(10)
        return slow("client", 0, made)()

    with clients.starting({1: start, 2: start}) as started:
        assert list(started()) == [1, 2]
        assert not any(one.closed for one in made)
    assert [one.closed for one in made] == [True, True]


def test_a_client_that_starts_after_another_one_failed_is_closed_too() -> None:
    made: list[Exec] = []
    commands = {1: slow("fails", 0, made), 2: slow("client", 0.3, made)}
    with (
        pytest.raises(BarrierBroken, match="fails did not start: no"),
        clients.starting(commands) as started,
    ):
        started()
    assert len(made) == 1
    eventually = time.monotonic() + 10
    while len(made) < 2 or not made[1].closed:
        assert time.monotonic() < eventually
        time.sleep(0.01)


# windows


def whats(kind: str) -> list[measurement.ClusterMeasurement]:
    images = json.dumps({**json.loads(IMAGES), "rr": "registry.example/rr:1"})
    values = {
        "target": "kubernetes", "images": images, "traffic": kind, "replicas": "2", "via": "pod",
    }  # fmt: skip
    return [
        measurement.of(config.state("sweep-x", {**values, "configuration": name}, (0, 1)), NODES)
        for name in NAMES
    ]


def edge(folder: str, at: float) -> dict[str, Any]:
    read = procstat.CounterSample.read(DATA / folder)
    texts = {"stat": read.stat, "softirqs": read.softirqs, "softnet": read.softnet}
    return {"at": at, "own_cpu": at / 1000, "tasks": [], "own": None, "tick": 100, **texts}


class Told:
    """Stands for a place that tells its time, `ahead` of this machine by so many seconds."""

    def __init__(self, ahead: float, late: float) -> None:
        self._ahead, self._late = ahead, late

    def say(self, _: str) -> None:
        time.sleep(self._late)

    def await_line(self, _: float) -> str:
        return f"{time.monotonic() + self._ahead:.9f}\n"

    def close(self) -> None:
        pass


class Latency(Exec):
    """Stands for the pod of a client whose clock is ahead by 40 s of its node's."""

    late = 0.0

    def start(self, words: Sequence[str]) -> Any:
        return Told(50, self.late) if clocks.TELL in words else super().start(words)


DEVICES: list[dict[str, Any]] = [
    {"role": "nic", "namespace": None, "device": "ens5", "pod": None},
    {"role": "pod", "namespace": "pod:1", "device": "eth0", "pod": "iperf-server-1"},
]


class Cluster:
    """Stands for API, agent and clients of a stack with two pairs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.traffic = "stream:congestion=cubic"
        self.pods = [self._pod(role, index) for role in ("server", "client") for index in UIDS]
        self.later: list[Any] | None = None  # the pods at the end
        self.clients: dict[int, Exec] = {index: Exec(Answer(1, "", "killed")) for index in UIDS}
        self.agent: Exec | None = None
        self.spoiled: list[dict[str, Any]] = []
        self.read: Answer | None = None  # of the reader of all processes
        self.schedule: dict[str, Any] = {}
        monkeypatch.setattr(KubernetesBackend, "_listed", lambda _: self._list())
        monkeypatch.setattr(
            KubernetesBackend,
            "_agent",
            lambda _, __, use="": NodeAgent(lambda: self._reader() if use else self),
        )
        monkeypatch.setattr(
            KubernetesBackend,
            "_pod_shell",
            lambda _, running: self.clients[int(running.name.split("-")[2])],
        )
        self._asked = 0

    @staticmethod
    def _pod(role: str, index: int) -> Any:
        return pod(index, role, UIDS[index])

    def _list(self) -> list[Any]:
        self._asked += 1
        return self.pods if self._asked == 1 or self.later is None else self.later

    def start(self, words: Sequence[str]) -> Any:
        """An exec in the pod of the agent: the agent, or a clock."""
        if clocks.TELL in words:
            return Told(10, 0)
        self.agent = self.agent or Exec(lines=("ready", json.dumps(self._answer()), ended(0)))
        return self.agent

    def _reader(self) -> Exec:
        """The connection of a reader of all processes."""
        edges = [{**edge(name, at), "own": [9]} for name, at in AROUND.items()]
        read = self.read or Answer(0, json.dumps(edges), "")
        self.reader = Exec(lines=("ready", *filter(None, [read.out]), ended(read.status, read.err)))
        return self.reader

    def _answer(self) -> dict[str, Any]:
        rows = [
            {
                **window,
                "edges": [edge("proc-before", 100), edge("proc-after", 100.4)],
                "received": [{"bytes": 5e6 * index, "seconds": 0.4} for index in UIDS],
                "trace": [],
                "spoiled": self.spoiled,
            }
            for window in self.schedule["windows"]
        ]
        plans: dict[str, Any] = {
            name: {"queues": [], "sock_flow_entries": 0, "warnings": []}
            for name in self.schedule["plans"]
        }
        counts = [
            [
                {**names, "rx_packets": size, "rx_bytes": size, "rx_dropped": 0, "steered": True}
                for names, size in zip(DEVICES, sizes, strict=True)
            ]
            for sizes in ((0, 0), (5_000_000, 4_900_000))
        ]
        return {
            "owner": "sweep-x/s1", "start": 99, "windows": rows, "plans": plans,
            "device_edges": counts,
        }  # fmt: skip

    def switch(self) -> Sequence[WindowResult]:
        def schedule(plans: Mapping[str, Any], receivers: Sequence[int | str]) -> dict[str, Any]:
            self.schedule = episodes.schedule(plans, receivers, Timing(0.4, 0.1))
            return self.schedule

        every = whats(self.traffic)
        return KubernetesBackend(every[1]).switch(2, every, schedule, 9)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_the_agent_of_the_server_node_switches_the_plans_of_its_pods(cluster: Cluster) -> None:
    found = cluster.switch()
    document = cluster.schedule
    assert document["receivers"] == [f"pod:{uid}" for uid in UIDS.values()]
    assert list(document["plans"]) == list(NAMES)
    for plan in document["plans"].values():
        assert plan["owner"] == "sweep-x/s1"
        pods = {rule["namespace"] for rule in plan["rules"] if rule["role"] == "pod"}
        assert pods == {f"pod:{uid}" for uid in UIDS.values()}
    for client in cluster.clients.values():
        assert client.told == ["go", "stop"]
        assert client.closed
        assert client.words[client.words.index("--time") + 1] == "9"
    # the client pods' node has another kernel
    asked = json.loads(json.loads(cluster.reader.told[0])[1])["window"]
    assert asked == [0, None, list(UIDS.values()), False]
    assert cluster.reader.told[1:] == ["go", "end"]
    assert len(found) == 2
    for window in found:
        traffic = window.traffic
        assert traffic.reasons == []
        assert [one.outcome.numbers["bitrate_mbps"] for one in traffic.results] == [100, 200]  # type: ignore[union-attr]
        assert traffic.edges.keys() == {"s1"}
        assert traffic.nodes == {1: ("s1", "c1"), 2: ("s1", "c1")}
        assert traffic.serving == {"s1": None}
        before, after = traffic.around["s1"]
        assert (before.at, after.at, before.own) == (99, 101, (9,))
        assert window.steering[0][0] == "s1"


TRIPS = pingpong.Trips()
for _number in range(400):  # in the node's time from 100 s on, which is the time of the windows
    TRIPS.began.append(140_000_000_000 + _number * 1_000_000)
    TRIPS.took.append(100_000 if _number < 100 else 300_000)
PRINTED = Answer(0, json.dumps(TRIPS.document()), "")


def mixed(cluster: Cluster, probe: Latency) -> Sequence[WindowResult]:
    uid = "0a1b2c3d-0000-4000-8000-000000000003"
    cluster.traffic = "mixed:congestion=cubic"
    cluster.clients[3] = probe
    cluster.pods += [pod(3, role, uid, image="rr") for role in ("server", "client")]
    return cluster.switch()


def test_latency_is_measured_by_the_clock_of_the_agent(cluster: Cluster) -> None:
    probe = Latency(PRINTED)
    found = mixed(cluster, probe)
    assert cluster.schedule["receivers"] == [f"pod:{uid}" for uid in UIDS.values()]
    assert (probe.told, probe.closed) == (["go", "stop"], True)
    assert "python3" in probe.words
    for window in found:
        assert window.traffic.reasons == []
        first, second, third = window.traffic.results
        assert first.outcome.numbers.keys() == second.outcome.numbers.keys() == {"bitrate_mbps"}  # type: ignore[union-attr]
        assert third.index == 3
        latency = dict(third.outcome.latency)  # type: ignore[union-attr]
        assert (latency[0], latency[0.25], latency[0.5], latency[1]) == (50, 150, 150, 150)
        assert third.outcome.numbers["requests_per_second"] == pytest.approx(1000, rel=0.01)  # type: ignore[union-attr]


def test_a_client_whose_clock_is_not_known_measures_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "_QUESTIONS", 2)
    probe = Latency(PRINTED)
    probe.late = 0.2
    for window in mixed(cluster, probe):
        (reason,) = window.traffic.reasons
        assert reason.cause == Cause.WINDOW
        assert reason.text.startswith("pair 3: the clock of the client is known to")


def test_a_client_of_the_same_kernel_has_the_clock_of_the_agent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(NODES.servers, (replace(NODES.clients[0], boot_id=NODES.servers[0].boot_id),))
    monkeypatch.setattr(sys.modules[__name__], "NODES", nodes)
    monkeypatch.setattr(Told, "await_line", lambda *_: pytest.fail("a clock was asked"))
    printed = {**TRIPS.document(), "start": 100_000_000_000}
    for window in mixed(cluster, Latency(Answer(0, json.dumps(printed), ""))):
        assert window.traffic.reasons == []
        latency = dict(window.traffic.results[2].outcome.latency)  # type: ignore[union-attr]
        assert latency[0.5] == 150


def test_a_client_pod_that_is_deleted_before_its_clock_is_known_is_a_reason(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "await_line", lambda *_: "")
    cluster.later = [*cluster.pods]  # without those of pair 3
    with pytest.raises(EpisodeLost) as error:
        mixed(cluster, Latency(PRINTED))
    assert {reason.cause for reason in error.value.reasons} == {Cause.TOPOLOGY}
    assert "iperf-client-3 no longer exists" in error.value.reasons[1].text
    assert cluster.agent is None


def test_a_latency_client_that_ends_early_is_a_reason(cluster: Cluster) -> None:
    probe = Latency(Answer(1, "", "10.0.0.3 port 5201: Connection refused"), running=False)
    for window in mixed(cluster, probe):
        (reason,) = window.traffic.reasons
        assert reason == (Cause.TRAFFIC, "pair 3: 10.0.0.3 port 5201: Connection refused")


def test_without_the_reader_of_processes_the_episode_counts_and_the_reason_is_kept(
    cluster: Cluster,
) -> None:
    cluster.read = Answer(137, "", "")
    for window in cluster.switch():
        assert window.traffic.reasons == []
        verdict = Verdict()
        accounts = measure.accounts_of(window.traffic, 0.4, verdict)
        assert accounts["foreign_cpu"] is None
        assert [("other programs" in one, "SIGKILL" in one) for one in verdict.warnings] == [
            (True, True)
        ]
        assert verdict.reasons == []


def test_a_pod_that_was_recreated_is_a_reason_against_all_windows(cluster: Cluster) -> None:
    cluster.later = [*cluster.pods[1:], pod(1, "server", "0a1b2c3d-0000-4000-8000-00000000000f")]
    for window in cluster.switch():
        (reason,) = window.traffic.reasons
        assert reason == (Cause.TOPOLOGY, "pod iperf-server-1 was recreated on node s1")


def test_a_lost_agent_is_the_reason_of_the_episode(cluster: Cluster) -> None:
    cluster.agent = Exec(Answer(1, "", "the connection to the pod was lost"))
    with pytest.raises(EpisodeLost) as error:
        cluster.switch()
    (reason,) = error.value.reasons
    assert reason.cause == Cause.AGENT
    assert "the connection to the pod was lost" in reason.text
    assert all(client.closed for client in cluster.clients.values())


def test_where_the_agent_fails_because_of_a_pod_that_is_the_cause(cluster: Cluster) -> None:
    cluster.agent = Exec(Answer(1, "", "rps_cpus of eth0 rx-0: No such device"))
    cluster.later = cluster.pods[1:]
    with pytest.raises(EpisodeLost) as error:
        cluster.switch()
    assert {reason.cause for reason in error.value.reasons} == {Cause.TOPOLOGY}
    assert "iperf-server-1 no longer exists" in error.value.reasons[0].text


def test_a_client_that_ends_early_is_a_reason(cluster: Cluster) -> None:
    cluster.clients[2] = Exec(Answer(1, "", "iperf3: cannot connect"), running=False)
    cluster.spoiled = [{"kind": "receiver", "receiver": 1, "message": "no connection"}]
    for window in cluster.switch():
        first, second = window.traffic.reasons
        assert first.text.startswith("pair 2: the client ended before the last window")
        assert "cannot connect" in first.text
        assert second == (Cause.TRAFFIC, "pair 2: no connection")


def test_without_its_pods_no_episode_begins(cluster: Cluster) -> None:
    cluster.pods = cluster.pods[:3]
    with pytest.raises(BarrierBroken, match="iperf-client-2 does not run"):
        cluster.switch()
    assert cluster.agent is None


def test_several_steered_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.run import matrix
    from experiments.targets.kubernetes import target

    other = Node("s2", "s2", "192.0.2.3", "boot 3", "6.1", 8, True)
    given: dict[str, Any] = {
        "configurations": "baseline,rfs", "replicas": "2", "runs": 3, "seed": 1,
        "method": "switchback", "target": "kubernetes", "config": {"images": IMAGES},
    }  # fmt: skip
    monkeypatch.setattr(target, "of_state", lambda _: NODES)
    assert matrix.plan(given).method == "switchback"
    monkeypatch.setattr(target, "of_state", lambda _: Nodes((*NODES.servers, other), NODES.clients))
    with pytest.raises(InvalidInput, match="switchback steers one server node"):
        matrix.plan(given)


def test_what_the_devices_received_in_the_episode_is_of_each_window(cluster: Cluster) -> None:
    for window in cluster.switch():
        assert [(one.node, one.device, one.bytes) for one in window.received] == [
            ("s1", "ens5", 5_000_000),
            ("s1", "eth0", 4_900_000),
        ]
