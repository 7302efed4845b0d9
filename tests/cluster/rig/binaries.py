"""The Kubernetes binaries: built from Go modules once, then found in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rig.command import RigError, run

VERSION = "v1.31.1"
MODULE = Path(__file__).parent / "kubernetes"
NAMES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
OLDEST_GO = (1, 24)
_MAJOR, _MINOR, _ = VERSION.removeprefix("v").split(".")
# Releases are stamped like this; without it every component calls itself v0.0.0-master.
_STAMPS = [
    f"-X {package}.{variable}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for variable, value in {
        "gitVersion": VERSION,
        "gitMajor": _MAJOR,
        "gitMinor": _MINOR,
        "gitTreeState": "clean",
    }.items()
]


def go() -> Path | None:
    """The Go command, from PATH or from where Go's own installer puts it."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


def go_version(command: Path) -> str:
    """What `go env GOVERSION` says, such as go1.26.1; raises `RigError` where Go does not run."""
    # away from the module, or a toolchain line could make Go fetch another Go to answer
    return run("env", "-C", "/", command, "env", "GOVERSION").strip()


def new_enough(version: str) -> bool:
    """Whether this Go knows the `tool` lines of go.mod; a development version does."""
    number = re.match(r"go(\d+)\.(\d+)", version)
    return number is None or (int(number[1]), int(number[2])) >= OLDEST_GO


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "steerlab"


def folder(version: str) -> Path:
    """Where the binaries of these modules, built by this Go, are or will be."""
    digest = hashlib.sha256(version.encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    digest.update(" ".join(_STAMPS).encode())
    return cache() / f"kubernetes-{VERSION}-{digest.hexdigest()[:12]}"


def built() -> Path:
    """The folder of the binaries; they are built first where they are not there.

    About five minutes on two cores the first time. Raises `RigError` where Go is missing, too old
    or fails.
    """
    command = go()
    if command is None:
        raise RigError("there is no Go to build Kubernetes with: install Go 1.24 or newer")
    version = go_version(command)
    if not new_enough(version):
        raise RigError(f"{command} is {version}: Kubernetes is built with Go 1.24 or newer")
    target = folder(version)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "kubernetes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _build(command, target)
    return target


def _build(command: Path, target: Path) -> None:
    say(f"building Kubernetes {VERSION} from its Go modules, about 5 minutes on 2 cores")
    since = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as made:
        binaries = Path(made, "bin")
        done = subprocess.run(
            [
                *(command, "build", "-C", MODULE, "-mod=readonly", "-trimpath", "-buildvcs=false"),
                *("-ldflags", " ".join(["-s -w", *_STAMPS]), "-o", f"{binaries}/", "tool"),
            ],
            # static binaries: the images and nodes then need no library of this machine
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode != 0:
            raise RigError(f"go build of Kubernetes failed in {MODULE} (exit {done.returncode})")
        if absent := sorted(set(NAMES) - {path.name for path in binaries.iterdir()}):
            raise RigError(f"go build made no {', '.join(absent)}")
        binaries.rename(target)
    say(f"built in {time.monotonic() - since:.0f} s: {target}")


def say(words: str) -> None:
    print(f"cluster: {words}", file=sys.stderr, flush=True)  # noqa: T201
