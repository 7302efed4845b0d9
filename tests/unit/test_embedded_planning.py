"""The embedded engine's decisions, apart from any effect."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from experiments.engines.embedded import planning
from experiments.engines.embedded.planning import decide

URN = "urn:pulumi:s::p::command:local:Command::"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def wanted(**inputs):
    return {"urn": f"{URN}x", "type": "command:local:Command", "custom": True, "inputs": inputs}


def old(**inputs):
    return {**wanted(**inputs), "id": "x1", "outputs": inputs}


def is_same(one, other):
    """What Pulumi holds equal: like for like, and a null in a map is an absent key."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(is_same(one.get(key), other.get(key)) for key in {*one, *other})
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES, VALUES)
def test_differences_are_none_exactly_where_values_are_the_same(one, other):
    assert (not list(planning.differences(one, other))) is is_same(one, other)
    assert set(planning.differences(one, other)) == set(planning.differences(other, one))
    assert list(planning.differences(one, copy.deepcopy(one))) == []


def test_differences_name_the_deepest_path():
    before = {"triggers": ["a", {"k": 1}], "environment": {"A": "1", "B": "2"}, "gone": 1}
    after = {"triggers": ["a", {"k": True}, 3], "environment": {"A": "1", "B": "3"}, "new": None}
    assert set(planning.differences(before, after)) == {
        ("triggers", 1, "k"),
        ("triggers", 2),
        ("environment", "B"),
        ("gone",),
    }


def test_decisions():
    assert decide(None, wanted()).operation == "create"
    assert decide(old(create="a"), wanted(create="a")).operation == "same"
    assert decide(old(create="a"), wanted(create="b", stdin="c")) == planning.Decision(
        "update", ("create", "stdin")
    )
    assert decide(old(triggers=[1]), wanted(triggers=[2], create="x")).operation == "replace"
    assert decide(old(), wanted(triggers=[])).operation == "replace"
    assert decide(old(), wanted(), "replace").operation == "replace"
    assert decide({**old(), "pendingReplacement": True}, wanted()).operation == "replace"


def test_interrupted_resources_are_not_left_alone():
    same = old(create="a"), wanted(create="a")
    assert decide(*same, interrupted="updating").operation == "update"
    assert decide(*same, interrupted="creating").operation == "update"
    assert decide(*same, interrupted="deleting").operation == "replace"
    assert decide(None, wanted(), interrupted="creating").operation == "create"


def test_components_are_updated_never_replaced_by_their_inputs():
    component = {"urn": f"{URN}x", "type": "t:i:C", "custom": False, "inputs": {"k": "2"}}
    assert decide(component, component).operation == "same"
    assert decide({**component, "inputs": {"k": "1"}}, component).operation == "update"
    assert decide({**component, "inputs": {"triggers": [1]}}, component).operation == "update"


def resource(name, **fields):
    return {
        "urn": URN + name,
        "type": "command:local:Command",
        "custom": True,
        "id": name,
        **fields,
    }


def reads(name, **properties):
    """A resource whose inputs come from others: `triggers="a"`."""
    urns = {key: [URN + value] for key, value in properties.items()}
    return resource(
        name,
        inputs=dict.fromkeys(properties, "x"),
        propertyDependencies=urns,
        dependencies=sorted({urn for group in urns.values() for urn in group}),
    )


def test_only_forced_dependents_are_deleted_with_what_they_build_on():
    resources = [
        resource("before"),
        resource("a"),
        reads("b", triggers="a"),
        reads("c", stdin="a"),
        reads("d", triggers="c"),
        reads("e", triggers="b"),
        resource("f", dependencies=[URN + "a"]),
        {**reads("done", triggers="a")},
    ]
    victims = planning.dependent_replacements(resources[1], resources, {URN + "done"})
    assert [victim["id"] for victim in victims] == ["b", "e"]
    assert planning.dependent_replacements(resources[0], resources, set()) == []


@given(st.lists(st.sets(st.integers(0, 9)), max_size=10))
def test_dependents_are_deleted_first(graph):
    resources = [
        resource(str(n), dependencies=[URN + str(d) for d in sorted(below) if d < n])
        for n, below in enumerate(graph)
    ]
    first = planning.deleted_first(resources)
    for number, below in enumerate(graph):
        assert {d for d in range(number) if number in first[d]} == {d for d in below if d < number}
        assert all(other > number for other in first[number])  # so there is always one to delete


def test_children_go_before_parents_and_all_before_the_provider():
    provider = resource("p", type="pulumi:providers:command")
    parent = {"urn": URN + "c", "type": "t:i:C", "custom": False}
    child = resource("x", parent=URN + "c", provider=f"{URN}p::p")
    assert planning.deleted_first([provider, parent, child]) == [{2}, {2}, set()]


def test_a_change_is_said_with_its_texts_where_they_are_short() -> None:
    def resource(**inputs: object) -> planning.Resource:
        return {"inputs": inputs}

    old = resource(stdin="{}", environment={"SAYS": "rfs", "STAYS": "x"})
    new = resource(stdin="[]", environment={"SAYS": "rps", "STAYS": "x"})
    both = ("stdin", "environment")
    assert planning.in_words(both, old, new) == "stdin, SAYS: rfs -> rps"
    assert planning.in_words(("replace",), old, old) == "replace"
    for value in (7, "x" * 61, "", planning.UNKNOWN):
        unsaid = resource(stdin="{}", environment={"SAYS": value, "STAYS": "x"})
        assert planning.in_words(("environment",), old, unsaid) == "environment"
    assert planning.in_words(("environment",), None, new) == "environment"
