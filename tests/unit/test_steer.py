"""Verify, restore and show, and the agent as a command."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
from steer_tree import AGENT, Tree, on_tree, plan, rule, steer

from agent.archive import NAME, archive

POD = "/run/netns/x-server-1"
PLAN = plan(
    rule("nic", "eth1", flows=32768),
    rule("veth", "cali*", cpus="all"),
    rule("pod", "eth0", cpus="all", namespace=POD, pod="iperf-server-1"),
    sock_flow_entries=32768,
)


# Reads 256 and takes nothing else, whoever writes: a value of this plan that cannot go back.
READ_ONLY = "/proc/sys/kernel/random/poolsize"
PLAN_256 = plan(
    rule("nic", "eth1", flows=256),
    rule("pod", "eth0", cpus="all", namespace=POD),
    sock_flow_entries=256,
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path, sock_flow_entries=4096)
    tree.device("eth1", queues=2, mask="2", flows=64)
    tree.device("cali1", mask="2", flows=64)
    tree.namespace(POD, cookie=11)
    tree.device("eth0", POD, mask="2", flows=64)
    return tree


def drift(tree: Tree, document: dict | None = None) -> list[tuple[str, str]]:
    before = tree.stamps()
    answer = tree.verify(document=document)
    assert tree.stamps() == before
    return [(item["kind"], item["message"]) for item in answer["drift"]]


# verify


def test_verify_of_what_apply_left_is_what_apply_said(tree: Tree) -> None:
    applied = tree.apply(PLAN)
    expected = {**applied, "changed": 0, "device_counts": ANY}
    assert tree.verify() == tree.verify(document=PLAN) == expected


def test_verify_names_what_was_changed_by_hand(tree: Tree) -> None:
    tree.apply(PLAN)
    tree.queue("eth1", 1).joinpath("rps_cpus").write_text("1\n")
    tree.queue("cali1").joinpath("rps_flow_cnt").write_text("16\n")
    tree.table.write_text("0\n")
    here = {"namespace": None, "device": "eth1", "queue": "rx-1"}
    words = "rps_cpus of eth1 rx-1 in this namespace is 1, not 0"
    assert {"kind": "value", **here, "message": words} in tree.verify()["drift"]
    assert drift(tree) == [
        ("value", "rps_flow_cnt of cali1 rx-0 in this namespace is 16, not 0"),
        ("value", words),
        ("value", "rps_sock_flow_entries of this machine is 0, not 32768"),
    ]


def test_a_zero_is_held_against_the_machine_too(tree: Tree) -> None:
    tree.apply(plan(rule("nic", "eth1"), sock_flow_entries=0))
    tree.table.write_text("64\n")
    assert drift(tree) == [("value", "rps_sock_flow_entries of this machine is 64, not 0")]


def test_verify_tells_a_recreated_pod_by_its_cookie(tree: Tree) -> None:
    """Even where every value, the ifindex and the path are as before."""
    tree.apply(PLAN)
    tree.namespace(POD, cookie=12)
    ((kind, words),) = drift(tree)
    assert kind == "recreated" and f"eth0 rx-0 in {POD}" in words


def test_verify_tells_a_recreated_device_by_its_ifindex(tree: Tree) -> None:
    tree.apply(PLAN)
    tree.device("cali1", mask="3")
    ((kind, words),) = drift(tree)
    assert kind == "recreated" and "cali1 rx-0" in words


def test_verify_names_new_devices_that_the_plan_means(tree: Tree) -> None:
    tree.apply(PLAN)
    tree.device("cali2", mask="3")
    ((kind, words),) = drift(tree)
    assert kind == "unsteered" and "cali2 rx-0" in words


def test_verify_names_a_namespace_that_is_gone(tree: Tree) -> None:
    tree.apply(PLAN)
    (tree.root / POD.lstrip("/")).rename(tree.root / "elsewhere")
    assert drift(tree) == [("missing", f"rules[2]: there is no namespace {POD}")]


def test_a_device_that_went_with_its_pod_is_no_drift(tree: Tree) -> None:
    """Fewer replicas: the pattern still finds the other pods' devices."""
    tree.device("cali2", mask="3")
    tree.apply(PLAN)
    (tree.root / "sys/class/net/cali2").rename(tree.root / "cali2")
    assert drift(tree) == []


def test_verify_names_a_rule_that_means_nothing_any_more(tree: Tree) -> None:
    tree.apply(PLAN)
    (tree.root / "sys/class/net/eth1").rename(tree.root / "eth1")
    said = [words for kind, words in drift(tree) if kind == "missing"]
    assert "rules[0]: no nic device of this namespace matches eth1; it has cali1" in said
    assert any(words.startswith("eth1 rx-0 ") for words in said)


def test_verify_without_a_snapshot_is_drift(tree: Tree) -> None:
    ((kind, words),) = drift(tree)
    assert kind == "snapshot" and "rfs-plus-4/server" in words
    tree.apply(PLAN)
    tree.restore()
    assert ("snapshot", words) in drift(tree, PLAN)
    assert len(drift(tree, PLAN)) > 1  # the values are not there either


def test_verify_of_another_plan_names_what_it_lacks(tree: Tree) -> None:
    tree.apply(PLAN)
    less = {**PLAN, "rules": PLAN["rules"][1:]}
    assert drift(tree, less) == [
        ("unplanned", f"eth1 rx-{n} in this namespace is steered but not in this plan")
        for n in (0, 1)
    ]


# restore


def test_restore_twice_is_restore_once(tree: Tree) -> None:
    before = tree.values()
    tree.apply(PLAN)
    first = tree.restore()
    assert (first["restored"], first["gone"], first["failed"]) == (9, [], [])
    stamps = tree.stamps()
    assert tree.restore()["restored"] == 0
    assert (tree.values(), tree.stamps()) == (before, stamps)


def test_restore_skips_and_reports_what_is_gone_or_recreated(tree: Tree) -> None:
    before = tree.values()
    tree.apply(PLAN)
    (tree.root / "sys/class/net/cali1").rename(tree.root / "cali1")
    tree.namespace(POD, cookie=12)
    recreated = tree.queue("eth0", namespace=POD) / "rps_cpus"
    answer = tree.restore()
    cali, pod = sorted(answer["gone"])
    assert cali.startswith("cali1 rx-0 in this namespace: ")
    assert pod.startswith(f"eth0 rx-0 in {POD}: ")
    assert answer["failed"] == []
    assert recreated.read_text() == "3\n"  # another pod's, and no business of this snapshot
    after = tree.values()
    assert all(after[name] == before[name] for name in before if "eth1" in name)
    assert tree.table.read_text() == "4096\n"
    assert not tree.snapshot().exists()


def test_restore_finds_a_namespace_whose_path_has_changed(tree: Tree) -> None:
    """/proc/PID/ns/net ends with the process; the pod and its steering do not."""
    tree.apply(PLAN)
    moved = "/run/netns/y"
    (tree.root / POD.lstrip("/")).rename(tree.root / moved.lstrip("/"))
    assert tree.restore()["gone"] == []
    queue = tree.queue("eth0", namespace=moved)
    assert queue.joinpath("rps_cpus").read_text() == "2\n"
    assert queue.joinpath("rps_flow_cnt").read_text() == "64\n"


def test_a_restore_that_fails_on_one_queue_goes_on_and_keeps_it(tree: Tree) -> None:
    before = tree.values()
    tree.apply(PLAN_256)
    file = tree.queue("eth1", 0) / "rps_flow_cnt"
    file.unlink()
    file.symlink_to(READ_ONLY)
    words = "rps_flow_cnt of eth1 rx-0 in this namespace: Permission denied"
    assert tree.restore()["failed"] == [words]
    (entry,) = tree.saved()["entries"]
    assert (entry["device"], entry["queue"], entry["knob"]) == ("eth1", "rx-0", "rps_flow_cnt")
    assert (entry["before"], entry["written"], entry["reason"]) == ("64", ["256"], words)
    after = tree.values()
    assert {name for name in before if after[name] != before[name]} == {
        str(file.relative_to(tree.root))
    }
    file.unlink()
    file.write_text("256\n")
    assert tree.restore()["failed"] == []
    assert tree.values() == before
    assert not tree.snapshot().exists()


def test_a_machine_table_that_cannot_be_restored_stays_in_the_snapshot(tree: Tree) -> None:
    tree.apply(PLAN_256)
    tree.table.unlink()
    tree.table.symlink_to(READ_ONLY)
    assert len(tree.restore()["failed"]) == 1
    (entry,) = tree.saved()["entries"]
    assert (entry["knob"], entry["before"]) == ("rps_sock_flow_entries", "4096")


def test_restore_where_the_machine_table_is_not_shown_keeps_it(tree: Tree) -> None:
    tree.apply(PLAN)
    table = tree.table.rename(tree.root / "table")
    assert len(tree.restore()["failed"]) == 1
    table.rename(tree.table)
    assert tree.restore()["failed"] == []
    assert tree.table.read_text() == "4096\n"


def test_restore_all_goes_on_past_a_damaged_snapshot(tree: Tree) -> None:
    before = tree.values()
    tree.apply(PLAN)
    damaged = tree.snapshot("damaged")
    damaged.write_text("{")
    done = tree.run("restore", "--all")
    assert done.returncode == 1
    assert [owner["owner"] for owner in done.answer["owners"]] == ["damaged", "rfs-plus-4/server"]
    assert f"steer: snapshot {damaged} is damaged" in done.stderr
    assert (tree.values(), damaged.read_text()) == (before, "{")
    assert tree.run("restore", "--owner", "rfs-plus-4/server").returncode == 0


# show


def test_show_lists_every_queue_and_who_steers(tree: Tree) -> None:
    tree.apply({**PLAN, "rules": PLAN["rules"][:1]})
    done = tree.run("show", "--namespace", POD)
    assert done.returncode == 0
    assert [tuple(queue.values()) for queue in done.answer["queues"]] == [
        (None, "cali1", "rx-0", "2", 64),
        (None, "eth1", "rx-0", "0", 32768),
        (None, "eth1", "rx-1", "0", 32768),
        (POD, "eth0", "rx-0", "2", 64),
    ]
    assert done.answer["cpus"] == {"online": [0, 1], "present": [0, 1], "isolated": []}
    assert done.answer["sock_flow_entries"] == 32768
    (snapshot,) = done.answer["snapshots"]
    assert (snapshot["owner"], snapshot["entries"]) == ("rfs-plus-4/server", 2)
    assert snapshot["holds_sock_flow_entries"] is True
    assert (snapshot["lease_seconds_left"], snapshot["watchdog"]) == (None, None)


def test_show_names_snapshots_that_it_cannot_read(tree: Tree) -> None:
    tree.apply(PLAN)
    tree.write("proc/sys/kernel/random/boot_id", "boot-two")
    tree.snapshot("damaged").write_text("{")
    errors = [snapshot["error"] for snapshot in tree.run("show").answer["snapshots"]]
    assert "is damaged" in errors[0]
    assert "an earlier boot" in errors[1]


def test_show_of_a_namespace_that_is_not_there(tree: Tree) -> None:
    done = tree.run("show", "--namespace", "/run/netns/none")
    assert (done.returncode, done.answer) == (3, None)
    assert done.stderr == "steer: there is no namespace /run/netns/none\n"


# the command


def test_the_verbs_as_commands(tree: Tree) -> None:
    before = tree.values()
    applied = tree.run("apply", plan=PLAN)
    assert (applied.returncode, applied.stderr) == (0, "")
    assert applied.answer["changed"] == 9
    assert tree.run("verify", plan=PLAN).returncode == 0
    verified = tree.run("verify", "--owner", PLAN["owner"]).answer
    assert {**verified, "changed": 9} == {**applied.answer, "device_counts": ANY}
    restored = tree.run("restore", "--owner", PLAN["owner"])
    assert (restored.returncode, restored.answer["restored"]) == (0, 9)
    assert tree.values() == before


def test_the_answer_of_apply_says_nothing_that_changes_from_run_to_run(tree: Tree) -> None:
    first = tree.run("apply", plan={**PLAN, "lease_seconds": 600})
    tree.run("restore", "--owner", PLAN["owner"])
    second = tree.run("apply", plan={**PLAN, "lease_seconds": 600})
    tree.run("restore", "--owner", PLAN["owner"])
    assert first.stdout == second.stdout
    assert max(map(len, first.stdout.splitlines())) < 1000


def test_drift_is_exit_1_with_the_answer(tree: Tree) -> None:
    tree.run("apply", plan=PLAN)
    tree.table.write_text("0\n")
    done = tree.run("verify", "--owner", PLAN["owner"], "--saved")
    assert done.returncode == 1
    assert done.answer["drift"][0]["message"] in done.stderr
    assert done.stderr.startswith("steer: ")


def test_one_file_holds_all_of_it(tree: Tree, tmp_path: Path) -> None:
    """As nodes get it; the plan is then an argument."""
    file = tmp_path / NAME
    file.write_bytes(archive())

    def piped(*arguments: str) -> dict:
        done = subprocess.run(
            on_tree(tree.root, *arguments, agent=file),
            stdin=subprocess.DEVNULL,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return json.loads(done.stdout)

    before = tree.values()
    without = {key: value for key, value in PLAN.items() if key != "owner"}
    assert piped("apply", "--owner", "o", "--plan", json.dumps(without))["changed"] == 9
    assert piped("verify", "--owner", "o")["drift"] == []
    assert piped("restore", "--owner", "o")["restored"] == 9
    assert tree.values() == before


def test_its_bytes_are_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    elsewhere = tmp_path / "package"
    shutil.copytree(AGENT, elsewhere, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path / "made.pyz"
    command = [sys.executable, "-I", elsewhere / "archive.py", made]
    subprocess.run(command, cwd="/", check=True)
    assert made.read_bytes() == archive()


def test_a_verb_loads_nothing_of_those_that_write() -> None:
    """Nodes in production start an agent that reads; most of its CPU time is that of its start."""
    code = f"import sys; sys.path.insert(0, {str(AGENT.parent)!r})\nimport agent.observe, agent.cli\nprint(*sys.modules)"
    words = [sys.executable, "-I", "-S", "-c", code]
    loaded = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    writers = {"agent.transaction", "agent.switchback", "agent.watchdog", "agent.rollout"}
    assert not {"subprocess", *writers} & {*loaded}


def test_no_stdin_is_no_plan(tree: Tree) -> None:
    tree.apply(PLAN)
    command = f"{shlex.join(tree.command('verify', '--owner', PLAN['owner']))} <&-"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0


def test_the_plan_may_be_a_file(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    assert tree.run("apply", "--plan", f"@{file}").answer["changed"] == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "plan: missing"),
        (("--plan", "{"), "plan: not JSON in UTF-8"),
        (("--plan", "@/no/such/file"), "plan: /no/such/file: No such file or directory"),
        (("--plan", json.dumps(PLAN), "--owner", "x"), "owner is 'rfs-plus-4/server', not 'x'"),
        (("--plan", json.dumps({**PLAN, "x": 1})), "plan: x is unknown"),
        (("--colour",), "unrecognized arguments"),
    ],
)
def test_bad_input_is_exit_2_and_writes_nothing(tree: Tree, options: tuple, words: str) -> None:
    stamps = tree.stamps()
    done = tree.run("apply", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert tree.stamps() == stamps
    assert not tree.snapshot().parent.exists()


def test_a_plan_that_is_not_utf8_is_refused(tree: Tree) -> None:
    done = subprocess.run(
        tree.command("apply"),
        input=b'{"owner": "\xff"}',
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert b"steer: plan: not JSON in UTF-8" in done.stderr


def test_verify_needs_to_know_whose(tree: Tree) -> None:
    assert tree.run("verify").returncode == 2


def test_steering_the_machine_itself_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer.os, "geteuid", lambda: 1000)
    with pytest.raises(steer.SteerError, match="use sudo") as refusal:
        steer.Machine()
    assert refusal.value.status == 3


def test_stacks_of_the_first_version_find_their_agent(tmp_path: Path) -> None:
    """Their delete scripts name this file, run by any Python and from any folder."""
    shim = AGENT.parent / "docker/steering/steer.py"
    words = [sys.executable, "-I", str(shim), "apply", "--plan", "{}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode in (2, 3)  # a plan that is none; 3 without root
    assert done.stderr.startswith("steer: ")
    assert done.stdout == ""
