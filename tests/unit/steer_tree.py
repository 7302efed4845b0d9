"""A node made of plain files, and the agent that works on it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from imitation import Imitation

HERE = Path(__file__).resolve().parent
AGENT = HERE.parents[1] / "agent"


MODULES = [importlib.import_module(f"agent.{file.stem}") for file in AGENT.glob("[a-z]*.py")]


class _Agent:
    """What the agent's modules have, by name; no name of it means two things."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_home_of(name), name)

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"{name} would be replaced nowhere: use replace()")


@cache
def _home_of(name: str) -> ModuleType:
    for module in MODULES:
        if hasattr(module, name):
            return module
    raise AttributeError(name)


steer: Any = _Agent()


def replace(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Replace what the agent calls `name`, wherever it is used."""
    for module in MODULES:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


def on_tree(root: Path, *words: str, agent: Path = AGENT) -> list[str]:
    """The command of an agent that works on a tree."""
    return [sys.executable, str(HERE / "on_tree.py"), str(agent), str(root), *words]


def rule(role: str, *devices: str, cpus: str = "none", flows: int = 0, **more: Any) -> dict:
    return {"role": role, "devices": list(devices), "cpus": cpus, "flows": flows, **more}


def plan(*rules: dict, owner: str = "rfs-plus-4/server", **more: Any) -> dict:
    return {"version": 1, "owner": owner, "rules": list(rules), **more}


def eventually(holds: Callable[[], Any], seconds: float = 15) -> Any:
    """What `holds` returns once it is true; fails when that takes too long."""
    end = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return answer


# The agent as a command that waits once it has written a certain file: for the end of a FIFO.
PAUSED = """
import sys
from pathlib import Path
from agent import cli, settings
from imitation import on
file, fifo, root = sys.argv[1:4]
put = settings.Setting.put
def pausing(setting, wanted, unusable, back=False):
    put(setting, wanted, unusable, back)
    if str(setting.path) == file and Path(fifo).exists():
        Path(fifo).read_bytes()
settings.Setting.put = pausing
sys.exit(cli.main(sys.argv[4:], on(Path(root))))
"""


class Tree:
    """Files in the shape of /sys, /proc and /run.

    They take any text, so unlike the kernel they round nothing: flows are powers of two here.
    """

    def __init__(self, root: Path, *, cpus: str = "0-1", sock_flow_entries: int | None = 0) -> None:
        self.root = root
        self._ifindex = 1
        self.cpus(online=cpus, possible=cpus)
        self.write("proc/sys/kernel/random/boot_id", "boot-one")
        self.table = root / "proc/sys/net/core/rps_sock_flow_entries"
        if sock_flow_entries is not None:
            self.write("proc/sys/net/core/rps_sock_flow_entries", sock_flow_entries)
        self.device("lo")

    def write(self, path: str, value: object) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        return file

    def cpus(self, **lists: str) -> None:
        for name, value in lists.items():
            self.write(f"sys/devices/system/cpu/{name}", value)

    def namespace(self, path: str, cookie: int) -> None:
        self.write(f"{path}/cookie", cookie)
        (self.root / path.lstrip("/") / "sys/class/net").mkdir(parents=True, exist_ok=True)

    def device(
        self,
        name: str,
        namespace: str = "",
        *,
        queues: int = 1,
        mask: str = "0",
        flows: int = 0,
        iflink: int | None = None,
        on: Iterable[str] = (),
        kind: str = "",
        hardware: bool = False,
        transmit: int = 0,
        gro: str = "",
        driver: str = "",
        arphrd: int = 1,
    ) -> int:
        """Add a device, `on` others of its namespace; returns its ifindex."""
        self._ifindex += 1
        base = f"{namespace}/sys/class/net/{name}"
        self.write(f"{base}/ifindex", self._ifindex)
        self.write(f"{base}/iflink", iflink or self._ifindex)
        self.write(f"{base}/type", arphrd)
        if driver:
            self.write(f"{base}/driver", driver)
        for queue in range(queues):
            self.write(f"{base}/queues/rx-{queue}/rps_cpus", mask)
            self.write(f"{base}/queues/rx-{queue}/rps_flow_cnt", flows)
        for queue in range(transmit):
            self.write(f"{base}/queues/tx-{queue}/xps_cpus", mask)
        if gro:
            self.write(f"{base}/gro", gro)
        self.write(f"{base}/uevent", f"DEVTYPE={kind}\nINTERFACE={name}" if kind else "")
        if hardware:
            self.write(f"{base}/device/vendor", "0x15b3")
        for lower in on:
            self.enslave(lower, name, namespace)
        return self._ifindex

    def pair(self, name: str, namespace: str, inside: str = "eth0", driver: str = "veth") -> None:
        """A pod's device, and its other end on the node."""
        end = self.device(inside, namespace, driver=driver)
        host = self.device(name, iflink=end, driver=driver)
        self.write(f"{namespace}/sys/class/net/{inside}/iflink", host)

    def enslave(self, lower: str, upper: str, namespace: str = "") -> None:
        base = self.root / namespace.lstrip("/") / "sys/class/net"
        (base / upper / f"lower_{lower}").symlink_to(f"../{lower}")
        (base / lower / f"upper_{upper}").symlink_to(f"../{upper}")

    def queue(self, device: str, queue: int = 0, namespace: str = "") -> Path:
        base = self.root / namespace.lstrip("/") / "sys/class/net"
        return base / device / "queues" / f"rx-{queue}"

    def values(self) -> dict[str, str]:
        """Every value of steering in the tree."""
        files = self._knobs()
        return {str(f.relative_to(self.root)): f.read_text().strip() for f in files}

    def stamps(self) -> dict[str, int]:
        """When each value was last written."""
        return {str(f): f.stat().st_mtime_ns for f in self._knobs()}

    def _knobs(self) -> list[Path]:
        return [f for f in self.root.rglob("*") if f.name in steer.KNOBS and f.is_file()]

    def snapshot(self, owner: str = "rfs-plus-4/server") -> Path:
        return self.root / "run/steerlab" / (owner.replace("/", "%2F") + ".snapshot")

    def saved(self, owner: str = "rfs-plus-4/server") -> dict:
        """What a snapshot holds, without the checksum, which it may lack."""
        document: dict = json.loads(self.snapshot(owner).read_text())
        document.pop("checksum", None)
        return document

    # the agent, in this process

    def machine(self) -> Imitation:
        return Imitation(root=self.root)

    def apply(self, document: dict) -> dict:
        with self.machine() as machine:
            return steer.apply(machine, steer.parse_plan(document))

    def verify(self, owner: str = "rfs-plus-4/server", document: dict | None = None) -> dict:
        with self.machine() as machine:
            parsed = steer.parse_plan(document) if document else None
            return steer.verify(machine, owner, parsed, renew=False)

    def restore(self, owner: str = "rfs-plus-4/server") -> dict:
        with self.machine() as machine:
            return steer.restore(machine, owner)

    # the agent, as a command

    def command(self, *words: str) -> list[str]:
        return on_tree(self.root, *words)

    def start(self, verb: str, *options: str, plan: dict | None = None, **more: Any) -> Any:
        process = subprocess.Popen(
            self.command(verb, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        if plan is not None:
            process.stdin.write(json.dumps(plan))
        process.stdin.close()
        process.stdin = None
        return process

    def half_way(self, file: Path, plan: dict) -> tuple[Any, int]:
        """An apply that has written `file` and waits; it goes on when the descriptor is closed."""
        fifo = self.root / "fifo"
        os.mkfifo(fifo)
        options = ["apply", "--plan", json.dumps(plan)]
        process = subprocess.Popen(
            [sys.executable, "-c", PAUSED, str(file), str(fifo), str(self.root), *options],
            env={**os.environ, "PYTHONPATH": f"{AGENT.parent}:{HERE}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = os.open(fifo, os.O_WRONLY)  # waits for the agent
        fifo.unlink()
        return process, end

    def run(self, verb: str, *options: str, plan: dict | None = None, **more: Any) -> Any:
        """The finished process, with `answer`, the JSON that it printed."""
        process = self.start(verb, *options, plan=plan, **more)
        out, err = process.communicate(timeout=30)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        done.answer = json.loads(out) if out else None  # type: ignore[attr-defined]
        return done
