"""The images of the measured pods and of the agent, made here of Debian packages."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from rig import binaries, runtime

AGENT = Path(__file__).resolve().parents[2] / "docker/steering/steer.py"
PACKAGES = ("ethtool", "iperf3", "iproute2", "python3")
RECIPE = (
    "mmdebstrap",
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    "--quiet",
    "bookworm",
)


def archives() -> list[Path]:
    """An archive for each image, in the user's cache; the recipe's words and the agent name it."""
    digest = hashlib.sha256(repr(RECIPE).encode() + AGENT.read_bytes()).hexdigest()[:12]
    folder = binaries.cache() / f"images-{digest}"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=".images-", dir=_cache()))
        with_agent = made / "root.tar"
        shutil.copyfile(_base(), with_agent)
        with tarfile.open(with_agent, "a") as tar:
            tar.add(AGENT, "steer.py")
        layer = with_agent.read_bytes()
        for name in ("iperf3", "steering"):
            tag = f"docker.io/steerlab/{name}:1"
            (made / f"{name}.tar").write_bytes(runtime.archive_of(layer, tag, []))
        with_agent.unlink()
        made.rename(folder)
    return sorted(folder.glob("*.tar"))


def _cache() -> Path:
    cache = binaries.cache()
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _base() -> Path:
    """A root file system of Debian packages, some 15 s the first time."""
    path = _cache() / f"base-{hashlib.sha256(repr(RECIPE).encode()).hexdigest()[:12]}.tar"
    if not path.exists():
        draft = path.with_suffix(".new.tar")
        subprocess.run([*RECIPE, str(draft)], check=True, stderr=subprocess.DEVNULL)
        _without_devices(draft)
        draft.rename(path)
    return path


def _without_devices(archive: Path) -> None:
    """The same without device nodes, which a container runtime makes by itself."""
    kept = BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=kept, mode="w") as new:
        for entry in old:
            if not entry.isdev():
                new.addfile(entry, old.extractfile(entry) if entry.isreg() else None)
    archive.write_bytes(kept.getvalue())
