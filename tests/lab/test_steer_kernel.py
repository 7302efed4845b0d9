"""The agent against this machine's kernel: failing system calls, and devices that are elsewhere."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from steer_faults import Endless, faults, hold, sample
from steer_tree import eventually, plan, rule, steer

pytestmark = pytest.mark.lab

OWNER = f"slk-{os.getpid()}/server"
NODE, POD, OTHER = (f"slk-{os.getpid()}-{name}" for name in ("node", "pod", "other"))
NODE_PATH, POD_PATH, OTHER_PATH = (f"/run/netns/{name}" for name in (NODE, POD, OTHER))
TABLE = Path("/proc/sys/net/core/rps_sock_flow_entries")
SNAPSHOT = Path("/run/steerlab") / (OWNER.replace("/", "%2F") + ".snapshot")
RFS = plan(
    rule("nic", "eth1", flows=32768, namespace=NODE_PATH),
    rule("pod", "eth0", cpus="all", namespace=POD_PATH),
    owner=OWNER,
    sock_flow_entries=32768,
)
RPS = plan(rule("nic", "eth1", cpus="all", namespace=NODE_PATH), owner=OWNER)

KNOBS = ("rps_cpus", "rps_flow_cnt")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def node() -> Iterator[None]:
    """A node with eth1 (two queues) and a pod with eth0; mask 2 and 64 flows everywhere."""
    if os.geteuid() != 0 or not TABLE.exists() or (os.cpu_count() or 1) < 2:
        pytest.skip("needs root, two CPUs and the first network namespace of a kernel with RPS")
    with steer.Machine() as machine:
        others, _ = machine.store.others(OWNER)
    if any(e.place == steer.THE_MACHINE for one in others for e in one.entries):
        pytest.skip("another owner holds the machine's flow table: destroy that lab first")
    table = TABLE.read_text()
    TABLE.write_text("4096")
    try:
        for name in (NODE, POD, OTHER):
            ip("netns", "add", name)
        queues = ("numrxqueues", "2", "numtxqueues", "2")
        ip("-n", NODE, "link", "add", "eth1", *queues, "type", "veth", "peer", "name", "wire")
        ip("-n", POD, "link", "add", "eth0", "type", "veth", "peer", "name", "wire", "netns", OTHER)
        for file in files((NODE, "eth1"), (POD, "eth0")).values():
            file("2" if file.knob == "rps_cpus" else "64")
        yield
    finally:
        try:
            restore(force=True)
        finally:
            for name in (NODE, POD, OTHER):
                if Path(f"/run/netns/{name}").exists():
                    ip("netns", "del", name)
            TABLE.write_text(table)


class Value:
    """A file of a device in a namespace: called with a text it is written, without it is read."""

    def __init__(self, namespace: str, device: str, queue: str, knob: str) -> None:
        self.namespace, self.device, self.queue, self.knob = namespace, device, queue, knob

    def __call__(self, text: str | None = None) -> str:
        with steer.Machine() as machine:
            seen, _ = machine.visit([f"/run/netns/{self.namespace}"])
            (namespace,) = seen.values()
            file = namespace.net / self.device / "queues" / self.queue / self.knob
            if text is not None:
                file.write_text(text)
            return file.read_text().strip()


def files(*devices: tuple[str, str]) -> dict[str, Value]:
    found = {}
    for namespace, device in devices:
        for queue in ("rx-0", "rx-1") if device == "eth1" else ("rx-0",):
            for knob in KNOBS:
                name = f"/run/netns/{namespace} {device} {queue} {knob}"
                found[name] = Value(namespace, device, queue, knob)
    return found


def gro(namespace: str, device: str) -> bool:
    command = ["ip", "netns", "exec", namespace, "ethtool", "-k", device]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "generic-receive-offload: on" in said


def apply(document: dict) -> dict:
    with steer.Machine() as machine:
        answer: dict = steer.apply(machine, steer.parse_plan(document))
        return answer


def restore(force: bool = False) -> dict:
    with steer.Machine() as machine:
        answer: dict = steer.restore(machine, OWNER, force)
        return answer


def verify() -> dict:
    with steer.Machine() as machine:
        answer: dict = steer.verify(machine, OWNER, None, False)
        return answer


def watch() -> None:
    steer.watch(steer.Machine(), OWNER)


CASES: dict[str, tuple[list[dict], Callable[[], Any]]] = {
    "apply": ([], lambda: apply(RFS)),
    "apply-again": ([RFS], lambda: apply(RPS)),
    "restore": ([RFS], restore),
    "verify": ([RFS], verify),
    "watchdog": ([RFS], watch),
}


class Kernel:
    """This machine, set back before each fault."""

    def __init__(self, before: list[dict], work: Callable[[], Any]) -> None:
        self._before, self.work = before, work
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._files = files((NODE, "eth1"), (POD, "eth0"))
        self.original = self.values()

    def go_home(self) -> None:
        """An agent that could not return to its namespace would have ended."""
        assert ctypes.CDLL(None).setns(self._home, 0) == 0

    def values(self) -> dict[str, str]:
        self.go_home()
        found = {"table": TABLE.read_text().strip()}
        with steer.Machine() as machine:
            seen, _ = machine.visit([NODE_PATH, POD_PATH])
            for path, device in ((NODE_PATH, "eth1"), (POD_PATH, "eth0")):
                for held in seen[path].holdings(device, steer.RX_QUEUE):
                    for knob in KNOBS:
                        found[f"{path} {device} {held.place.queue} {knob}"] = held.values[knob]
        return found

    def reset(self) -> None:
        self.go_home()
        assert self.values() == self.original
        for document in self._before:
            apply(document)

    def prepare(self) -> None:
        if self.work is watch:
            lease = steer.Lease(
                600, steer.boot_time(), os.getpid(), steer.start_time(os.getpid())
            )._asdict()
            saved = json.loads(SNAPSHOT.read_text())
            del saved["checksum"]
            SNAPSHOT.write_text(json.dumps({**saved, "lease": lease}))

    def listed(self) -> dict[str, str | None]:
        found = {}
        for file in self.snapshots():
            for entry in json.loads(file.read_text())["entries"]:
                where = (entry["namespace"], entry["device"], entry["queue"], entry["knob"])
                found[" ".join(where) if entry["device"] else "table"] = entry["reason"]
        return found

    def snapshots(self) -> list[Path]:
        return [SNAPSHOT] if SNAPSHOT.exists() else []

    def restore(self) -> dict[str, Any]:
        return restore()


def tried(name: str, monkeypatch: pytest.MonkeyPatch, chosen: Callable[..., Any]) -> None:
    naps = []
    sleep = steer.time.sleep

    def nap(seconds: float) -> None:
        if seconds < 1:  # for the lock
            return sleep(seconds)
        naps.append(seconds)
        if len(naps) > 3:
            naps.clear()
            raise Endless
        return None

    monkeypatch.setattr(steer.time, "sleep", nap)
    bench = Kernel(*CASES[name])
    found = faults(bench)
    restore()
    for fault in chosen(found):
        hold(bench, fault)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", CASES)
def test_a_call_that_fails_or_is_the_last(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(name, monkeypatch, sample)


@pytest.mark.long
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", CASES)
def test_every_call_fails_in_every_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(name, monkeypatch, list)


# devices that are not where they were


@pytest.mark.usefixtures("node")
def test_a_renamed_device_goes_back_and_is_steered_again_from_its_first_value() -> None:
    apply(RFS)
    ip("-n", NODE, "link", "set", "eth1", "name", "lan0")
    renamed = plan(rule("nic", "lan0", cpus="1", namespace=NODE_PATH), owner=OWNER)
    apply(renamed)
    answer = restore()
    assert (answer["gone"], answer["failed"], answer["left"]) == ([], [], [])
    assert [Value(NODE, "lan0", "rx-1", knob)() for knob in KNOBS] == ["2", "64"]


@pytest.mark.usefixtures("node")
def test_a_device_in_another_namespace_goes_back() -> None:
    apply(RFS)
    ip("-n", NODE, "link", "set", "eth1", "netns", OTHER, "name", "ens9")
    answer = restore()
    assert (answer["gone"], answer["failed"], answer["restored"]) == ([], [], 7)
    assert [Value(OTHER, "ens9", "rx-1", knob)() for knob in KNOBS] == ["2", "64"]


BUDGET = Path("/proc/sys/net/core/netdev_budget")


@pytest.mark.usefixtures("node")
def test_a_knob_of_each_scope_on_the_kernel() -> None:
    """Of a device that moves, of a namespace that loses its name, and of the machine."""
    budget = BUDGET.read_text()
    nic = {"gro_flush_timeout": 20000, "rps_default_mask": "all", "gro": "on"}
    document = plan(
        {"role": "nic", "namespace": NODE_PATH, "devices": ["eth1"], "set": nic},
        owner=OWNER,
        machine={"netdev_budget": int(budget) + 1},
    )
    answer = apply(document)
    assert answer["changed"] == 4
    assert [(row["gro_flush_timeout"], row["gro"]) for row in answer["devices"]] == [(20000, "on")]
    (mask,) = (int(row["rps_default_mask"].replace(",", ""), 16) for row in answer["namespaces"])
    assert mask == 2 ** (os.cpu_count() or 1) - 1
    assert BUDGET.read_text() == f"{int(budget) + 1}\n"
    assert verify()["drift"] == []
    assert Path("/proc/sys/net/core/rps_default_mask").read_text().strip("0\n") == ""
    ip("-n", NODE, "link", "set", "eth1", "netns", OTHER, "name", "ens9")
    with Path(NODE_PATH).open() as kept:
        subprocess.run(["umount", "-l", NODE_PATH], check=True)
        Path(NODE_PATH).unlink()
        back = restore()
        assert (back["gone"], back["failed"], back["restored"]) == ([], [], 4)
        inside = ["nsenter", f"--net=/proc/self/fd/{kept.fileno()}"]
        said = subprocess.run(
            [*inside, "cat", "/proc/sys/net/core/rps_default_mask"],
            pass_fds=[kept.fileno()], capture_output=True, text=True, check=True,
        )  # fmt: skip
        # with its namespace goes the peer of ens9, and so ens9
        assert Value(OTHER, "ens9", "..", "gro_flush_timeout")() == "0"
        assert not gro(OTHER, "ens9")
    assert said.stdout.strip("0,\n") == ""
    assert BUDGET.read_text() == budget


@pytest.mark.usefixtures("node")
def test_a_queue_that_was_taken_away_and_given_again_is_another() -> None:
    apply(RPS)
    for count in ("1", "2"):
        done = subprocess.run(["ip", "netns", "exec", NODE, "ethtool", "-L", "eth1", "rx", count])
        if done.returncode:
            pytest.skip("this kernel or ethtool cannot set the queues of a veth")
    answer = restore()
    assert (answer["left"], answer["failed"], len(answer["gone"])) == ([], [], 1)
    assert Value(NODE, "eth1", "rx-1", "rps_cpus")() == "0"
    assert Value(NODE, "eth1", "rx-0", "rps_cpus")() == "2"


KEPT_BY = {
    "a mount elsewhere": f'mount --bind {POD_PATH} "$0" && umount -l {POD_PATH}',
    "a descriptor": f"exec 7<{POD_PATH} && umount -l {POD_PATH}",
}


def found_while_kept(*keeps: str | Path) -> None:
    """A namespace without a name is restored while this command keeps it."""
    with subprocess.Popen(keeps, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout
            assert keeper.stdout.readline() == "kept\n"
            ip("netns", "del", POD)
            answer = restore()
            assert (answer["gone"], answer["failed"], answer["restored"]) == ([], [], 7)
        finally:
            keeper.kill()


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("what", KEPT_BY)
def test_a_namespace_without_a_name_is_found_by_what_keeps_it(what: str, tmp_path: Path) -> None:
    apply(RFS)
    elsewhere = tmp_path / "a place"
    elsewhere.touch()
    script = f"{KEPT_BY[what]} && echo kept && exec sleep 60"
    found_while_kept("unshare", "--mount", "sh", "-c", script, elsewhere)


@pytest.mark.usefixtures("node")
def test_a_namespace_in_which_only_a_thread_is_left_is_found() -> None:
    apply(RFS)
    code = (
        "import ctypes, os, threading, time\n"
        "def inside():\n"
        f"    file = os.open('{POD_PATH}', 0)\n"
        "    ctypes.CDLL(None).setns(file, 0)\n"
        "    os.close(file)\n"
        "    print('kept', flush=True)\n"
        "    time.sleep(60)\n"
        "threading.Thread(target=inside).start()\n"
    )
    found_while_kept("python3", "-c", code)


@pytest.mark.usefixtures("node")
def test_a_namespace_that_only_a_socket_keeps_is_found() -> None:
    apply(RFS)
    code = (
        "import ctypes, os, socket, time\n"
        "libc, home = ctypes.CDLL(None), os.open('/proc/self/ns/net', 0)\n"
        f"inside = os.open('{POD_PATH}', 0)\n"
        "libc.setns(inside, 0)\n"
        "kept = socket.socket()\n"
        "libc.setns(home, 0)\n"
        "os.close(inside)\n"
        "print('kept', flush=True)\n"
        "time.sleep(60)\n"
    )
    found_while_kept("python3", "-c", code)


@pytest.mark.usefixtures("node")
def test_a_cpu_that_is_offline_leaves_its_bit_in_the_snapshot() -> None:
    switch = Path(f"/sys/devices/system/cpu/cpu{(os.cpu_count() or 1) - 1}/online")
    bit = f"{1 << ((os.cpu_count() or 1) - 1):x}"
    mask = Value(NODE, "eth1", "rx-0", "rps_cpus")
    mask(bit)
    before = mask()
    apply(RFS)
    try:
        switch.write_text("0")
    except OSError as error:
        pytest.skip(f"this machine takes no CPU offline: {error}")
    try:
        assert len(restore()["failed"]) >= 1
        assert int(mask().replace(",", ""), 16) == 0
    finally:
        switch.write_text("1")
        eventually(lambda: switch.read_text() == "1\n")
    assert restore()["failed"] == []
    assert mask() == before


@pytest.mark.usefixtures("node")
def test_a_device_with_a_name_of_any_bytes_hides_nothing() -> None:
    odd = b"e\xff\xfe9"
    for namespace in (NODE, OTHER):
        link = [b"ip", b"-n", namespace.encode(), b"link", b"add", odd, b"type", b"veth"]
        subprocess.run([*link, b"peer", b"name", b"\xff"], check=True)
    apply(RFS)
    assert verify()["drift"] == []
    answer = restore()
    assert (answer["gone"], answer["failed"], answer["restored"]) == ([], [], 7)


@pytest.mark.usefixtures("node")
def test_transmit_queues_are_steered_and_restored() -> None:
    queues = [Value(NODE, "eth1", f"tx-{number}", "xps_cpus") for number in (0, 1)]
    before = [read() for read in queues]
    wanted = {"role": "nic", "namespace": NODE_PATH, "devices": ["eth1"], "set": {"xps_cpus": "1"}}
    assert apply(plan(wanted, owner=OWNER))["changed"] == 2
    assert [read() for read in queues] == ["1", "1"]
    assert verify()["drift"] == []
    assert restore()["restored"] == 2
    assert [read() for read in queues] == before


def test_a_late_answer_of_sock_diag_is_not_that_of_the_next_request() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = server.getsockname()
        ends = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        diag = steer.SockDiag()
        stack.callback(diag.close)
        found = {one.inode: one for one in diag.established()}
        late, wanted = (found[os.fstat(end.fileno()).st_ino] for end in ends)
        diag._ask(steer.request([late]))  # and no time to read its answer
        for _ in range(2):
            (row,), _ = steer.connections(diag.look_up(steer.request([wanted])))
            assert row.inode == wanted.inode
        diag._ask(steer.request([late, late]))
        assert {late, wanted} <= set(diag.established())
