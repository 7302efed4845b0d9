"""`nodes`: the plan of this node, what is said about it, and what keeps it."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from steer_tree import Tree, eventually, on_tree, plan, rule, steer

from agent.archive import archive
from agent.patterns import is_like
from experiments.host import calls, daemonset, nodes, persist
from experiments.host.nodes import Choice
from infra import configurations, lease
from infra.errors import InvalidInput, PrerequisiteMissing, Refusal

ROOT = Path(__file__).resolve().parents[2]


# --- the plan ---


def rules(**more: Any) -> list[tuple]:
    planned = nodes.planned(Choice("rfs-plus", **more))
    return [(r["role"], r["namespace"], r["devices"], r["optional"]) for r in planned["rules"]]


def test_a_plan_means_the_devices_that_were_asked_for() -> None:
    assert rules() == [
        ("nic", None, ["auto"], False),
        ("overlay", None, ["auto"], True),
        ("veth", None, ["auto"], True),
        *(("pod", pattern, ["eth0"], True) for pattern in nodes.PODS),
    ]
    assert rules(nics=["ens5", "ens6", "ens5"], overlay="none", pods=[]) == [
        ("nic", None, ["ens5"], False),
        ("nic", None, ["ens6"], False),
    ]
    uid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    for name, meant in ((f"cni-{uid}", True), (uid, True), ("vpn", False)):
        assert any(is_like(f"/run/netns/{name}", one) for one in nodes.PODS) is meant
    # what is named must be there
    assert rules(overlay="flannel.1", pods=["/run/netns/a"])[1::2] == [
        ("overlay", None, ["flannel.1"], False),
        ("pod", "/run/netns/a", ["eth0"], False),
    ]


def test_the_agent_reads_the_plan_of_every_configuration() -> None:
    for name, configuration in configurations.load().items():
        document = nodes.plan(configuration, Choice(name, lease="2h", owner="me"))
        parsed = steer.parse_plan(document)
        assert (parsed.owner, parsed.lease_seconds) == ("me", 7200)
        assert parsed.rules[0].set == configuration.nic.knobs


@pytest.mark.parametrize(
    ("text", "seconds"), [("none", None), ("90s", 90), ("30m", 1800), ("2h", 7200)]
)
def test_a_lease_is_read(text: str, seconds: int | None) -> None:
    assert lease.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "0s", "2d", "-1h", "1.5h", "2h ", "9" * 5000 + "h"])
def test_a_lease_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="lease: write a number and s, m or h"):
        lease.seconds(text)


def test_a_configuration_that_nobody_described_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"configuration: 'nope' is unknown \(known: baseline, rps,"
    ):
        nodes.planned(Choice("nope"))


@pytest.mark.parametrize("owner", ["", "-all", "a b", "$(reboot)", "a\nb", "x" * 129])
def test_an_owner_that_no_unit_could_name_is_refused(owner: str) -> None:
    with pytest.raises(InvalidInput, match=r"^owner: "):
        nodes.planned(Choice("rps", owner=owner))
    with pytest.raises(InvalidInput, match=r"^owner: "):
        nodes.restore(owner)


# --- a node of files, and a systemd that only writes down what it is told ---


class Node(Tree):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "root", sock_flow_entries=4096)
        self.device("eth1", queues=2, mask="2", flows=64)
        for path in ("run/systemd/system", "usr/bin"):
            (self.root / path).mkdir(parents=True)
        (self.root / "usr/bin/python3").touch()
        self.told = folder / "told"
        self.told.touch()
        self.broken = folder / "broken"  # the words of systemctl that fail
        self.status = folder / "status"  # what `systemctl show` prints
        self.status.touch()

    def commands(self) -> list[str]:
        """What systemctl was told since this was last asked; `agent VERB` where the agent ran."""
        lines = self.told.read_text().splitlines()
        self.told.write_text("")
        return lines

    def files(self) -> dict[str, str]:
        """All that --persist could have left."""
        places = [self.root / "etc", self.root / "usr/local"]
        found = [f for place in places for f in place.rglob("*") if not f.is_dir()]
        return {
            f"/{f.relative_to(self.root)}": f.read_bytes().decode(errors="surrogateescape")
            for f in found
        }

    def keep(self, configuration: str, **more: Any) -> dict[str, Any]:
        choice = Choice(configuration, ["eth1"], "none", **more)
        return nodes.apply(choice, keep=True, root=self.root)


SYSTEMCTL = """#!/bin/sh
[ "$1" != show ] || exec cat {status}
echo "$@" >> {told}
if grep -qxF -- "$*" {broken} 2>/dev/null; then echo "no such luck" >&2; exit 1; fi
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(tmp_path)
    command = tmp_path / "bin/systemctl"
    command.parent.mkdir()
    command.write_text(SYSTEMCTL.format(told=made.told, broken=made.broken, status=made.status))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    call = calls.call

    def here(verb: str, *options: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        with made.told.open("a") as file:
            file.write(f"agent {verb}\n")
        return call(verb, *options, plan=plan)

    monkeypatch.setattr(calls, "COMMAND", on_tree(made.root))
    monkeypatch.setattr(calls, "call", here)
    return made


def test_applying_again_keeps_the_lease_that_holds(node: Node) -> None:
    def apply(configuration: str, lease: str = "") -> dict[str, Any]:
        choice = Choice(configuration, ["eth1"], "none", [], lease=lease)
        return nodes.apply(choice, root=node.root)

    def left() -> float | None:
        (snapshot,) = nodes.show(root=node.root)["snapshots"]
        return snapshot["lease_seconds_left"]

    assert (apply("rfs")["lease_seconds"], left()) == (None, None)
    assert apply("rfs", "2h")["lease_seconds"] == 7200
    again = apply("rps")
    assert (again["lease_seconds"], again["warnings"]) == (7200, [])
    assert left() == pytest.approx(7200, abs=60)
    dropped = apply("rps", "none")
    assert dropped["lease_seconds"] is None
    assert left() is None
    assert any("lease of 7200 s" in words for words in dropped["warnings"])
    assert apply("rps")["warnings"] == []


# --- in words ---


def test_show_says_what_stands_and_who_holds_it(node: Node) -> None:
    node.cpus(online="0-1,4", present="0-5", isolated="4")
    node.namespace("/run/netns/cni-1", cookie=7)
    node.device("eth0", "/run/netns/cni-1", mask="1")
    node.device("eth9", queues=1)
    text = nodes.show_text(nodes.show())
    assert text.splitlines() == [
        "CPUs        0-1,4 online, 2-3,5 offline, 4 isolated",
        "machine     rps_sock_flow_entries 4096",
        "",
        "DEVICE  NAMESPACE         QUEUES  RPS_CPUS  RPS_FLOW_CNT",
        "eth1    -                 rx 0-1  2         64",
        "eth9    -                 rx 0    0         0",
        "eth0    /run/netns/cni-1  rx 0    1         0",
        "",
        "no active snapshots: nothing to restore",
    ]
    assert steer  # the rows come from the agent itself
    node.apply(plan(rule("nic", "eth1", flows=128), owner="x-2/server", sock_flow_entries=1))
    node.apply(plan(rule("nic", "eth9", flows=128), owner="mine"))
    since = [s["since"] for s in nodes.show()["snapshots"]]
    assert nodes.show_text(nodes.show()).splitlines()[-2:] == [
        f"owner mine since {since[0]}: 1 rps_cpus, 1 rps_flow_cnt, no lease",
        f"owner x-2/server since {since[1]}: 2 rps_cpus, 2 rps_flow_cnt, "
        "1 rps_sock_flow_entries, no lease",
    ]


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ({"lease_seconds_left": 7199.5, "watchdog": 7}, "no table, lease for another 1h 59m"),
        ({"lease_seconds_left": 61.0, "watchdog": 7}, "no table, lease for another 1m"),
        (
            {"lease_seconds_left": 5.0, "watchdog": None},
            "lease for another 5s, but its watchdog is dead: nothing will restore it",
        ),
        ({"error": "of an earlier boot"}, "owner me: of an earlier boot"),
    ],
)
def test_a_snapshot_in_words(snapshot: dict, words: str) -> None:
    common = {"owner": "me", "since": "now", "values": {"rps_cpus": 2}}
    (line,) = nodes.held([{**common, **snapshot}])
    assert line.endswith(words.replace("no table", "2 rps_cpus"))


def test_apply_and_restore_say_what_was_done(node: Node) -> None:
    choice = Choice("rfs", ["eth1"], "none", [])
    first = nodes.apply_text(nodes.apply(choice, root=node.root)).splitlines()
    assert first == [
        "ROLE  DEVICE  NAMESPACE  QUEUES  RPS_CPUS  RPS_FLOW_CNT",
        "nic   eth1    -          rx 0-1  0         32768",
        "",
        "machine     rps_sock_flow_entries 32768",
        "written     5 values",
    ]
    assert "written     0 values" in nodes.apply_text(nodes.apply(choice, root=node.root))
    shutil.rmtree(node.root / "sys/class/net/eth1")
    done, *skipped = nodes.restore_text(nodes.restore("nodes", node.root)).splitlines()
    assert done == "restored 1 value of nodes; rps_sock_flow_entries is 4096"
    assert len(skipped) == 2
    assert all(f"skipped eth1 rx-{index} " in line for index, line in enumerate(skipped))
    assert "nothing to restore" in nodes.restore_text(nodes.restore("nodes", node.root))
    assert "nothing to restore" in nodes.restore_text(nodes.restore(None, node.root))


def test_preview_says_what_an_apply_would_write_and_writes_nothing(node: Node) -> None:
    before, choice = node.values(), Choice("rfs", ["eth1"], "none", [])
    said = nodes.preview_text(nodes.preview(choice)).splitlines()
    assert said[0] == "rps_cpus               eth1 rx-0 in this namespace  2     ->  0"
    assert said[-1] == "5 values would be written"
    assert node.values() == before
    assert not list((node.root / "run/steerlab").glob("*"))
    nodes.apply(choice, root=node.root)
    assert nodes.preview_text(nodes.preview(choice)) == "0 values would be written"


def test_restore_tells_what_it_left_to_somebody_else(node: Node) -> None:
    before = node.values()
    choice = Choice("rps", ["eth1"], "none")
    nodes.apply(choice, root=node.root)
    (node.queue("eth1") / "rps_cpus").write_text("1\n")
    text = nodes.restore_text(nodes.restore("nodes", node.root))
    assert "rps_cpus of eth1 rx-0" in text
    assert (node.queue("eth1") / "rps_cpus").read_text() == "1\n"
    (node.queue("eth1") / "rps_cpus").write_text("2\n")
    nodes.apply(choice, root=node.root)
    (node.queue("eth1") / "rps_cpus").write_text("1\n")
    assert "rx-0" not in nodes.restore_text(nodes.restore("nodes", node.root, force=True))
    assert node.values() == before


def test_restore_all_names_every_owner(node: Node) -> None:
    node.device("eth9")
    before = node.values()
    nodes.apply(Choice("rps", ["eth1"], "none", [], owner="a"), root=node.root)
    node.apply(plan(rule("nic", "eth9", flows=64), owner="b"))
    assert nodes.restore_text(nodes.restore(None, node.root)).splitlines() == [
        "restored 5 values of a; rps_sock_flow_entries is 4096",
        "restored 1 value of b",
    ]
    assert node.values() == before


# --- --persist ---


def test_persist_installs_and_restore_takes_all_of_it_away(node: Node) -> None:
    before = node.values()
    assert node.keep("rfs")["kept_by"] == persist.SERVICE
    assert node.commands() == [
        "agent apply",
        "daemon-reload",
        "enable steerlab-steering.service",
        "reload-or-restart steerlab-steering.service",
    ]
    files = node.files()
    assert sorted(files) == [
        "/etc/steerlab/plan.json",
        "/etc/systemd/system/steerlab-steering-again.service",
        "/etc/systemd/system/steerlab-steering-again.timer",
        "/etc/systemd/system/steerlab-steering.service",
        "/usr/local/lib/steerlab/steer.pyz",
    ]
    assert files["/usr/local/lib/steerlab/steer.pyz"].encode(errors="surrogateescape") == archive()
    modes = {(node.root / path[1:]).stat().st_mode & 0o777 for path in files}
    assert modes == {0o644}  # for all to read, for root alone to write

    link = node.root / persist.LINK[1:]
    link.parent.mkdir()
    link.symlink_to("../steerlab-steering.service")
    removed = nodes.restore("nodes", node.root)["removed"]
    assert set(removed) == {persist.LINK, *files}
    assert (node.files(), node.values()) == ({}, before)
    assert node.commands() == [
        "stop steerlab-steering-again.timer steerlab-steering-again.service",
        "agent restore",
        "disable steerlab-steering.service",
        "stop steerlab-steering.service",
        "daemon-reload",
        "reset-failed steerlab-steering.service steerlab-steering-again.service",
    ]
    assert nodes.restore("nodes", node.root)["removed"] == []
    assert node.commands() == ["agent restore"]


def test_the_units_commands_keep_the_plan_and_the_first_snapshot(node: Node) -> None:
    """As systemd would: at boot, every minute after, at the end."""
    before = node.values()
    node.keep("rps-plus")
    node.restore("nodes")
    unit = (node.root / f"{persist.UNITS[1:]}/{persist.SERVICE}").read_text()
    lines = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("Exec"))
    assert lines["ExecStart"] == lines["ExecReload"]

    def run(line: str) -> None:
        python, isolated, script, *words = line.split()
        assert (python, isolated) == ("/usr/bin/python3", "-I")
        words = [word.replace("@/", f"@{node.root}/") for word in words]
        script = f"{node.root}{script}"
        command = on_tree(node.root, *words, agent=Path(script))
        subprocess.run(command, check=True, capture_output=True)

    run(lines["ExecStart"])
    since = node.saved("nodes")["since"]
    node.namespace("/run/netns/cni-7", cookie=77)
    node.pair("cali7", "/run/netns/cni-7")
    before = {**node.values(), **before}
    run(lines["ExecReload"])
    assert (node.queue("cali7") / "rps_cpus").read_text() == "3\n"
    assert (node.queue("eth0", namespace="/run/netns/cni-7") / "rps_cpus").read_text() == "3\n"
    assert node.saved("nodes")["since"] == since
    run(lines["ExecStop"])
    assert node.values() == before


def test_persist_where_no_systemd_runs_touches_nothing(node: Node) -> None:
    (node.root / "run/systemd/system").rmdir()
    before = node.values()
    with pytest.raises(PrerequisiteMissing, match=r"no /run/systemd/system.*--print systemd"):
        node.keep("rfs")
    assert (node.values(), node.files(), node.commands()) == (before, {}, [])


@pytest.mark.parametrize("step", persist.steps_to_start(), ids=" ".join)
def test_a_systemd_that_refuses_leaves_no_file(node: Node, step: list[str]) -> None:
    node.broken.write_text(" ".join(step[1:]))
    with pytest.raises(Refusal, match=r"no such luck; .*nodes restore"):
        node.keep("rfs")
    assert node.files() == {}
    assert node.table.read_text() == "32768\n"
    node.broken.unlink()
    node.keep("rps")
    kept = node.files()
    node.broken.write_text(" ".join(step[1:]))
    with pytest.raises(Refusal, match="previous configuration"):
        node.keep("rfs")
    assert node.files() == kept


@pytest.mark.parametrize("count", range(5))
def test_a_full_disk_leaves_no_file(
    node: Node, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole, written = persist.atomically, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > count:
            raise OSError(28, "No space left on device", str(path))
        whole(path, content)

    monkeypatch.setattr(persist, "atomically", full)
    with pytest.raises(Refusal, match="No space left"):
        node.keep("rfs")
    assert node.files() == {}


def test_persist_changes_what_its_owner_keeps_and_nothing_of_others(node: Node) -> None:
    node.keep("rfs")
    node.keep("rps")
    assert json.loads(node.files()[persist.PLAN])["rules"][0]["cpus"] == "all"
    assert (
        "Description=Packet steering rps of" in node.files()[f"{persist.UNITS}/{persist.SERVICE}"]
    )
    values, files = node.values(), node.files()
    node.commands()
    with pytest.raises(
        PrerequisiteMissing, match=r"owner nodes: first run .*restore --owner nodes"
    ):
        node.keep("rfs", owner="other")
    with pytest.raises(PrerequisiteMissing, match="add --persist"):
        nodes.apply(Choice("rfs", ["eth1"], "none"), root=node.root)
    with pytest.raises(InvalidInput, match=r"^lease: "):
        node.keep("rfs", lease="2h")
    assert nodes.restore("other", node.root)["removed"] == []
    assert (node.values(), node.files(), node.commands()) == (values, files, ["agent restore"])
    assert nodes.restore(None, node.root)["removed"]


def test_restore_also_removes_what_is_half_there(node: Node) -> None:
    node.keep("rfs")
    (node.root / persist.PLAN[1:]).write_text("{")
    with pytest.raises(PrerequisiteMissing, match="cannot be read"):
        node.keep("rfs")
    (node.root / persist.PLAN[1:]).unlink()
    nodes.restore("nodes", node.root)
    assert node.files() == {}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = []
    for file in persist.files(nodes.planned(Choice("rfs")), "rfs"):
        if file.path.startswith(persist.UNITS):
            units.append(tmp_path / Path(file.path).name)
            units[-1].write_bytes(file.content)
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    named = [line for line in done.stderr.splitlines() if "steerlab" in line]
    assert (done.returncode, named) == (0, [])


FAILS = "ActiveState={}\nSubState={}\nResult={}\nReloadResult={}\nStatusText=apply: no CPU\n"


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        (("active", "exited", "success", "success"), ""),
        (("reloading", "reload", "success", "success"), ""),
        (("activating", "auto-restart", "exit-code", "success"), "apply: no CPU"),
        (("failed", "failed", "exit-code", "success"), "does not retry"),
        (("active", "exited", "success", "exit-code"), "apply: no CPU"),
        (("inactive", "dead", "success", "success"), "it is stopped"),
    ],
)
def test_a_unit_that_does_not_steer_is_shown_with_its_cause(
    node: Node, properties: tuple[str, ...], why: str
) -> None:
    assert nodes.show(root=node.root)["kept_by"] is None
    node.keep("rps")
    node.status.write_text(FAILS.format(*properties))
    answer = nodes.show(root=node.root)
    assert why in answer["kept_by"]["why"]
    assert bool(why) is bool(answer["kept_by"]["why"])
    assert (why or persist.SERVICE) in nodes.show_text(answer)


def test_systemd_hears_what_the_agent_did(node: Node, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        told = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        for rules, status, words in (
            ([rule("nic", "eth1")], 0, "STATUS=apply: done"),
            ([rule("nic", "eth7")], 3, "STATUS=apply: rules[0]: no nic device"),
        ):
            assert node.run("apply", plan=plan(*rules), env=told).returncode == status
            assert manager.recv(4096).decode().startswith(words)


# --- --print ---


def steerlab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments", "nodes", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_print_gives_configuration_management_all_of_it() -> None:
    done = steerlab("apply", "rfs-plus", "--print", "systemd", "--json")
    printed = json.loads(done.stdout)
    plan = nodes.planned(Choice("rfs-plus"))
    assert printed["files"] == {
        f.path: persist.printable(f) for f in persist.files(plan, "rfs-plus")
    }
    assert printed["then"][0] == ["systemctl", "daemon-reload"]
    words = steerlab("apply", "rfs-plus", "--print", "systemd").stdout
    assert f"# {persist.PLAN}\n{printed['files'][persist.PLAN]}" in words
    refused = steerlab("apply", "rfs-plus", "--print", "systemd", "--lease", "2h")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_print_gives_a_daemonset_with_this_agent_and_plan() -> None:
    done = steerlab("apply", "rps-plus", "--print", "daemonset", "--image", "registry/python:3.12")
    namespace, files, daemons = yaml.safe_load_all(done.stdout)
    assert base64.b64decode(files["binaryData"]["steer.pyz"]) == archive()
    assert json.loads(files["data"]["plan.json"]) == nodes.planned(Choice("rps-plus"))
    assert {o["metadata"].get("namespace", "steerlab-steering") for o in (files, daemons)} == {
        namespace["metadata"]["name"]
    }
    pod = daemons["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry/python:3.12"
    assert pod["hostNetwork"] is True  # where the machine's flow table is
    assert pod["hostPID"] is True  # where namespaces without a name are
    assert pod["containers"][0]["securityContext"]["privileged"] is True
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    # another plan is another template, so Kubernetes rolls the pods
    first, second = (
        list(yaml.safe_load_all(daemonset.manifest(nodes.planned(Choice(name)), name, "i:1")))[2]
        for name in ("rps", "rfs")
    )
    assert first["spec"]["template"] != second["spec"]["template"]


def test_the_daemonsets_loop_steers_new_devices_and_restores_when_it_is_ended(
    node: Node, tmp_path: Path
) -> None:
    plan = nodes.planned(Choice("rps", ["eth1"], "none"))
    _, files, daemons = yaml.safe_load_all(daemonset.manifest(plan, "rps", "i:1"))
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name, text in files["data"].items():
        (folder / name).write_text(text)
    for name, text in files["binaryData"].items():
        (folder / name).write_bytes(base64.b64decode(text))
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, line in {
        "python3": f'exec {shlex.join(on_tree(node.root, agent=folder / "steer.pyz"))} "${{@:3}}"',
        "sleep": "exec /bin/sleep 0.05",
    }.items():
        (shims / name).write_text(f"#!/bin/bash\n{line}\n")
        (shims / name).chmod(0o755)
    container = daemons["spec"]["template"]["spec"]["containers"][0]
    command = [word.replace("/etc/steerlab/", f"{folder}/") for word in container["command"]]
    before = node.values()
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            eventually(lambda: (node.queue("eth1", 1) / "rps_cpus").read_text() == "3\n")
            node.device("cali3", mask="1")
            before = {**node.values(), **before}
            eventually(lambda: (node.queue("cali3") / "rps_cpus").read_text() == "3\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
    assert node.values() == before
