"""The worst documents for a reader, each tried in a process of its own; a program."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import readers_agent  # noqa: F401 they join the others
from foreign_documents import places
from reader_desk import Desk
from readers import READERS, Reader

MB = 2**20


def laughs(levels: int) -> bytes:
    """A YAML document that is 10 to the power of its levels with its aliases written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, levels):
        aliases = ", ".join([f"*a{n - 1}"] * 10)
        lines.append(f"a{n}: &a{n} [{aliases}]")
    return "\n".join(lines).encode()


def merges(levels: int) -> bytes:
    """The same by merge keys."""
    lines = ["a0: &a0 {x0: 1}"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], x{n}: 1}}")
    return "\n".join(lines).encode()


# Texts, by what is wrong with them; those of 11 MB are below the bound of a JSON text.
TEXTS: dict[str, Callable[[], bytes]] = {
    "brackets": lambda: b"[" * (11 * MB),
    "objects in objects": lambda: b'{"a":' * (2 * MB),
    "many lists": lambda: b"[" + b"[]," * (3 * MB) + b"[]]",
    "many numbers": lambda: b"[" + b"1," * 290_000 + b"1]",
    "many objects": lambda: b"[" + b"{}," * 140_000 + b"{}]",
    "many keys": lambda: b"{%s}" % b",".join(b'"%x":1' % n for n in range(290_000)),
    "a million digits": lambda: b"9" * 1_000_000,
    "numbers of a million digits": lambda: b'{"a": [%s, 1.%s, 1e%s]}' % ((b"9" * 1_000_000,) * 3),
    "a long text": lambda: b'"' + b"a" * (11 * MB) + b'"',
    "a long text, one letter of it wide": lambda: ('"' + "a" * (10 * MB) + '\U0001f600"').encode(),
    "a longer one": lambda: ('"' + "a" * (19 * MB) + '\U0001f600"').encode(),
    "escapes": lambda: b'"' + rb"\ud83d" * MB + b'"',
    "lines": lambda: b"\n" * (11 * MB),
    "blanks": lambda: b" " * (11 * MB),
    "words": lambda: b"1 " * (2 * MB),
    "lines of words": lambda: b"cpu0 1 2\n" * 500_000,
    "zeros": lambda: bytes(11 * MB),
    "commas": lambda: b"," * (4 * MB),
    "dashes": lambda: b"0-8191," * 100_000,
    "laughs": lambda: laughs(9),
    "merges": lambda: merges(40),
    "flow YAML": lambda: b"[" + b"1," * 32_000 + b"1]",
    "block YAML": lambda: b"- - - - - - - - - - - - - - - -\n" * 1900,
    "deep YAML": lambda: b"- " * 30_000,
    "questions": lambda: b"? " * 30_000,
    "keys of YAML": lambda: b"".join(b"k%x:\n" % n for n in range(8000)),
    "anchors": lambda: b"".join(b"- &a%x {}\n" % n for n in range(4000)),
    "100 MB of brackets": lambda: b"[" * (100 * MB),
}
FEW = ("many keys", "lines", "laughs", "flow YAML")
BY_TURNS = FEW[:2]  # the largest of these: the usual run has one of them for each reader


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


# What may stand where a file is expected.
FILES: dict[str, Callable[[Path], None]] = {
    "1 GB of nothing": _large,
    "a FIFO": os.mkfifo,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a loop of links": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "a socket": _socket,
    "a file of no bytes": lambda path: path.write_bytes(b"") and None,
}


def within(reader: Reader) -> Iterator[tuple[str, bytes]]:
    """A reader's valid JSON document with something large in each of its first places."""
    try:
        valid = json.loads(reader.valid[0])
    except ValueError:
        return
    large = json.dumps([1] * 100_000), json.dumps({str(n): n for n in range(100_000)})
    for where, key in list(places({"": valid}))[1:13]:
        value, where[key] = where[key], "@"
        for text in large:
            yield f"{text[:1]} at {key}", json.dumps(valid).replace('"@"', text).encode()
        where[key] = value


def trials(reader: Reader, every: bool) -> Iterator[tuple[str, Callable[[Desk], object]]]:
    left_out = BY_TURNS[READERS.index(reader) % 2]
    for name, make in TEXTS.items():
        if (every or (name in FEW and name != left_out)) and not (
            "100 MB" in name and (not reader.file or reader.plain)
        ):
            yield name, lambda desk, make=make: desk.read(make())  # type: ignore[misc]
    for name, data in within(reader) if every else ():
        yield name, lambda desk, data=data: desk.read(data)  # type: ignore[misc]
    if reader.file is None or reader.plain:
        return
    for name, place in FILES.items():

        def at(desk: Desk, place: Callable[[Path], None] = place) -> object:
            desk.clear()
            place(desk.path)
            return desk.ask(desk.folder)

        yield name, at


def tried(reader: Reader, every: bool) -> dict[str, str]:
    """What is wrong with each answer of a reader, "" for nothing; in a process of its own."""
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            try:
                _bound()
                for name, words in _answers(reader, every):
                    said.write(json.dumps([name, words]) + "\n")
                    said.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        answers = dict(json.loads(line) for line in said)
    return answers | ({"the rest": f"ended with status {status}"} if status else {})


def _bound() -> None:
    """So that a reader without bounds takes no more than this from the machine."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (own + 1024 * MB, own + 1024 * MB))


def _answers(reader: Reader, every: bool) -> Iterator[tuple[str, str]]:
    desk = Desk(reader)
    try:
        for name, trial in trials(reader, every):
            try:
                trial(desk)
                words = ""
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(last.filename).name}:{last.lineno}"
                words = f"{type(error).__name__} at {place}: {str(error)[:200]}"
            yield name, words
    finally:
        desk.close()


def main(every: bool, names: list[str]) -> None:
    """Print what is wrong, by reader and document, as JSON."""
    for name in TEXTS if every else FEW:
        TEXTS[name] = partial(bytes, TEXTS[name]())  # made once, for all
    asked = [one for one in READERS if not names or any(name in one.name for name in names)]
    answers = {reader.name: tried(reader, every) for reader in asked}
    wrong = {
        name: {document: words for document, words in found.items() if words}
        for name, found in answers.items()
    }
    count = sum(map(len, answers.values()))
    told = {name: found for name, found in wrong.items() if found}
    sys.stdout.write(json.dumps({"count": count, "wrong": told}))


if __name__ == "__main__":
    main("--every" in sys.argv, [word for word in sys.argv[1:] if word != "--every"])
