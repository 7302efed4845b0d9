"""Both engines treat the same programs alike: the embedded one against what the CLI did.

What the CLI did is recorded (`agreement_record.py` says how); with the CLI on PATH the recording
itself is put to the test. Where the engines differ on purpose, that is said and asserted below.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from typing import Any

import agreement_programs
import pytest
from agreement_programs import (
    ALIKE,
    BLAMED,
    CONTINUED,
    CUT_OFF,
    DIFFERENT,
    IDS,
    INDEPENDENTS,
    NO_TEXT,
    OUTPUTS,
    PROGRAMS,
    REMOVED,
    RESUMED,
    Program,
)
from agreement_record import (
    RECORDING,
    Result,
    by_embedded,
    cli_runs,
    digest,
    dumped,
    expanded,
    order,
    recorded,
    run,
    versions,
)

Differences = dict[tuple[int, str], tuple[Any, Any]]


def of_cli(program: Program) -> list[Result]:
    return expanded(recorded()["programs"][program.name]["steps"])


def of_embedded(program: Program) -> list[Result]:
    return expanded(run(program, by_embedded))


def differences(embedded: list[Result], cli: list[Result]) -> Differences:
    """By step and field what only the embedded engine and what only the CLI has."""
    assert len(embedded) == len(cli)
    return {
        (number, name): _sides(one.get(name), other.get(name))
        for number, (one, other) in enumerate(zip(embedded, cli, strict=True))
        for name in one.keys() | other.keys()
        # As text: in Python, True is 1.
        if _text(one.get(name)) != _text(other.get(name))
    }


def _sides(one: Any, other: Any) -> tuple[Any, Any]:
    """Two values, or for lists what each has beyond the other, as often as it has it."""
    if not isinstance(one or other, list):
        return one, other
    counts = [Counter(map(_text, side or ())) for side in (one, other)]
    beyond = (counts[0] - counts[1], counts[1] - counts[0])
    return tuple([json.loads(text) for text in side.elements()] for side in beyond)  # type: ignore[return-value]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def named(program: Program) -> str:
    return program.name.replace(" ", "-")


# --- Alike ---


@pytest.mark.parametrize("program", ALIKE, ids=named)
def test_the_embedded_engine_does_as_the_cli_did(program):
    assert differences(of_embedded(program), of_cli(program)) == {}


@pytest.fixture(scope="module")
def live(request):
    """What the CLI does now, for the programs whose tests are to run, some at once."""
    chosen = [
        item.callspec.params["program"]
        for item in request.session.items
        if item.path == request.path
        and item.get_closest_marker("cli")
        and hasattr(item, "callspec")
    ]
    with cli_runs(chosen) as results:
        yield results


@pytest.mark.cli
@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS, ids=named)
def test_the_cli_does_as_it_is_recorded(program, live):
    assert differences(expanded(live[program.name].result()), of_cli(program)) == {}


@pytest.mark.cli
def test_the_recording_is_of_these_versions():
    assert recorded()["versions"] == versions()


# --- The recording ---


def test_the_recording_is_of_these_programs():
    names = [program.name for program in PROGRAMS]
    assert len(set(names)) == len(names)
    digests = {name: found["digest"] for name, found in recorded()["programs"].items()}
    assert digests == {program.name: digest(program) for program in PROGRAMS}


def test_the_recording_is_as_it_is_written_and_names_no_place():
    text = RECORDING.read_text()
    assert text == dumped(json.loads(text))
    assert not re.search(r"/(tmp|home|root|opt|work|Users|var)/", text)
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)
    assert not re.search(r'[^0-9a-f"][0-9a-f]{8}-[0-9a-f]{4}-', text)


def test_every_step_says_whether_it_went_well():
    for program in PROGRAMS:
        for step, result in zip(program.steps, of_cli(program), strict=True):
            assert (result["result"] == "failed") is bool(step.fails), program.name


# --- Where they differ on purpose ---

EXPLAINED: list[Program] = []


def explains(program: Program) -> pytest.MarkDecorator:
    """Of a test that says how the engines differ over a program: it is given the differences."""
    EXPLAINED.append(program)
    return pytest.mark.parametrize("found", [program], ids=named, indirect=True)


@pytest.fixture
def found(request):
    return differences(of_embedded(request.param), of_cli(request.param))


@explains(INDEPENDENTS)
def test_independents_finish_after_a_failure(found):
    """The CLI lets only what runs already finish."""
    [after], nothing = found.pop((0, "resources"))
    assert (after["urn"], nothing) == ("after", [])
    assert found == {
        (0, "done"): (["create after"], []),
        (0, "diary"): (["create after"], []),
        (0, "order"): (["create slow < create after"], []),
    }


@explains(CONTINUED)
def test_independents_finish_as_with_continue_on_error(found):
    assert found == {}


@explains(REMOVED)
def test_nothing_is_deleted_after_a_failure(found):
    """Nor does the CLI delete then, unless it is told to continue on errors."""
    [old], nothing = found.pop((1, "resources"))
    assert (old["urn"], nothing) == ("old", [])
    assert found == {
        (1, "done"): ([], ["delete old"]),
        (1, "diary"): ([], ["delete old"]),
    }


@explains(CUT_OFF)
def test_what_a_killed_run_left_pending_is_settled(found):
    """The CLI does the same and goes on warning of it."""
    assert found == {
        (1, "pending"): ([], ["creating a"]),
        (2, "pending"): ([], ["creating a"]),
    }


@explains(RESUMED)
def test_what_was_deleted_before_a_failed_replacement_is_not_deleted_again(found):
    """The CLI runs the `delete` of such a dependent once more."""
    assert found == {
        (2, "diary"): ([], ["delete b"]),
        (2, "order"): ([], ["delete b < create a"]),
    }


@explains(BLAMED)
def test_a_replacement_that_its_dependent_prevents_is_what_failed(found):
    """The CLI says that the dependent failed; here the message names both."""
    assert found == {(1, "failed"): (["a"], ["b"])}


@explains(OUTPUTS)
def test_outputs_after_a_failure_are_those_that_are_known(found):
    """The CLI records none of a program's outputs where one comes from what failed."""
    assert found == {
        (1, "outputs"): ({"a": "1", "v": "2"}, {"a": "1", "v": "1"}),
    }


@explains(IDS)
def test_ids_are_unknown_in_a_preview(found):
    """The CLI shows one that pulumi-command makes up and that no resource will have."""
    assert found == {
        (0, "outputs"): ({"a": "[unknown]"}, {"a": "<a, made up>"}),
        (2, "outputs"): ({"a": "[unknown]"}, {"a": "<a, made up>"}),
    }


@explains(NO_TEXT)
def test_output_that_is_no_text_does_not_fail_a_command(found):
    """With the CLI it fails after the script has run, and nothing is recorded."""
    [command], nothing = found.pop((0, "resources"))
    assert (command["outputs"]["stdout"], nothing) == ("\ufffd", [])
    assert found == {
        (0, "result"): ("ok", "failed"),
        (0, "done"): (["create a"], []),
        (0, "failed"): ([], ["a"]),
    }


def test_no_difference_goes_without_a_test():
    assert sorted(map(named, EXPLAINED)) == sorted(map(named, DIFFERENT))
    one_by_one = [one for one in vars(agreement_programs).values() if isinstance(one, Program)]
    assert sorted(map(named, one_by_one)) == sorted(map(named, DIFFERENT))
    assert {p.name for p in ALIKE}.isdisjoint(p.name for p in DIFFERENT)


# --- The suite can fail ---


def test_order_binds_what_is_related_and_nothing_else():
    related = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("a", "c"), ("c", "a")}
    diary = ["delete c", "create x", "delete a", "create a", "update b now", "create a"]
    assert order(diary, related) == [
        "create a < update b now",
        "delete a < create a",
        "delete c < delete a",
        "update b now < create a (2)",
    ]
    assert order(diary[:1] + diary[2:], related) == order(diary, related)
    assert order(diary[::-1], related) != order(diary, related)


@pytest.mark.parametrize(
    "field", ["result", "done", "failed", "same", "diary", "order", "resources", "outputs"]
)
def test_a_difference_in_any_field_is_seen(field):
    """Every field is somewhere in the recording, and any one entry less of it is noticed."""
    changed = 0
    for program in PROGRAMS:
        results = of_cli(program)
        for number, result in enumerate(results):
            if result.get(field):
                other = copy.deepcopy(results)
                value = other[number][field]
                other[number][field] = value[1:] if isinstance(value, list | str) else None
                assert list(differences(other, results)) == [(number, field)]
                changed += 1
    assert changed
