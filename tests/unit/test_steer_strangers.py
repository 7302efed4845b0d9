"""What others on a node do beside the agent: it steers no stranger, and opens and prints nothing of theirs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from imitation import on
from steer_tree import Tree, eventually, plan, replace, rule, steer

OWNER = "rfs-plus-4/server"
RPS = plan(rule("nic", "eth*", cpus="all"))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.device("eth1", mask="2")
    return tree


def mask(tree: Tree) -> str:
    return tree.queue("eth1").joinpath("rps_cpus").read_text().strip()


def recreate(tree: Tree, value: str) -> None:
    """Another device takes the name of this one, and holds what this one would."""
    tree.write("sys/class/net/eth1/ifindex", 77)
    tree.queue("eth1").joinpath("rps_cpus").write_text(f"{value}\n")


def test_a_device_recreated_before_the_write_is_not_steered(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = steer.Store.save

    def saved(store: object, snapshot: object) -> None:
        save(store, snapshot)
        monkeypatch.setattr(steer.Store, "save", save)
        recreate(tree, "2")

    monkeypatch.setattr(steer.Store, "save", saved)
    with pytest.raises(steer.SteerError):
        tree.apply(RPS)
    assert mask(tree) == "2"
    assert tree.restore()["failed"] == []


def test_a_device_recreated_before_it_is_restored_stays(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.apply(RPS)
    find = steer.Namespace.find

    def found(namespace: object, entry: object) -> object:
        place = find(namespace, entry)
        recreate(tree, "3")
        return place

    monkeypatch.setattr(steer.Namespace, "find", found)
    answer = tree.restore()
    assert (answer["restored"], answer["failed"]) == (0, [])
    assert mask(tree) == "3"
    assert answer["gone"]


def test_a_device_recreated_after_the_write_is_not_rolled_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = steer.Setting.put

    def written(setting: object, wanted: str, unusable: int, back: bool = False) -> None:
        put(setting, wanted, unusable, back)
        recreate(tree, "3")

    monkeypatch.setattr(steer.Setting, "put", written)
    with pytest.raises(steer.SteerError):
        tree.apply(RPS)
    assert mask(tree) == "3"
    monkeypatch.setattr(steer.Setting, "put", put)
    assert tree.restore()["failed"] == []
    assert not tree.snapshot().exists()


def test_nothing_but_a_namespace_is_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # it waits until somebody opens the other end
    writer = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_WRONLY)), daemon=True)
    writer.start()
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        assert steer.Machine._namespace(None, None, home, "x", str(fifo)) is None
        time.sleep(0.1)
        assert writer.is_alive()
        inside = steer.open_namespace("/proc/self/ns/net", home)
        assert os.fstat(inside).st_ino == os.fstat(home).st_ino
        os.close(inside)
    finally:
        os.close(home)
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(5)


def test_a_pattern_ends_at_a_slash(tree: Tree) -> None:
    """Also where another rule, or a plan before, has named a namespace further below."""
    tree.namespace("/run/netns/a", 1)
    tree.device("eth0", "/run/netns/a")
    tree.device("eth1", "/run/netns/a")
    wide = rule("pod", "eth0", cpus="all", namespace="/run/*", optional=True)
    named = rule("pod", "eth1", cpus="all", namespace="/run/netns/a")
    (queue,) = tree.apply(plan(wide, named))["queues"]
    assert queue["device"] == "eth1"
    wide = rule("pod", "eth1", cpus="all", namespace="/run/*", optional=True)
    assert tree.apply(plan(wide))["queues"] == []
    assert set(tree.values().values()) == {"0", "2"}


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("/run/netns/a", "/run/netns/*", True),
        ("/run/netns/a", "/run/*/a", True),
        ("/run/netns/a", "/run/netns/*/", True),
        ("/run/netns/a", "/run/*", False),
        ("/run/netns/a", "/*/*/*/*", False),
        ("/run/netns/a", "/RUN/netns/*", False),
        ("/run/netns/a[1]", "/run/netns/a[1]", False),
    ],
)
def test_a_pattern_is_matched_part_by_part(path: str, pattern: str, fits: bool) -> None:
    assert steer.is_like(path, pattern) is fits


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_plan(tree: Tree, number: int) -> None:
    readable, writable = os.pipe()
    process = subprocess.Popen(
        tree.command("apply"),
        stdin=readable,
        stderr=subprocess.PIPE,
    )
    try:
        caught = f"/proc/{process.pid}/status"
        bit = 1 << (steer.Signals.ALL[-1] - 1)  # of the last handler
        words = "SigCgt:"
        eventually(
            lambda: any(
                int(line.split()[1], 16) & bit
                for line in Path(caught).read_text().splitlines()
                if line.startswith(words)
            )
        )
        time.sleep(0.3)
        process.send_signal(number)
        process.communicate(timeout=5)
        assert process.returncode == 128 + number
    finally:
        process.kill()
        os.close(readable)
        os.close(writable)


def test_names_do_nothing_to_a_terminal(tree: Tree) -> None:
    tree.device("\x1b]0;x\x07")
    tree.device("\x9b31m")
    done = tree.run("apply", plan=plan(rule("nic", "zz")))
    assert done.returncode == 3
    assert done.stderr.rstrip("\n").isprintable()
    assert r"\x1b]0;x\x07" in done.stderr


def test_an_answer_that_is_lost_is_no_restore(tree: Tree) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            tree.command("apply"),
            input=json.dumps(RPS),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"owner {OWNER} steers" in done.stderr
    assert done.stderr.count("\n") == 1
    assert tree.snapshot().exists()


def test_a_closed_output_is_no_traceback(tree: Tree) -> None:
    command = f"{shlex.join(tree.command('show'))} >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S602
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_an_error_that_nobody_expects_is_one_sentence(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(monkeypatch, "show", lambda *_: {}["x"])
    handlers = {number: signal.getsignal(number) for number in steer.Signals.ALL}
    try:
        assert steer.main(["show"], on(tree.root)) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err.count("\n") == 1


def gone(tree: Tree) -> None:
    """Steer a pod, and remove its namespace."""
    tree.write("proc/self/uid_map", "0 0 4294967295")
    tree.namespace("/run/netns/x", 9)
    tree.device("eth0", "/run/netns/x")
    tree.apply(plan(rule("pod", "eth0", cpus="all", namespace="/run/netns/x")))
    (tree.root / "run/netns/x").rename(tree.root / "run/x")


@pytest.mark.parametrize(
    ("users", "vetoes"), [("0 0 4294967295", True), ("0 1000 1", False), ("", False)]
)
def test_a_user_keeps_no_restore_from_its_end(tree: Tree, users: str, vetoes: bool) -> None:
    """What is in the namespaces of the node itself counts as before."""
    gone(tree)
    (tree.root / "proc/5/ns").mkdir(parents=True)
    tree.write("proc/5/uid_map", users)
    (tree.root / "proc/5/ns/net").symlink_to("net")  # cannot be looked at: it leads nowhere
    answer = tree.restore()
    assert bool(answer["failed"]) is vetoes
    assert bool(answer["gone"]) is not vetoes


def test_what_a_user_keeps_is_still_restored(tree: Tree) -> None:
    gone(tree)
    tree.write("proc/5/uid_map", "0 1000 1")
    (tree.root / "proc/5/ns").mkdir(parents=True)
    (tree.root / "run/x").rename(tree.root / "proc/5/ns/net")
    answer = tree.restore()
    assert (answer["failed"], answer["gone"], answer["restored"]) == ([], [], 1)


def test_the_search_among_users_ends(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    gone(tree)
    replace(monkeypatch, "SEARCH_SECONDS", 0)
    for pid in range(5, 20):
        tree.namespace(f"/proc/{pid}/ns/net", pid)
        tree.write(f"proc/{pid}/uid_map", "0 1000 1")
    visited: list[str] = []
    visit = steer.Machine.visit
    monkeypatch.setattr(
        steer.Machine,
        "visit",
        lambda machine, paths: visited.extend(paths) or visit(machine, paths),
    )
    assert tree.restore()["gone"]
    assert not [path for path in visited if path.startswith("/proc/")]


@pytest.mark.parametrize("foreign", [True, False])
def test_devices_that_keep_changing(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    """In a user's namespace, also where a process of the node holds it."""
    gone(tree)
    tree.namespace("/proc/5/ns/net", 9)  # the search goes by the cookie here
    if foreign:
        tree.write("proc/5/ns/net/foreign", "")
    names = iter(range(1000))
    monkeypatch.setattr(steer.Namespace, "devices", lambda _: [str(next(names))])
    answer = tree.restore()
    assert (bool(answer["failed"]), bool(answer["gone"])) == (not foreign, foreign)


def test_mounts_of_any_number_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    row = "25 1 0:22 / /" + "x" * 4000 + " rw - proc proc rw\n"
    with file.open("w") as text:
        for _ in range(20_000):
            text.write(row)
        text.write("26 1 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw\n")
    lines = steer.lines_of(file, " - nsfs ", float("inf"))
    assert steer.namespace_mounts(lines) == ["/run/netns/x"]
    assert list(steer.lines_of(file, " - nsfs ", 0)) == []
