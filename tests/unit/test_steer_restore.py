"""What a restore does where the machine is not as apply left it: changed, renamed, odd, damaged."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from imitation import Imitation
from steer_tree import Tree, eventually, plan, rule, steer

DATA = Path(__file__).parent / "data"
OWNER = "rfs-plus-4/server"
POD = "/run/netns/x-server-1"
UID = "0a1b2c3d-0000-4000-8000-0123456789ab"
RFS = plan(
    rule("nic", "eth1", flows=32768),
    rule("pod", "eth0", cpus="all", namespace=POD, pod="iperf-server-1"),
    sock_flow_entries=32768,
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    tree.namespace(POD, cookie=11)
    tree.device("eth0", POD, mask="2", flows=64)
    return tree


# what somebody else has written meanwhile


def meddle(tree: Tree) -> dict[str, str]:
    """Values that the owner did not write; the machine as it is then."""
    (tree.queue("eth1") / "rps_cpus").write_text("1\n")
    (tree.queue("eth0", namespace=POD) / "rps_flow_cnt").write_text("512\n")
    tree.table.write_text("64\n")
    return tree.values()


def test_what_somebody_else_wrote_is_left_and_told(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    changed = {name: value for name, value in meddle(tree).items() if value in ("1", "512", "64")}
    done = tree.run("restore", "--owner", OWNER)
    assert done.returncode == 0
    left = done.answer["left"]
    assert len(left) == 3
    for words, value, old in zip(left, ("1", "512", "64"), ("2", "64", "4096"), strict=True):
        assert f" is {value}," in words
        assert words.endswith(f" {old}")  # so that a person can write it
        assert words in done.stderr
    ours = {name: value for name, value in before.items() if name not in changed}
    assert tree.values() == {**ours, **{n: tree.values()[n] for n in changed}}
    assert (tree.queue("eth1") / "rps_cpus").read_text() == "1\n"
    assert not tree.snapshot().exists()


@pytest.mark.parametrize("which", [("--owner", OWNER), ("--all",)])
def test_force_writes_the_old_value_anyway(tree: Tree, which: tuple[str, ...]) -> None:
    before = tree.values()
    tree.apply(RFS)
    meddle(tree)
    done = tree.run("restore", *which, "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert tree.values() == before


def test_the_old_value_written_by_hand_is_no_stranger(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    for name, value in before.items():
        (tree.root / name).write_text(f"{value}\n")
    assert (tree.restore()["left"], tree.values()) == ([], before)


def test_apply_again_over_a_stranger_keeps_the_first_value(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    meddle(tree)
    answer = tree.apply(RFS)
    assert answer["changed"] == 3
    assert len(answer["warnings"]) == 3
    assert tree.apply(RFS)["warnings"] == []
    done = tree.run("restore", "--owner", OWNER)
    assert (done.returncode, done.answer["left"]) == (0, [])
    assert tree.values() == before
    # the stranger's values are not lost without a word
    assert [w for w in done.answer["warnings"] if "512" in w and "64" in w]


def test_a_value_of_a_plan_before_the_last_is_a_stranger_s(tree: Tree) -> None:
    """What is compared is what stands there now, so only the last write explains it."""
    tree.apply(plan(rule("nic", "eth1", cpus="1")))
    tree.apply(plan(rule("nic", "eth1", cpus="3")))
    (tree.queue("eth1") / "rps_cpus").write_text("1\n")
    assert len(tree.restore()["left"]) == 1


def test_a_dropped_value_that_a_stranger_wrote_is_left_and_told(tree: Tree) -> None:
    tree.apply(RFS)
    meddle(tree)
    answer = tree.apply(plan(rule("pod", "eth0", namespace=POD)))
    assert sorted("eth1" in words or "machine" in words for words in answer["warnings"])
    assert (tree.queue("eth1") / "rps_cpus").read_text() == "1\n"
    assert tree.table.read_text() == "64\n"
    assert (tree.queue("eth1", 1) / "rps_cpus").read_text() == "2\n"


def test_a_failed_apply_leaves_what_a_stranger_writes_meanwhile(tree: Tree) -> None:
    before = tree.values()
    mask = tree.queue("eth1", 1) / "rps_cpus"
    process, end = tree.half_way(mask, RFS)
    mask.write_text("1\n")
    process.send_signal(signal.SIGTERM)
    os.close(end)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "rps_cpus of eth1 rx-1" in err
    name = str(mask.relative_to(tree.root))
    assert tree.values() == {**before, name: "1"}
    assert not tree.snapshot().exists()


def test_a_value_that_changes_before_it_is_written_ends_apply(tree: Tree) -> None:
    """Nobody would know what to go back to."""
    before = tree.values()
    mask, flows = (tree.queue("eth1", 1) / knob for knob in ("rps_cpus", "rps_flow_cnt"))
    process, end = tree.half_way(mask, RFS)
    flows.write_text("16\n")
    os.close(end)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "rps_flow_cnt of eth1 rx-1" in err
    assert tree.values() == {**before, str(flows.relative_to(tree.root)): "16"}


# devices under another name


def rename(tree: Tree) -> None:
    net = tree.root / "sys/class/net"
    (net / "eth1").rename(net / "lan0")


def test_a_renamed_device_is_restored_and_told_under_both_names(tree: Tree) -> None:
    tree.apply(RFS)
    rename(tree)
    unreadable = tree.queue("lan0", 1) / "rps_cpus"
    unreadable.unlink()
    unreadable.mkdir()
    answer = tree.restore()
    assert answer["gone"] == []
    for knob, value in (("rps_cpus", "2"), ("rps_flow_cnt", "64")):
        assert (tree.queue("lan0") / knob).read_text().strip() == value
    (words,) = answer["failed"]
    assert "eth1" in words and "lan0" in words
    unreadable.rmdir()
    unreadable.write_text("0\n")
    assert tree.restore()["failed"] == []
    assert unreadable.read_text().strip() == "2"


def test_a_renamed_device_that_is_steered_again_keeps_its_first_value(tree: Tree) -> None:
    tree.apply(RFS)
    rename(tree)
    (drift,) = {d["message"] for d in tree.verify()["drift"] if d["kind"] == "missing"}
    assert "eth1" in drift
    tree.apply(plan(rule("nic", "lan0", cpus="1")))
    assert {entry["device"] for entry in tree.saved()["entries"]} == {"lan0"}
    tree.restore()
    assert (tree.queue("lan0") / "rps_cpus").read_text() == "2\n"
    assert (tree.queue("lan0") / "rps_flow_cnt").read_text() == "64\n"


def test_a_device_in_another_namespace_is_found_by_its_inode(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on sysfs, whose inodes are used once; a tree of files gives a device no cookie else."""
    imitation = Imitation._imitation

    def numbered(self: Any, path: str | None, place: str | None) -> Any:
        namespace = imitation(self, path, place)
        return namespace and namespace._replace(numbered=True)

    monkeypatch.setattr(Imitation, "_imitation", numbered)
    tree.apply(RFS)
    tree.namespace("/run/netns/other", cookie=12)
    other = tree.root / "run/netns/other/sys/class/net"
    (tree.root / "sys/class/net/eth1").rename(other / "ens9")
    (other / "ens9/ifindex").write_text("77\n")
    assert tree.restore()["gone"] == []
    queue = tree.queue("ens9", 1, "/run/netns/other")
    assert (queue / "rps_flow_cnt").read_text() == "64\n"
    # a queue that was taken away and given again has another inode, and nothing of ours
    tree.apply(plan(rule("pod", "eth0", cpus="1", namespace=POD)))
    queue = tree.queue("eth0", namespace=POD)
    shutil.copytree(queue, tree.root / "new")
    queue.rename(tree.root / "old")
    (tree.root / "new").rename(queue)
    assert len(tree.restore()["gone"]) == 1
    assert (queue / "rps_cpus").read_text() == "1\n"


# what cannot be looked into is not gone


def test_a_namespace_that_cannot_be_read_keeps_its_values_in_the_snapshot(tree: Tree) -> None:
    before = tree.values()
    tree.apply(RFS)
    cookie = tree.root / POD.lstrip("/") / "cookie"
    cookie.rename(tree.root / "moved")
    cookie.mkdir()
    answer = tree.restore()
    assert (len(answer["failed"]), answer["gone"]) == (2, [])
    assert {(e["device"], e["namespace"]) for e in tree.saved()["entries"]} == {("eth0", POD)}
    assert all(POD in entry["reason"] for entry in tree.saved()["entries"])
    assert (tree.queue("eth1") / "rps_cpus").read_text() == "2\n"  # all others went back
    assert tree.table.read_text() == "4096\n"
    (drift,) = {d["kind"] for d in tree.verify(document=plan())["drift"]}
    assert drift == "unread"
    cookie.rmdir()
    (tree.root / "moved").rename(cookie)
    assert tree.restore()["failed"] == []
    assert tree.values() == before


def test_a_namespace_that_cannot_be_read_does_not_stop_a_pattern(tree: Tree) -> None:
    tree.write("/run/netns/cni-1/cookie", 901)
    tree.device("eth0", "/run/netns/cni-1")
    (tree.root / "run/netns/cni-2/cookie").mkdir(parents=True)
    pods = plan(rule("pod", "eth0", namespace="/run/netns/cni-*", flows=64, optional=True))
    answer = tree.apply(pods)
    assert [queue["namespace"] for queue in answer["queues"]] == ["/run/netns/cni-1"]
    (words,) = answer["warnings"]
    assert "/run/netns/cni-2" in words
    assert [w for w in tree.verify()["warnings"] if "/run/netns/cni-2" in w]


# bytes that are no text


def test_names_may_be_any_bytes(tree: Tree) -> None:
    odd = os.fsdecode(b"e\xff\xe3\x80\x80th\x1c")  # U+3000 and \x1c are white space to Python
    tree.device(odd, mask="2", flows=16)
    tree.device("cilium_vxlan\udcff")
    routes = b"Iface\tDestination\n" + b"\t".join(
        [os.fsencode(odd), b"00000000", b"0138A8C0", b"0003", b"0", b"0", b"5", b"00000000", b"0"]
    )
    tree.write("proc/net/route", "").write_bytes(routes)
    (tree.root / POD.lstrip("/") / "proc/net").mkdir(parents=True)
    (tree.root / POD.lstrip("/") / "proc/net/route").write_bytes(b"\xff")
    tree.write("proc/77/cgroup", "").write_bytes(b"0::/\xff\xfe/user\n")
    tree.namespace("/proc/78/ns/net", cookie=9)
    tree.write("proc/78/cgroup", f"0::/kubepods/pod{UID}/abc")
    tree.device("eth0", "/proc/78/ns/net", mask="1")
    before = tree.values()
    document = plan(
        rule("nic", "auto", cpus="1"),
        rule("pod", "eth0", cpus="2", namespace=POD),
        rule("pod", "eth0", cpus="2", namespace=f"pod:{UID}"),
    )
    done = tree.run("apply", plan=document)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert [queue["device"] for queue in done.answer["queues"]] == [odd, "eth0", "eth0"]
    assert tree.run("show").answer["queues"]
    assert tree.run("verify", "--owner", OWNER).returncode == 0
    assert tree.run("restore", "--owner", OWNER).returncode == 0
    assert tree.values() == before


def test_a_process_may_have_any_name() -> None:
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(15, b"\xff) R 1\xfe", 0, 0, 0)  # PR_SET_NAME
        signal.pause()
    comm = Path(f"/proc/{child}/comm")
    try:
        eventually(lambda: comm.read_bytes().startswith(b"\xff"))
        assert int(steer.start_time(child)) > 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# CPUs that are offline


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> Iterator[Callable[..., None]]:
    """Takes offline CPUs out of a mask, and refuses one of isolated CPUs alone, as Linux does."""
    online = isolated = 0
    write = os.pwrite

    def store(file: int, data: bytes, at: int) -> int:
        path = Path(f"/proc/self/fd/{file}")
        if path.readlink().name == "rps_cpus":
            mask = steer.parse_mask(data.decode().strip())
            if mask and not mask & ~isolated:
                raise OSError(22, "Invalid argument")
            data = f"{steer.format_mask(mask & online & ~isolated)}\n".encode()
        return write(file, data, at)

    def cpus(on: str, alone: str = "") -> None:
        nonlocal online, isolated
        tree.cpus(online=on, isolated=alone)
        online, isolated = (steer.mask_of(steer.parse_cpu_list(text)) for text in (on, alone))

    cpus("0-1")
    monkeypatch.setattr(steer.os, "pwrite", store)
    yield cpus


@pytest.mark.parametrize(
    ("before", "on", "alone", "possible"),
    [("3", "0", "", "1"), ("2", "0", "", "0"), ("2", "0-1", "1", "0"), ("3", "0-1", "1", "1")],
)
def test_a_mask_with_a_cpu_that_is_away_goes_back_in_two_steps(
    tree: Tree, kernel: Callable[..., None], before: str, on: str, alone: str, possible: str
) -> None:
    for queue in (0, 1):
        (tree.queue("eth1", queue) / "rps_cpus").write_text(f"{before}\n")
    original = tree.values()
    tree.apply(plan(rule("nic", "eth1", cpus="1" if possible == "0" else "none", flows=16)))
    kernel(on, alone)
    mask = tree.queue("eth1") / "rps_cpus"
    for _ in range(2):  # it may be tried while the CPU is away
        answer = tree.restore()
        assert mask.read_text().strip() == possible
        assert len(answer["failed"]) == 2
        assert "CPU 1" in answer["failed"][0]
        assert [entry["knob"] for entry in tree.saved()["entries"]] == ["rps_cpus"] * 2
        assert all("CPU 1" in entry["reason"] for entry in tree.saved()["entries"])
    kernel("0-1")
    assert tree.restore()["failed"] == []
    assert tree.values() == original
    assert not tree.snapshot().exists()


def test_after_a_kill_while_a_cpu_is_away_its_mask_is_still_ours(
    tree: Tree, kernel: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel makes of the old mask is in the snapshot before it is written."""
    (tree.queue("eth1") / "rps_cpus").write_text("3\n")
    original = tree.values()
    tree.apply(plan(rule("nic", "eth1")))
    kernel("0")
    killed = lambda *_: (_ for _ in ()).throw(SystemExit)  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(steer.Setting, "read", reading(killed))
        tree.restore()
    assert (tree.queue("eth1") / "rps_cpus").read_text() == "1\n"
    kernel("0-1")
    answer = tree.restore()
    assert (answer["left"], answer["failed"], tree.values()) == ([], [], original)


def reading(after_first_write: Callable[..., Any]) -> Callable[[Any], str]:
    read = steer.Setting.read
    count = 0

    def counted(setting: Any) -> str:
        nonlocal count
        count += 1
        text: str = read(setting)
        return text if count < 2 else after_first_write()

    return counted


def test_the_watchdog_goes_on_until_the_cpu_is_back(
    tree: Tree, kernel: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.queue("eth1") / "rps_cpus").write_text("3\n")
    original = tree.values()
    tree.apply(plan(rule("nic", "eth1")))
    leased(tree, 0)
    kernel("0")
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        with tree.machine() as machine:
            assert "CPU 1" in steer.show(machine, [])["warnings"][0]
        if len(naps) == 3:
            kernel("0-1")

    monkeypatch.setattr(steer.time, "sleep", nap)
    steer.watch(tree.machine(), OWNER)
    assert len(naps) == 3
    assert tree.values() == original


# a watchdog that fails


def leased(tree: Tree, seconds: float) -> None:
    """Make this process the watchdog of a lease."""
    start = steer.start_time(os.getpid())
    lease = steer.Lease(600, steer.boot_time() + seconds, os.getpid(), start)
    saved = {**tree.saved(), "lease": lease._asdict()}
    tree.snapshot().write_text(json.dumps(saved))


class Ending:
    """The signals of a `watch` that is ended after some naps."""

    def __init__(self, naps: int) -> None:
        self.caught: list[int] = []
        self.naps = naps

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= steer.WATCH_NAP
        self.naps -= 1
        if self.naps <= 0:
            self.caught.append(signal.SIGTERM)


ERRORS = [
    MemoryError(),
    RecursionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    KeyError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("form", ["forked", "watch"])
def test_no_error_ends_a_watchdog(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, error: Exception, form: str
) -> None:
    before = tree.values()
    tree.apply(RFS)
    leased(tree, 0)
    load, failures, traces = steer.Store.load, [error] * 3, []

    def failing(self: Any, owner: str) -> Any:
        if failures:
            raise failures.pop()
        return load(self, owner)

    def nap(seconds: float) -> None:
        assert 0 < seconds <= steer.WATCHDOG_NAP
        traces.append(len(list((tree.root / "run/steerlab").glob("*.watchdog"))))

    with monkeypatch.context() as patch:
        patch.setattr(steer.Store, "load", failing)
        patch.setattr(steer.time, "sleep", nap)
        if form == "forked":
            steer.watch(tree.machine(), OWNER)
            assert traces == [1, 1, 1]
        else:
            answer = steer.stand_watch(tree.machine(), OWNER, Ending(6))
            assert answer["failed"] == []
    assert tree.values() == before
    assert not list((tree.root / "run/steerlab").glob("*.watchdog"))


def test_show_and_verify_tell_what_a_watchdog_had_to_tell(tree: Tree) -> None:
    tree.apply(RFS)
    leased(tree, 0)
    meddle(tree)
    steer.watch(tree.machine(), OWNER)
    for done in (tree.run("show"), tree.run("verify", "--owner", OWNER)):
        (words,) = done.answer["warnings"]
        assert "rps_cpus of eth1 rx-0" in words
    tree.apply(RFS)
    assert tree.run("show").answer["warnings"] == []


def test_a_watch_that_ends_tries_its_restore_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree.values()
    tree.apply(RFS)
    load, calls = steer.Store.load, []

    def failing(self: Any, owner: str) -> Any:
        calls.append(owner)
        if len(calls) == 2:
            raise OSError(12, "Cannot allocate memory")
        return load(self, owner)

    monkeypatch.setattr(steer.Store, "load", failing)
    assert steer.stand_watch(tree.machine(), OWNER, Ending(1))["failed"] == []
    assert tree.values() == before


# one owner after the other


def test_an_unexpected_error_of_one_owner_does_not_stop_the_others(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.device("eth9")
    before = tree.values()
    tree.apply({**RFS, "owner": "a"})
    tree.apply(plan(rule("nic", "eth9", cpus="1"), owner="b"))
    read = steer.Setting.read

    def failing(setting: Any) -> str:
        if "eth1" in str(setting):
            raise ZeroDivisionError("no such case")
        text: str = read(setting)
        return text

    with monkeypatch.context() as patch, tree.machine() as machine:
        patch.setattr(steer.Setting, "read", failing)
        answer = steer.restore_all(machine)
    assert len(answer["failed"]) == 4
    assert {entry["device"] for entry in tree.saved("a")["entries"]} == {"eth1"}
    assert not tree.snapshot("b").exists()
    assert tree.run("restore", "--all").returncode == 0
    assert tree.values() == before


# snapshots of an earlier agent


@pytest.fixture
def upgraded(tree: Tree) -> dict[str, str]:
    """A node that an earlier agent has steered, by RFS; the values before."""
    before = tree.values()
    tree.apply(RFS)
    shutil.copy(DATA / "snapshot-version-1.json", tree.snapshot())
    return before


def test_a_snapshot_of_an_earlier_agent_is_restored(tree: Tree, upgraded: dict[str, str]) -> None:
    assert tree.verify()["drift"] == []
    assert tree.run("show").answer["snapshots"][0]["entries"] == 3
    meddle(tree)  # it did not record what it wrote, so anything may be of its owner
    answer = tree.restore()
    assert (answer["restored"], answer["left"], answer["failed"]) == (7, [], [])
    assert tree.values() == upgraded


def test_a_snapshot_of_an_earlier_agent_is_applied_to(tree: Tree, upgraded: dict[str, str]) -> None:
    assert tree.apply(RFS)["changed"] == 0
    assert {(e["before"], *e["written"]) for e in tree.saved()["entries"]} == {
        ("2", "0"), ("64", "32768"), ("2", "3"), ("64", "0"), ("4096", "32768"),
    }  # fmt: skip
    tree.restore()
    assert tree.values() == upgraded


def test_a_watchdog_of_an_earlier_agent_is_replaced(tree: Tree, upgraded: dict[str, str]) -> None:
    """It could not read what this one writes."""
    with subprocess.Popen(["sleep", "60"]) as earlier:
        lease = steer.Lease(600, steer.boot_time() + 60, earlier.pid, "")
        lease = lease._replace(start=steer.start_time(earlier.pid))
        saved = {**tree.saved(), "lease": lease._asdict()}
        tree.snapshot().write_text(json.dumps(saved))
        assert tree.run("verify", "--owner", OWNER, "--renew").returncode == 0
        assert earlier.wait(timeout=15) == -signal.SIGTERM
        assert steer.Lease(**tree.saved()["lease"]).watched()
    tree.restore()
    assert tree.values() == upgraded


# whose folder it is


@pytest.fixture
def folder(tree: Tree) -> Path:
    folder = tree.root / "run/steerlab"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    return folder


VERBS = [("show",), ("verify", "--owner", OWNER), ("restore", "--owner", OWNER), ("apply",)]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_folder_that_another_could_have_filled_is_refused(
    tree: Tree, folder: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    before = tree.values()
    if os.geteuid() == 0:
        os.chown(folder, 12345, -1)
        done = tree.run(*verb, plan=RFS if verb == ("apply",) else None)
        assert (done.returncode, str(folder) in done.stderr) == (3, True)
        os.chown(folder, 0, -1)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    done = tree.run(*verb, plan=RFS if verb == ("apply",) else None)
    assert (done.returncode, str(folder) in done.stderr) == (3, True)
    assert tree.values() == before
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_one_s_own_is_closed(tree: Tree, folder: Path) -> None:
    tree.apply({**RFS, "lease_seconds": 600})
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    tree.restore()


def test_no_link_is_followed(tree: Tree, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    for suffix in (".temporary", ".watchdog"):
        tree.snapshot().with_suffix(suffix).symlink_to(victim)
    tree.apply(RFS)
    assert victim.read_text() == "safe"
    assert not tree.snapshot().is_symlink()
    tree.snapshot().rename(tmp_path / "moved")
    tree.snapshot().symlink_to(tmp_path / "moved")
    assert tree.run("restore", "--owner", OWNER).returncode == 1
    tree.snapshot().unlink()
    os.mkfifo(tree.snapshot())  # nobody waits for its other end
    assert tree.run("restore", "--owner", OWNER).returncode == 1
    tree.snapshot().unlink()
    (tmp_path / "moved").rename(tree.snapshot())
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim)
    assert tree.run("restore", "--owner", OWNER).returncode == 1
    (folder / "lock").unlink()
    assert tree.run("restore", "--owner", OWNER).returncode == 0


def test_an_answer_that_nobody_can_take_is_a_failure(tree: Tree) -> None:
    words = tree.command("apply")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*words, "--plan", json.dumps(RFS)],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, "No space left" in done.stderr) == (1, True)
    assert tree.verify()["drift"] == []
