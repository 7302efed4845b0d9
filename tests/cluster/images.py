"""The project's images, built by its own script on a Debian base made here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rig import binaries
from rig.command import RigError

DOCKER = Path(__file__).resolve().parents[2] / "docker"
SOURCES = (
    DOCKER / "build",
    *sorted(DOCKER.glob("*/Dockerfile")),
    *sorted(DOCKER.parent.glob("agent/*.py")),
)
# The key of a stack whose pods have the images that every node is given.
IMAGES = {name: f"steerlab/{name}:1" for name in ("iperf3", "rr", "steering")}
KEY = f"kubernetes.images={json.dumps(IMAGES)}"
BASE = "localhost/steerlab/debian:12"
RECIPE = ("mmdebstrap", "--variant=minbase", "--quiet", "bookworm")


def archives() -> list[Path]:
    """An archive for each image, in the user's cache under a hash of what they are made of."""
    made_of = b"".join(source.read_bytes() for source in SOURCES)
    folder = _cache() / f"images-{hashlib.sha256(repr(RECIPE).encode() + made_of).hexdigest()[:12]}"
    if not folder.is_dir():
        draft = Path(tempfile.mkdtemp(prefix=".images-", dir=_cache()))
        try:
            _build(draft)
            draft.rename(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return sorted(folder.glob("*.tar"))


def _build(out: Path) -> None:
    """Some 20 s."""
    with builder() as environment:
        words = ("--builder", "buildah", "--base", BASE, "--tag", "1", "--save", str(out))
        _run(environment, str(DOCKER / "build"), *words)


@contextmanager
def builder(*insecure: str) -> Iterator[dict[str, str]]:
    """An environment in which buildah has the base; its layers are gone afterwards.

    `insecure` are registries that speak plain HTTP.
    """
    with tempfile.TemporaryDirectory(prefix=".buildah-", dir=_cache()) as room:
        storage, registries = Path(room, "storage.conf"), Path(room, "registries.conf")
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{room}/graph"\nrunroot = "{room}/run"\n'
        )
        registries.write_text(
            "".join(f'[[registry]]\nlocation = "{one}"\ninsecure = true\n' for one in insecure)
        )
        environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "BUILDAH_ISOLATION": "chroot",
            "BASE": BASE,
        }
        container = _run(environment, "buildah", "from", "scratch").strip()
        _run(environment, "buildah", "add", "--quiet", container, str(_base()), "/")
        _run(environment, "buildah", "commit", "--quiet", container, BASE)
        _run(environment, "buildah", "rm", container)
        yield environment


def _run(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"{command[0]} {command[1]}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _cache() -> Path:
    cache = binaries.cache()
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _base() -> Path:
    """A root file system of Debian packages, some 15 s the first time."""
    path = _cache() / f"base-{hashlib.sha256(repr(RECIPE).encode()).hexdigest()[:12]}.tar"
    if not path.exists():
        draft = path.with_suffix(".new.tar")
        draft.unlink(missing_ok=True)
        _run(os.environ, *RECIPE, str(draft))
        draft.rename(path)
    return path
