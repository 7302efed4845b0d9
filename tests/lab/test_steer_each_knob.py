"""Each knob of the registry on this machine's kernel: written, read by other means, restored."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_steer_devices import AGENT, NODE, NODE_PATH, OWNER, inside, ip, node, steer, table

from agent.codecs import Count, Mask
from agent.knobs import (
    DEVICE,
    KNOBS,
    MACHINE,
    NAMESPACE,
    RX_QUEUE,
    TX_QUEUE,
    EthtoolFeature,
    Sysctl,
)
from experiments.host.reference import UNTESTED

pytestmark = pytest.mark.lab
__all__ = ["node", "table"]

# `ethtool -k` prints some features by older names
PRINTED = {
    "rx-gro": "generic-receive-offload",
    "rx-lro": "large-receive-offload",
    "tx-generic-segmentation": "generic-segmentation-offload",
}
OF_MACHINE = [name for name, knob in KNOBS.items() if knob.scope == MACHINE]
TESTED = [name for name in KNOBS if name not in UNTESTED]
QUEUES = {RX_QUEUE: "rx", TX_QUEUE: "tx"}
SHOWN = {RX_QUEUE: "queues", TX_QUEUE: "queues", DEVICE: "devices", NAMESPACE: "namespaces"}


@pytest.fixture
def sysctls(table: None) -> Iterator[None]:  # noqa: ARG001
    """The machine's own values come back, whatever a test does."""
    files = [Path("/proc/sys") / KNOBS[name].access.path for name in OF_MACHINE]
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        yield
    finally:
        steer("restore", "--owner", OWNER)
        for file, text in before.items():
            if file.read_text() != text:
                file.write_text(text)


@pytest.fixture
def up(node: None) -> None:  # noqa: ARG001
    """eth1 has NAPI while it is up and has GRO."""
    for device in ("wire", "eth1", "vxlan.calico"):
        ip("-n", NODE, "link", "set", device, "up")


def plan(device: str, **values: Any) -> dict[str, Any]:
    rule = {"role": "nic", "namespace": NODE_PATH, "devices": [device], "set": values}
    return {"version": 1, "owner": OWNER, "rules": [rule]}


def another(name: str, text: str) -> tuple[Any, str]:
    """A word of a plan that differs from the present value, and its text in the kernel."""
    codec = KNOBS[name].codec
    if isinstance(codec, Count):
        wanted = int(text) * 2 or 2
        return wanted, str(wanted)
    if isinstance(codec, Mask):
        return ("none", "0") if int(text.replace(",", ""), 16) else ("1", "1")
    word = "off" if text == codec.on else "on"
    return word, codec.render(word)


def value(device: str, name: str) -> str:
    """By a file, or as ethtool prints it."""
    access = KNOBS[name].access
    if isinstance(access, EthtoolFeature):
        printed = PRINTED.get(access.feature, access.feature)
        lines = (line.strip() for line in inside(NODE, "ethtool", "-k", device).splitlines())
        (line,) = (line for line in lines if line.startswith(f"{printed}:"))
        return line.partition(": ")[2].replace(" [fixed]", "")
    if isinstance(access, Sysctl):
        return inside(NODE, "cat", f"/proc/sys/{access.path}").strip()
    if name == "rx_queues":
        return str(
            len(inside(NODE, "sh", "-c", f"ls -d /sys/class/net/{device}/queues/rx-*").split())
        )
    return inside(NODE, "cat", f"/sys/class/net/{device}/{access.path}").strip()


def values(name: str) -> list[str]:
    """A knob's text at each of its places on the node."""
    knob = KNOBS[name]
    if knob.scope == MACHINE:
        return [(Path("/proc/sys") / knob.access.path).read_text().strip()]
    if knob.scope not in QUEUES:
        return [value("eth1", name)]
    listed = f"ls -d /sys/class/net/eth1/queues/{QUEUES[knob.scope]}-*"
    folders = inside(NODE, "sh", "-c", listed).split()
    return [inside(NODE, "cat", f"{folder}/{knob.access.path}").strip() for folder in folders]


def shown(name: str) -> list[Any]:
    scope = KNOBS[name].scope
    if scope == MACHINE:
        return [steer("show").answer["machine"][name]]
    rows = steer("show", within=NODE).answer[SHOWN[scope]]
    return [row[name] for row in rows if name in row and row.get("device", "eth1") == "eth1"]


def require(name: str) -> None:
    """Skip the test where Linux is older than the knob; on any other it must be there."""
    since, here = (
        tuple(map(int, re.findall(r"[0-9]+", text)[:2]))
        for text in (KNOBS[name].since, platform.release())
    )
    if here < since:
        pytest.skip(f"{name} is of Linux {KNOBS[name].since}")


@pytest.mark.usefixtures("up", "sysctls")
@pytest.mark.parametrize("name", TESTED)
def test_it_is_written_shown_verified_and_restored(name: str) -> None:
    require(name)
    if name == "rx_queues":  # a queue with steering stays
        for knob in ("rps_cpus", "rps_flow_cnt"):
            inside(NODE, "sh", "-c", f"echo 0 > /sys/class/net/eth1/queues/rx-1/{knob}")
    before = {knob: values(knob) for knob in TESTED}
    word, text = (1, "1") if name == "rx_queues" else another(name, before[name][0])
    document = plan("eth1", **{"gro": "on", name: word})
    if KNOBS[name].scope == MACHINE:
        document = {"version": 1, "owner": OWNER, "machine": {name: word}, "rules": []}
    done = steer("apply", plan=document)
    assert (done.returncode, done.stderr) == (0, "")
    written = values(name)
    assert len(written) == len(before[name])
    assert all(KNOBS[name].equal(text, got) for got in written)
    assert shown(name) == [KNOBS[name].codec.as_json(got) for got in written]
    assert steer("verify", plan=document).returncode == 0
    assert steer("apply", plan=document).answer["changed"] == 0
    restored = steer("restore", "--owner", OWNER)
    assert (restored.returncode, restored.answer["left"]) == (0, [])
    assert {knob: values(knob) for knob in TESTED} == before


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("name", UNTESTED)
def test_what_the_lab_lacks_is_refused(name: str) -> None:
    for device in ("eth1", "vxlan.calico", "cali1"):
        before = value(device, name)
        done = steer("apply", plan=plan(device, **{name: "on" if before == "off" else "off"}))
        assert (done.returncode, value(device, name)) == (3, before)


@pytest.mark.usefixtures("up")
def test_threads_for_a_tunnel_are_refused_though_the_kernel_accepts_them() -> None:
    done = steer("apply", plan=plan("vxlan.calico", threaded="on"))
    assert done.returncode == 3
    assert "kind vxlan" in done.stderr
    assert value("vxlan.calico", "threaded") == "0"


@pytest.mark.usefixtures("up")
def test_a_veth_has_threads_while_it_has_gro() -> None:
    refused = steer("apply", plan=plan("eth1", threaded="on"))
    assert (refused.returncode, value("eth1", "threaded")) == (3, "0")
    both = plan("eth1", threaded="on", gro="on")
    assert steer("apply", plan=both).returncode == 0
    assert (value("eth1", "threaded"), value("eth1", "gro")) == ("1", "on")
    assert napi_threads("eth1")
    assert steer("apply", plan=plan("eth1", threaded="off", gro="off")).returncode == 0
    assert not napi_threads("eth1")
    assert steer("apply", plan=both).returncode == 0
    assert steer("restore", "--owner", OWNER).returncode == 0
    assert (value("eth1", "threaded"), value("eth1", "gro")) == ("0", "off")


def napi_threads(device: str) -> list[str]:
    """The kernel threads that receive for a device of this name."""
    listed = subprocess.run(["ps", "-eo", "comm="], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name.startswith(f"napi/{device}-")]


@pytest.mark.usefixtures("up")
def test_a_queue_that_comes_is_steered_and_goes() -> None:
    inside(NODE, "ethtool", "-L", "eth1", "rx", "1")
    document = plan("eth1", rx_queues=2, rps_cpus="1", rps_flow_cnt=128)
    done = steer("apply", plan=document)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [(one["queue"], one["rps_cpus"], one["rps_flow_cnt"]) for one in done.answer["queues"]]
    assert rows == [("rx-0", "1", 128), ("rx-1", "1", 128)]
    assert steer("verify", plan=document).returncode == 0
    refused = steer("apply", plan=plan("eth1", rx_queues=64))
    assert refused.returncode == 3
    assert steer("verify", plan=document).returncode == 0
    restored = steer("restore", "--owner", OWNER)
    assert (restored.returncode, restored.answer["gone"]) == (0, [])
    assert value("eth1", "rx_queues") == "1"
    assert inside(NODE, "cat", "/sys/class/net/eth1/queues/rx-0/rps_cpus") == "2\n"


@pytest.mark.usefixtures("up")
def test_a_queue_with_steering_stays() -> None:
    done = steer("apply", plan=plan("eth1", rx_queues=1))
    assert done.returncode == 3
    assert "rx-1 has rps_cpus 2" in done.stderr
    assert value("eth1", "rx_queues") == "2"
    assert OWNER not in [one["owner"] for one in steer("show").answer["snapshots"]]


@pytest.mark.usefixtures("up")
def test_a_kill_while_queues_come_loses_no_value() -> None:
    inside(NODE, "ethtool", "-L", "eth1", "rx", "1")
    document = plan("eth1", rx_queues=2, rps_cpus="1", gro="on", threaded="on", tso="off")
    names = ("rx_queues", "gro", "threaded", "tso")
    before = [value("eth1", name) for name in names]
    assert before == ["1", "off", "0", "on"]
    seen = set()
    for delay in range(30, 250, 15):
        process = subprocess.Popen(
            [sys.executable, AGENT, "apply", "--plan", json.dumps(document)],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(delay / 1000)
        process.kill()
        process.wait()
        seen.add(tuple(value("eth1", name) for name in names))
        restored = steer("restore", "--owner", OWNER)
        assert (restored.returncode, restored.answer["gone"]) == (0, [])
        assert [value("eth1", name) for name in names] == before
        assert inside(NODE, "cat", "/sys/class/net/eth1/queues/rx-0/rps_cpus") == "2\n"
    assert len(seen) > 1
