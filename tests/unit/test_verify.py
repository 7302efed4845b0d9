"""What of a lab is gone or drifted: each kind of it, and pid files against real processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.schema import Machine
from experiments.host import calls
from experiments.host.calls import AgentFailed
from experiments.targets.lab import drift as verify
from experiments.targets.lab.drift import alive, drifted
from infra.lab import layout

URN = "urn:pulumi:rps-1::steerlab::steerlab:lab:Lab$command:local:Command::"
STANDING: Mapping[str, set[str]] = {
    "server": {"lo", "eth1", "vxlan.calico", "cali1"},
    "pod-1": {"lo", "eth0"},
}


def command(name: str, prints: Any, **fields: Any) -> dict[str, Any]:
    """A resource of a checkpoint, with what its command printed."""
    stdout = prints if isinstance(prints, str) else json.dumps(prints)
    kind = {"urn": URN + name, "type": "command:local:Command"}
    return {**kind, "outputs": {"stdout": stdout}, **fields}


def found(*resources: dict[str, Any], drift: Mapping[str, list[str]] | None = None) -> list[str]:
    """`name: why` of each drift, where these namespaces stand and steering has drifted so."""
    known = drift or {}
    found = drifted(resources, STANDING.get, lambda o: known[o], lambda *_: NODE_NOW)
    return [f"{d.name}: {d.why}" for d in found]


def of_node(queues: int, **features: bool) -> Machine:
    """A node's wire and overlay with these offloads; the others are as in the form study."""
    known = {name: False for own in layout.OFFLOADS["study"].values() for name in own}
    same = {**known, **{name.replace("_", "-"): on for name, on in features.items()}}
    return Machine(
        kernel="6.18",
        cpu="x",
        cores=2,
        offloads={"eth1": same, "vxlan.calico": same},
        queues={"eth1": queues, "vxlan.calico": 1},
    )


NODE_NOW = of_node(1)
ON = dict.fromkeys(
    ("tcp_segmentation_offload", "generic_segmentation_offload", "generic_receive_offload"), True
)


NODE = command("server-namespace", {"namespaces": {"server": ["lo"]}})
WIRE = command("wire-veth", {"namespaces": {"server": ["eth1"]}})
POD = command("pods-1", {"namespaces": {"pod-1": ["eth0"]}})
STEERING = command(
    "steer-server",
    {"owner": "rps-1/server", "changed": 1, "queues": [], "devices": [], "namespaces": []},
)


def test_what_stands_is_left_alone() -> None:
    assert found(NODE, WIRE, POD, STEERING, drift={"rps-1/server": []}) == []


def test_a_namespace_and_a_device_that_are_gone_are_named() -> None:
    gone = command("pods-2", {"namespaces": {"pod-1": ["eth0"], "pod-2": ["eth0"]}})
    bare = command("overlay-vxlan", {"namespaces": {"pod-1": ["vxlan.calico", "eth7"]}})
    assert found(NODE, gone, bare) == [
        "pods-2: namespace pod-2 no longer exists",
        "overlay-vxlan: eth7 of pod-1 no longer exists",
    ]


def test_drifted_steering_is_replaced_with_its_words() -> None:
    words = ["eth1 rx-0: rps_cpus is 3, not 1", "cali1 rx-0 is new: apply again"]
    assert found(NODE, STEERING, drift={"rps-1/server": words}) == [
        f"steer-server: {words[0]}; {words[1]}"
    ]


def test_steering_is_not_asked_for_where_its_devices_are_made_anew() -> None:
    """Its plan changes with the ids of what carries it; asking would find those devices gone."""
    lost = command("pods-2", {"namespaces": {"pod-2": ["eth0"]}})
    assert found(STEERING, lost) == ["pods-2: namespace pod-2 no longer exists"]


def test_a_lost_server_or_file_does_not_hide_drifted_steering(tmp_path: Path) -> None:
    server = command("iperf-server-1", {"process": str(tmp_path / "none")})
    claim = command("claim-file", {"file": str(tmp_path / "owner")})
    assert found(server, claim, STEERING, drift={"rps-1/server": ["off"]}) == [
        "iperf-server-1: the server of the pair has ended",
        f"claim-file: {tmp_path / 'owner'} no longer exists",
        "steer-server: off",
    ]
    (tmp_path / "owner").touch()
    assert found(claim) == []


@pytest.mark.parametrize(
    "resource",
    [
        {"urn": URN + "lab", "type": "steerlab:lab:Lab"},
        {"urn": URN + "provider", "type": "pulumi:providers:command", "outputs": {"stdout": "{"}},
        {"urn": URN + "bare", "type": "command:local:Command"},
        command("silent", ""),
        command("measurement", {"bitrate_mbps": 9.5}),
        command("talks", "not JSON"),
        command("lists", [1]),
        command("leaves", {"namespaces": {"gone": ["eth0"]}}, delete=True),
    ],
    ids=lambda resource: resource["urn"].rsplit(":", 1)[-1],
)
def test_a_resource_that_promises_nothing_cannot_drift(resource: dict[str, Any]) -> None:
    assert found(resource) == []


STOCK_WIRE = {
    "namespaces": {"server": ["eth1"]},
    "form": "stock",
    "queues": {"server": {"eth1": 5}},
}


@pytest.mark.parametrize(
    ("facts", "now", "why"),
    [
        ({"namespaces": {"server": ["eth1"]}}, of_node(1), None),
        ({"namespaces": {"server": ["eth1"]}}, of_node(1, **ON), "not the form study"),
        (
            {"namespaces": {"server": ["vxlan.calico"]}},
            of_node(1, generic_receive_offload=True),
            "generic-receive-offload of vxlan.calico in server is on",
        ),
        (STOCK_WIRE, of_node(5, **ON), None),
        (STOCK_WIRE, of_node(5, **{**ON, "generic_receive_offload": False}), None),
        (STOCK_WIRE, of_node(5), "is off: not the form stock"),
        (STOCK_WIRE, of_node(2, **ON), "eth1 of server has 2 receive queues, not 5"),
    ],
)
def test_devices_that_are_no_longer_those_of_the_form_are_drift(
    facts: dict[str, Any], now: Machine, why: str | None
) -> None:
    drift = drifted(
        [command("made", facts), STEERING], STANDING.get, lambda _: ["off"], lambda *_: now
    )
    assert [one.name for one in drift] == (["made"] if why else []) + ["steer-server"]
    assert why is None or why in drift[0].why


def test_an_offload_that_steering_sets_is_the_agents_to_verify() -> None:
    rows = [{"role": "nic", "namespace": "/run/netns/server", "device": "eth1", "gro": "on"}]
    steering = command("steer-server", {"owner": "me", "queues": [], "devices": rows})
    now = of_node(1, generic_receive_offload=True)
    assert drifted([WIRE, steering], STANDING.get, lambda _: [], lambda *_: now) == []


def test_the_agents_answer_is_asked_without_renewing_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def call(*words: str) -> dict[str, Any]:
        asked.append(words)
        return {"drift": [{"kind": "value", "message": "eth1 rx-0 is 3, not 1"}]}

    monkeypatch.setattr(calls, "call", call)
    assert [drift.why for drift in drifted([STEERING])] == ["eth1 rx-0 is 3, not 1"]
    assert asked == [("verify", "--owner", "rps-1/server", "--saved")]


def test_an_agent_that_fails_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: str) -> dict[str, Any]:
        raise AgentFailed("snapshot rps-1/server: not a snapshot")

    monkeypatch.setattr(calls, "call", call)
    assert [drift.why for drift in drifted([STEERING])] == ["snapshot rps-1/server: not a snapshot"]


def test_a_namespace_without_a_file_is_none() -> None:
    assert verify.links_of("steerlab-there-is-none") is None


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def pidfile(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Path:
    """Written as the lab's own command does, by cut."""
    path = tmp_path / "iperf-server-1"
    line = f'echo "{sleeper.pid} $(cut -d" " -f22 /proc/{sleeper.pid}/stat)" > {path}'
    subprocess.run(["sh", "-c", line], check=True)
    return path


def test_a_process_lives_until_it_ends(pidfile: Path, sleeper: subprocess.Popen[bytes]) -> None:
    assert alive(pidfile)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{sleeper.pid}/stat").read_text().split()[2] == "Z"
    assert not alive(pidfile)
    sleeper.wait()
    assert not alive(pidfile)


def test_another_process_with_its_pid_is_not_it(pidfile: Path) -> None:
    pid, start = pidfile.read_text().split()
    pidfile.write_text(f"{pid} {int(start) + 1}\n")
    assert not alive(pidfile)


@pytest.mark.parametrize("text", ["", "17", "x y z", "no such\n"])
def test_a_pid_file_that_is_none_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert not alive(tmp_path / "pid")


def test_a_process_may_call_itself_anything(tmp_path: Path) -> None:
    """The name in /proc/PID/stat may hold what separates its fields."""
    named = tmp_path / "a) Z 1 ("
    named.symlink_to("/bin/sleep")
    process = subprocess.Popen([named, "600"])
    try:
        start = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / "pid").write_text(f"{process.pid} {start}\n")
        assert alive(tmp_path / "pid")
    finally:
        process.kill()
        process.wait()
