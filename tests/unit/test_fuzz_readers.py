"""Every reader gives a value or an error of its own kind: for any bytes, soon, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import readers_agent  # noqa: F401 they join the others
from foreign_documents import RAW
from found_faults import FOUND
from hypothesis import HealthCheck, given, settings
from reader_desk import Desk
from readers import READERS
from reading_sites import REASONS, ROOT, sites, traced

MANY = 10_000


@pytest.fixture
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(request.param)
    yield desk
    desk.close()


of_every_reader = pytest.mark.parametrize("desk", READERS, ids=str, indirect=True)


def fuzz(desk: Desk, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < MANY,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=desk.reader.documents | RAW)
    def every(data: bytes) -> None:
        desk.read(data)

    every()


@of_every_reader
def test_a_valid_document_is_read(desk: Desk) -> None:
    for data in desk.reader.valid:
        answer = desk.read(data)
        assert not isinstance(answer, Exception), answer


@of_every_reader
def test_what_was_found_stays_right(desk: Desk) -> None:
    for data in FOUND.get(desk.reader.name, ()):
        desk.read(data)


def test_what_was_found_is_of_readers_that_exist() -> None:
    assert FOUND.keys() <= {reader.name for reader in READERS}


@of_every_reader
def test_any_document_has_an_answer(desk: Desk) -> None:
    fuzz(desk, desk.reader.few)


@pytest.mark.long
@of_every_reader
def test_many_documents_have_answers(desk: Desk) -> None:
    fuzz(desk, MANY)


@pytest.mark.parametrize("words", [(), pytest.param(("--every",), marks=pytest.mark.long)])
def test_the_worst_documents_have_answers(words: tuple[str, ...]) -> None:
    program = Path(__file__).with_name("worst_documents.py")
    done = subprocess.run(
        [sys.executable, str(program), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    answers = json.loads(done.stdout)
    assert answers["count"] > 5 * len(READERS)
    assert answers["wrong"] == {}


# --- every place where foreign text is read is one of these readers, or has a reason ---


def test_every_place_that_reads_is_fuzzed_or_has_a_reason() -> None:
    run: set[tuple[str, str]] = set()
    for reader in READERS:
        desk = Desk(reader)
        with traced(run):
            for data in reader.valid:
                desk.read(data)
        desk.close()
    places = set(sites())
    excused = {(file, name) for file, name in places if file in REASONS or (file, name) in REASONS}
    assert not sorted(places - run - excused), "add a reader to readers.py, or a reason here"
    known = {file for file, _ in places} | places
    assert not sorted(map(str, REASONS.keys() - known)), "reasons for places that are gone"
