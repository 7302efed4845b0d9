"""docker/build: its words, what it refuses, and the commands that each builder gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import shown

from infra import config

BUILD = Path(__file__).resolve().parents[2] / "docker/build"
TOOLS = (
    "bash", "cat", "dirname", "env", "grep", "mkdir", "mktemp", "readlink", "rm", "sha256sum", "tail", "uname",
)  # fmt: skip
# Two names of this machine's platform, as different ones would be.
BOTH = {"x86_64": "linux/amd64,linux/x86_64", "aarch64": "linux/arm64,linux/aarch64"}
SAID = next(line for line in shown.commands() if line.startswith("IMAGES=$(docker/build"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with what the script needs besides builders."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = next(
            Path(one, tool) for one in os.environ["PATH"].split(":") if Path(one, tool).exists()
        )
        (folder / tool).symlink_to(found)
    return folder


def tool(folder: Path, name: str, exits: int = 0, talks: bool = False) -> Path:
    """A builder that writes down what it was asked."""
    said = folder / f"{name}.said"
    talk = "echo some progress" * talks
    (folder / name).write_text(f'#!/bin/bash\n{talk}\necho "$*" >> {said}\nexit {exits}\n')
    (folder / name).chmod(0o755)
    return said


def build(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUILD, *words], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--nonsense"], 2, "unknown: --nonsense"),
        (["--tag"], 2, "--tag needs a value"),
        (["--tag", "latest"], 2, "latest"),
        (["--tag", "-x"], 2, "-x"),
        (["--repository", "a b"], 2, "a b"),
        (["--load", "moon"], 2, "neither kind"),
        (["--push"], 2, "--push needs --repository"),
        (["--mirror", "mirror"], 2, "no URL"),
        (["--platform", "arm64"], 2, "linux/amd64,linux/arm64"),
        (["--platform", "linux/amd64,linux/arm64"], 2, "needs --push alone"),
        (["--builder", "kaniko"], 2, "none of docker, podman, buildah"),
        ([], 3, "install docker, podman or buildah"),
        (["--builder", "podman"], 3, "podman does not work here"),
        (["--load", "kind"], 3, "needs the command kind"),
        (["--load", "containerd"], 3, "ctr"),
    ],
)
def test_what_it_refuses(path: Path, words: list[str], code: int, said: str) -> None:
    done = build(path, *words)
    assert done.returncode == code
    assert said in done.stderr


def test_help_asks_for_no_builder(path: Path) -> None:
    done = build(path, "--help")
    assert done.returncode == 0
    assert "--load kind" in done.stdout


def test_a_docker_without_its_daemon_is_passed_over(path: Path) -> None:
    tool(path, "docker", exits=1)
    said = tool(path, "podman")
    done = build(path, "--repository", "registry.example/net", "--tag", "7", "--push")
    assert done.returncode == 0, done.stderr
    folder = BUILD.parent
    name = "registry.example/net"
    assert said.read_text().splitlines() == [
        f"build -t {name}/iperf3:7 -f {folder}/iperf3/Dockerfile {folder}/iperf3",
        f"push {name}/iperf3:7",
        f"build -t {name}/rr:7 -f {folder}/rr/Dockerfile {folder}/rr",
        f"push {name}/rr:7",
        f"build -t {name}/steering:7 -f {folder}/steering/Dockerfile {folder}/../agent",
        f"push {name}/steering:7",
    ]
    assert json.loads(done.stdout) == {
        "iperf3": f"{name}/iperf3:7", "rr": f"{name}/rr:7", "steering": f"{name}/steering:7",
    }  # fmt: skip


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_a_platform_that_cannot_run_here_is_refused_before_anything(
    path: Path, builder: str
) -> None:
    said = tool(path, builder)
    done = build(path, "--builder", builder, "--platform", "linux/nonesuch")
    assert done.returncode == 3
    assert "cannot run programs for linux/nonesuch" in done.stderr
    asked = said.read_text() if said.exists() else ""
    assert "Dockerfile" not in asked


@pytest.mark.parametrize(
    ("builder", "asked"),
    [
        ("docker", ["buildx build --push -t {image} --platform {both} -f {where}"]),
        (
            "buildah",
            [
                "manifest rm {image}",
                "build --manifest {image} --platform {both} -f {where}",
                "manifest push --all {image} docker://{image}",
            ],
        ),
    ],
)
def test_several_platforms_are_one_image(path: Path, builder: str, asked: list[str]) -> None:
    said = tool(path, builder)
    both = BOTH[os.uname().machine]
    words = ("--repository", "registry.example/net", "--tag", "7", "--push", "--platform", both)
    done = build(path, "--builder", builder, *words)
    assert done.returncode == 0, done.stderr
    image, folder = "registry.example/net/iperf3:7", BUILD.parent / "iperf3"
    lines = [line for line in said.read_text().splitlines() if image in line]
    where = f"{folder}/Dockerfile {folder}"
    assert lines == [line.format(image=image, both=both, where=where) for line in asked]
    assert json.loads(done.stdout)["iperf3"] == image


def test_base_and_mirror_are_those_that_are_named(path: Path) -> None:
    said = tool(path, "podman")
    words = ("--base", "mirror.example/debian:12", "--mirror", "http://mirror.example")
    assert build(path, "--builder", "podman", *words).returncode == 0
    for line in said.read_text().splitlines():
        assert "--build-arg BASE=mirror.example/debian:12" in line
        assert "--build-arg MIRROR=http://mirror.example " in line


def test_the_readme_s_line_gives_the_key_images(path: Path) -> None:
    """As it is shown, with a builder that talks on stdout too."""
    tool(path, "docker", talks=True)
    done = subprocess.run(
        ["bash", "-c", f'{SAID}\nprintf %s "$IMAGES"'], cwd=shown.ROOT, env={"PATH": str(path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    state = config.state("rfs-plus-4", {"target": "kubernetes", "images": done.stdout})
    assert state.images.steering.startswith("registry.example/net/steering:")


def test_a_tag_is_a_hash_of_what_the_image_is_made_of(path: Path, tmp_path: Path) -> None:
    tool(path, "docker")
    copied = tmp_path / "docker"
    agent = tmp_path / "agent"
    for folder in (copied, agent):
        source = BUILD.parents[1] / folder.name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def tags(*words: str) -> dict[str, str]:
        done = subprocess.run(
            [copied / "build", *words], env={"PATH": str(path)}, capture_output=True, check=True
        )
        images: dict[str, str] = json.loads(done.stdout)
        return images

    first = tags()
    (agent / "__pycache__").mkdir()
    assert tags() == first
    other = [
        ("--base", "mirror/debian:12"), ("--mirror", "http://mirror"),
        ("--platform", BOTH[os.uname().machine].partition(",")[0]),
    ]  # fmt: skip
    for words in other:
        assert all(tags(*words)[name] != first[name] for name in first)
    with (agent / "cli.py").open("a") as file:
        file.write("# more\n")
    after = tags()
    assert after["iperf3"] == first["iperf3"]
    assert after["steering"] != first["steering"]


@pytest.mark.parametrize(
    ("builder", "asked"),
    [
        ("docker", "save -o {out}/iperf3.tar docker.io/steerlab/iperf3:1"),
        (
            "podman",
            "save -q --format docker-archive -o {out}/iperf3.tar docker.io/steerlab/iperf3:1",
        ),
        (
            "buildah",
            "push -q docker.io/steerlab/iperf3:1 "
            "docker-archive:{out}/iperf3.tar:docker.io/steerlab/iperf3:1",
        ),
    ],
)
def test_each_builder_saves_an_archive(
    path: Path, tmp_path: Path, builder: str, asked: str
) -> None:
    said = tool(path, builder)
    out = tmp_path / "a folder"
    words = ("--builder", builder, "--tag", "1", "--save", str(out))
    assert build(path, *words).returncode == 0
    assert asked.format(out=out) in said.read_text().splitlines()


def test_kind_gets_the_archives_of_its_cluster(path: Path) -> None:
    tool(path, "podman")
    said = tool(path, "kind")
    assert build(path, "--load", "kind:mine").returncode == 0
    lines = said.read_text().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("load image-archive /") for line in lines)
    assert all(line.endswith("--name mine") for line in lines)


def test_a_build_that_fails_ends_it(path: Path) -> None:
    tool(path, "buildah", exits=5)
    done = build(path)
    assert done.returncode == 5
    assert not done.stdout
