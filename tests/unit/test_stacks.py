"""Stacks: `-c` words, the stack's file, and that nothing is written before all is valid."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from experiments.engines import stacks
from infra.errors import InvalidInput

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stacks, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def file(root: Path) -> Write:
    """Writes the file of stack rps-4."""

    def write(text: str) -> Path:
        path = root / "Pulumi.rps-4.yaml"
        path.write_text(text)
        return path

    return write


def test_changes_are_key_and_value_and_the_last_counts() -> None:
    words = ["replicas=4", "steerlab:replicas=8", "lease=", 'cpus={"a": "b=c"}', "aws:region=x"]
    assert stacks.changes(words) == {
        "replicas": "8",
        "lease": "",
        "cpus": '{"a": "b=c"}',
        "aws:region": "x",
    }


@pytest.mark.parametrize("word", ["replicas", "=4", ""])
def test_a_change_without_key_or_equals_sign_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="write key=value"):
        stacks.changes([word])


def test_a_stack_without_a_file_is_its_name() -> None:
    ref, state = stacks.load("rfs-plus-16")
    assert (state.configuration, state.replicas) == ("rfs-plus", 16)
    assert ref.config == {}


def test_values_of_the_file_and_changes_over_them(file: Write, root: Path) -> None:
    file(
        "config:\n  steerlab:duration: 7\n  omit: '2'\n  aws:region: eu\n"
        "  steerlab:cpus: {server: [0], client: [0]}\n"
    )
    ref, state = stacks.load("rps-4", {"duration": "9"})
    assert (state.duration, state.omit, state.cores.server) == (9, 2, (0,))
    assert (ref.root, ref.home, ref.name) == (root, root, "rps-4")
    # as text and with full keys, the way an engine hands them to the program
    assert ref.config == {
        "steerlab:duration": "9",
        "steerlab:omit": "2",
        "aws:region": "eu",
        "steerlab:lab": '{"cpus": {"client": [0], "server": [0]}}',
    }


@pytest.mark.parametrize("text", ["", "config:\n", "config: {}\n", "encryptionsalt: v1\n"])
def test_a_file_may_say_nothing(file: Write, text: str) -> None:
    file(text)
    assert stacks.load("rps-4")[1].replicas == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config: [", r"Pulumi\.rps-4\.yaml is not readable YAML"),
        ("config: \x00", r"not readable YAML"),
        ("- steerlab:replicas", "must be a mapping"),
        ("config: 4", "must be a mapping"),
        ("config:\n  steerlab:lease: {secure: v1:abc}", "lease: .* has a secret"),
        ("config:\n  steerlab:replica: 4", "replica: unknown key; did you mean replicas"),
        ("config:\n  7: 4", "7: unknown key"),
        ("config:\n  steerlab:replicas: 2024-01-01", "replicas: .*2024"),
        ("config:\n  steerlab:runs: [1]", "runs: .*1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file: Write, text: str, words: str) -> None:
    file(text)
    with pytest.raises(InvalidInput, match=words):
        stacks.load("rps-4")


def test_bytes_that_are_no_text_and_a_folder_are_named_too(file: Write) -> None:
    path = file("")
    path.write_bytes(b"config:\n  steerlab:lease: \xff\n")
    with pytest.raises(InvalidInput, match=r"rps-4\.yaml is not readable"):
        stacks.load("rps-4")
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidInput, match=r"rps-4\.yaml is not readable"):
        stacks.load("rps-4")


@pytest.mark.parametrize("name", ["", "../rps-4", "a/b", "-rps", "rps 4", "r" * 300])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for use in (stacks.load, stacks.named):
        with pytest.raises(InvalidInput, match=r"stack: .* must be letters"):
            use(name)


def test_saved_beside_what_the_file_holds(file: Write) -> None:
    path = file("encryptionsalt: v1\nconfig:\n  steerlab:duration: 7\n  aws:region: eu\n")
    stacks.save("rps-4", {"replicas": "8", "cpus": '{"server": [0], "client": [1]}'})
    assert yaml.safe_load(path.read_text()) == {
        "encryptionsalt": "v1",
        "config": {
            "steerlab:duration": 7,
            "aws:region": "eu",
            "steerlab:replicas": "8",
            "steerlab:lab": {"cpus": {"server": [0], "client": [1]}},
        },
    }
    assert stacks.load("rps-4")[1].replicas == 8


@pytest.mark.parametrize("text", [None, "", "config:\n"])
def test_saved_where_there_was_nothing(file: Write, root: Path, text: str | None) -> None:
    if text is not None:
        file(text)
    stacks.save("rps-4", {"runs": "3"})
    assert yaml.safe_load((root / "Pulumi.rps-4.yaml").read_text()) == {
        "config": {"steerlab:runs": "3"}
    }


FILE = """\
# The stack of this page.
config:
  # measured seconds
  steerlab:duration: 7  # short
  omit: "2"

  steerlab:cpus: {server: [0], client: [0], irq: 0}  # two cores
encryptionsalt: v1:a=:b
"""


def test_a_change_keeps_comments_and_order(file: Write) -> None:
    path = file(FILE)
    stacks.save("rps-4", {"duration": "9", "omit": "3"})
    before, after = (text.splitlines() for text in (FILE, path.read_text()))
    changed = [line for line in after if line not in before]
    assert [yaml.safe_load(line) for line in changed] == [{"steerlab:duration": "9"}, {"omit": "3"}]
    assert changed[0].endswith("# short")
    assert [before.index(line) for line in after if line in before] == [0, 1, 2, 5, 6, 7]


@pytest.mark.parametrize(
    "same", [{"duration": "7"}, {"omit": "2"}, {"cpus": '{"irq":0,"server":[0],"client":[0]}'}]
)
def test_a_file_that_has_the_value_is_not_written(file: Write, same: dict[str, str]) -> None:
    path = file(FILE)
    before = path.stat()
    stacks.save("rps-4", same)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_one_and_true_are_two_values(file: Write) -> None:
    path = file("config:\n  aws:x: 1\n")
    stacks.save("rps-4", {"aws:x": "true"})
    assert yaml.safe_load(path.read_text()) == {"config": {"aws:x": "true"}}


def test_a_file_of_another_editor_is_read_and_kept_as_it_is(file: Write) -> None:
    path = file("")
    path.write_bytes(b"\xef\xbb\xbfconfig:\r\n  steerlab:duration: 7 # s\r\n")
    assert stacks.load("rps-4")[1].duration == 7
    stacks.save("rps-4", {"duration": "9"})
    assert path.read_bytes() == b"config:\r\n  steerlab:duration: '9' # s\r\n"


def test_a_key_with_and_without_its_prefix_is_refused(file: Write) -> None:
    file("config:\n  omit: 2\n  steerlab:omit: 3\n")
    with pytest.raises(InvalidInput, match="omit"):
        stacks.load("rps-4")


def test_no_changes_touch_nothing(root: Path) -> None:
    stacks.save("rps-4", {})
    assert list(root.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(file: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("config:\n  steerlab:runs: 3\n")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        stacks.save("rps-4", {"runs": "5"})
    assert list(path.parent.iterdir()) == [path]
    assert yaml.safe_load(path.read_text()) == {"config": {"steerlab:runs": 3}}


def test_a_stack_of_its_own_reads_no_file(file: Write, tmp_path: Path) -> None:
    file("config:\n  steerlab:duration: 7\n")
    ref, state = stacks.own(tmp_path / "results", "rps-4", {"omit": "3"})
    assert (ref.home, ref.config) == (tmp_path / "results", {"steerlab:omit": "3"})
    assert (state.duration, state.omit) == (10, 3)


NESTED = """\
config:
  steerlab:kubernetes:
    # of the office
    context: office  # soon another
    images: '{"iperf3": "a:1", "steering": "b:1"}'
  context: office
  via: pod
"""


@pytest.mark.parametrize("key", ["context", "kubernetes.context"])
def test_a_change_within_a_mapping_keeps_its_comments_and_moves_the_old_key(
    file: Write, key: str
) -> None:
    path = file(NESTED)
    stacks.save("rps-4", {key: "home"})
    text = path.read_text()
    assert "# of the office" in text and "# soon another" in text
    config = yaml.safe_load(text)["config"]
    assert config["steerlab:kubernetes"]["context"] == "home"
    assert "context" not in config
    assert config["via"] == "pod"
    of = stacks.load("rps-4")[1].kubernetes
    assert (of.context, of.via, of.images and of.images.iperf3) == ("home", "pod", "a:1")


def test_a_change_within_json_keeps_the_rest_of_it(file: Write) -> None:
    path = file(NESTED)
    stacks.save("rps-4", {"kubernetes.images.iperf3": "c:1"})
    images = yaml.safe_load(path.read_text())["config"]["steerlab:kubernetes"]["images"]
    assert images == {"iperf3": "c:1", "steering": "b:1"}


def test_a_part_of_an_old_mapping_moves_with_it(file: Write) -> None:
    path = file(FILE)
    stacks.save("rps-4", {"lab.cpus.irq": "1", "lab.cpus.server": "[0, 1]"})
    config = yaml.safe_load(path.read_text())["config"]
    assert config["steerlab:lab"] == {"cpus": {"server": [0, 1], "client": [0], "irq": "1"}}
    cores = stacks.load("rps-4", {"lab.cpus.client": "[1]"})[1].cores
    assert (cores.server, cores.client, cores.irq) == ((0, 1), (1,), 1)
    assert "steerlab:cpus" not in config


def test_a_whole_mapping_replaces_it_and_its_old_keys(file: Write) -> None:
    path = file(NESTED)
    new = {"kubernetes": '{"context": "home"}'}
    assert stacks.load("rps-4", new)[1].kubernetes.via == "service"
    stacks.save("rps-4", new)
    config = yaml.safe_load(path.read_text())["config"]
    assert config == {"steerlab:kubernetes": {"context": "home"}}


def test_two_values_in_one_file_are_refused(file: Write) -> None:
    file(NESTED.replace("\n  context: office", "\n  context: home"))
    with pytest.raises(InvalidInput, match="context: is given twice"):
        stacks.load("rps-4")


def test_a_change_wins_over_the_file_whatever_it_is_called(file: Write) -> None:
    file(NESTED)
    for key in ("context", "kubernetes.context"):
        assert stacks.load("rps-4", {key: "home"})[1].kubernetes.context == "home"
    with pytest.raises(InvalidInput, match="is given twice"):
        stacks.load("rps-4", {"context": "a", "kubernetes.context": "b"})


@pytest.mark.parametrize("whole_last", [True, False])
def test_the_order_of_changes_does_not_matter(file: Write, whole_last: bool) -> None:
    path = file(NESTED)
    words = [("kubernetes.context", "prod"), ("kubernetes", '{"via": "pod"}')]
    new = dict(words if whole_last else reversed(words))
    settings = stacks.load("rps-4", new)[1].kubernetes
    assert (settings.context, settings.via) == ("prod", "pod")
    stacks.save("rps-4", new)
    config = yaml.safe_load(path.read_text())["config"]
    assert config == {"steerlab:kubernetes": {"context": "prod", "via": "pod"}}


def test_old_keys_are_told_with_their_successors(file: Write) -> None:
    file(NESTED)
    told = stacks.renamed("rps-4", {"lab.path": "host", "cpus": "{}"})
    assert told.split(", ") == [
        "context is now kubernetes.context", "via is now kubernetes.via", "cpus is now lab.cpus",
    ]  # fmt: skip
