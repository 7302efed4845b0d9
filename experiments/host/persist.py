"""Steering that outlives this boot: the systemd units, and copies of the agent and the plan."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from agent.archive import archive
from analysis.files import write as atomically
from infra import untrusted
from infra.commands import how_ended
from infra.errors import PrerequisiteMissing, Refusal

PYTHON = "/usr/bin/python3"
COPY = "/usr/local/lib/steerlab/steer.pyz"
# of the first version, which its units run
OLD_COPY = "/usr/local/lib/steerlab/steer.py"
PLAN = "/etc/steerlab/plan.json"
UNITS = "/etc/systemd/system"
SERVICE = "steerlab-steering.service"
AGAIN = "steerlab-steering-again.service"
TIMER = "steerlab-steering-again.timer"
LINK = f"{UNITS}/multi-user.target.wants/{SERVICE}"


@dataclass(frozen=True)
class File:
    """A file that keeps steering; the path is absolute below a root."""

    path: str
    content: bytes

    def below(self, root: Path) -> Path:
        return root / self.path.lstrip("/")


@dataclass(frozen=True)
class Kept:
    """The kept steering; the owner is None if the plan cannot be read."""

    owner: str | None


def files(plan: dict[str, Any], configuration: str) -> list[File]:
    """All files that keep a plan (pure except for the agent's sources); none is secret."""
    owner, agent = plan["owner"], f"{PYTHON} -I {COPY}"
    words = {
        "configuration": configuration,
        "owner": owner,
        "service": SERVICE,
        "timer": TIMER,
        "apply": f"{agent} apply --plan @{PLAN}",
        "restore": f"{agent} restore --owner {owner}",
    }
    return [
        File(COPY, archive()),
        File(PLAN, f"{json.dumps(plan, indent=1)}\n".encode()),
        # the service last: the files that it runs then exist
        *(File(f"{UNITS}/{unit}", template(unit, words)) for unit in (AGAIN, TIMER, SERVICE)),
    ]


def template(name: str, words: Mapping[str, str]) -> bytes:
    """A file of templates/, with `$name` replaced by words."""
    text = (Path(__file__).parent / "templates" / name).read_text()
    return Template(text).substitute(words).encode()


def printable(file: File) -> str:
    """The text of a file, the agent's archive in base64."""
    if file.path == COPY:
        return base64.b64encode(file.content).decode()
    return file.content.decode()


def in_words(written: list[File]) -> str:
    """The files for a configuration management, with the commands to install them."""
    parts = []
    for file in written:
        copied = "# (made by: python3 agent/archive.py steer.pyz; --json has it in base64)\n"
        parts.append(f"# {file.path}\n{copied if file.path == COPY else printable(file)}")
    steps = " && ".join(" ".join(step) for step in steps_to_start())
    return "\n".join([*parts, f"# then: {steps}"])


def steps_to_start() -> list[list[str]]:
    return [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", SERVICE],
        # a reload does not remove steering in between
        ["systemctl", "reload-or-restart", SERVICE],
    ]


# --- effects ---


def kept(root: Path = Path("/")) -> Kept | None:
    """The kept steering of this machine, also after an incomplete installation."""
    try:
        owner = untrusted.parsed(untrusted.content(root / PLAN.lstrip("/")))["owner"]
        return Kept(str(owner))
    except FileNotFoundError:
        units = (root / UNITS.lstrip("/") / name for name in (SERVICE, AGAIN, TIMER))
        return Kept(None) if any(unit.exists() for unit in units) else None
    except (OSError, ValueError, LookupError, TypeError):
        return Kept(None)


@dataclass(frozen=True)
class Health:
    """The health of the unit that keeps the steering; `why` is empty if it works."""

    unit: str
    state: str
    why: str


def health(root: Path = Path("/")) -> Health | None:
    """None if nothing is kept here."""
    if kept(root) is None:
        return None
    if not _runs(root):
        return Health(SERVICE, "unknown", "systemd does not run here")
    names = ("ActiveState", "SubState", "Result", "ReloadResult", "ExecMainStatus", "StatusText")
    try:
        said = _run(["systemctl", "show", SERVICE, *(f"--property={name}" for name in names)])
    except (OSError, Refusal) as error:
        return Health(SERVICE, "unknown", str(error))
    return judged(dict(line.split("=", 1) for line in said.splitlines() if "=" in line))


def judged(properties: Mapping[str, str]) -> Health:
    """The health of the service from its systemd properties (pure)."""
    state = f"{properties.get('ActiveState', '')} ({properties.get('SubState', '')})"
    results = {properties.get(name) or "success" for name in ("Result", "ReloadResult")}
    if properties.get("ActiveState") in ("active", "reloading") and results == {"success"}:
        words = properties.get("StatusText", "")
        return Health(SERVICE, f"{state}, {words}" if words else state, "")
    if properties.get("ActiveState") == "inactive" and results == {"success"}:
        return Health(SERVICE, state, f"it is stopped: systemctl start {SERVICE}")
    status = properties.get("ExecMainStatus", "")
    number = int(status) if status.isdecimal() else 0
    killed = results & {"signal", "core-dump"}  # then the status is the number of the signal
    agent = properties.get("StatusText") or how_ended(-number if killed else number)
    retried = "systemd retries every 15 seconds"
    if properties.get("ActiveState") == "failed":
        retried = f"systemd does not retry: systemctl restart {SERVICE}"
    elif properties.get("ActiveState") == "active":
        retried = "the previous steering stays; systemd retries every minute"
    return Health(SERVICE, state, f"{agent}; {retried}; journalctl -u {SERVICE} has more")


def require(root: Path = Path("/")) -> None:
    """Raise `PrerequisiteMissing` if systemd does not run here."""
    if not _runs(root):
        raise PrerequisiteMissing(
            "--persist: systemd does not run here (there is no /run/systemd/system): "
            "--print systemd prints the units for another machine, --print daemonset a "
            "Kubernetes manifest"
        )
    if not (root / PYTHON.lstrip("/")).exists():
        raise PrerequisiteMissing(
            f"--persist: there is no {PYTHON} for the unit to run: install python3"
        )


def install(plan: dict[str, Any], configuration: str, root: Path = Path("/")) -> str:
    """Write the files and start the service; returns its name."""
    already = kept(root) is not None
    wanted = [(file.below(root), file.content) for file in files(plan, configuration)]
    before = [(path, path.read_bytes()) for path, _ in wanted if path.exists()]
    try:
        _write_all(wanted)
        for step in steps_to_start():
            _run(step)
    except BaseException as error:
        if already:
            with _tolerant():
                _write_all(before)
                _run(["systemctl", "daemon-reload"])
        else:
            remove(root)
        if not isinstance(error, OSError | Refusal):
            raise
        state = (
            f"{SERVICE} still keeps the previous configuration"
            if already
            else "the steering stays until the next boot; to undo it: ./steerlab nodes restore"
        )
        raise Refusal(f"--persist: {error}; {state}") from None
    return SERVICE


def pause(root: Path = Path("/")) -> None:
    """Stop the units that would apply the plan again during a restore."""
    if _runs(root):
        with _tolerant():
            _run(["systemctl", "stop", TIMER, AGAIN])


def remove(root: Path = Path("/")) -> list[str]:
    """Stop, disable and delete the existing parts; returns the paths."""
    if _runs(root):
        for step in (["disable", SERVICE], ["stop", SERVICE]):
            with _tolerant():
                _run(["systemctl", *step])
    paths = [LINK, *(f"{UNITS}/{name}" for name in (SERVICE, TIMER, AGAIN)), PLAN, COPY, OLD_COPY]
    removed = []
    for path in paths:
        file = root / path.lstrip("/")
        if file.is_symlink() or file.exists():
            file.unlink()
            removed.append(path)
    for folder in (PLAN, COPY):
        with _tolerant():  # it may be something else
            (root / folder.lstrip("/")).parent.rmdir()
    if _runs(root):
        for step in (["daemon-reload"], ["reset-failed", SERVICE, AGAIN]):
            with _tolerant():
                _run(["systemctl", *step])
    return removed


def _runs(root: Path) -> bool:
    return (root / "run/systemd/system").is_dir()  # sd_booted(3)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    except subprocess.TimeoutExpired:
        raise Refusal(f"{' '.join(command)} did not end") from None
    if done.returncode != 0:
        words = done.stderr.strip() or how_ended(done.returncode)
        raise Refusal(f"{' '.join(command)}: {words}")
    return done.stdout


@contextmanager
def _tolerant() -> Iterator[None]:
    """Run a step; its failure must not prevent the other steps."""
    try:
        yield
    except (OSError, Refusal):
        return


def _write_all(contents: list[tuple[Path, bytes]]) -> None:
    for path, content in contents:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        atomically(path, content)
