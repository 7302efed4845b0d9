"""The candidates of `tune`, and how what helped is combined."""

from __future__ import annotations

import pytest

from agent.knobs import KNOBS
from experiments.run import arms
from experiments.run.arms import Arm, candidates, combined, merged
from infra import configurations


@pytest.mark.parametrize("cores", [2, 8])
def test_candidates_are_valid_configurations_that_differ(cores: int) -> None:
    found = candidates(cores)
    assert found[0] == arms.BASELINE
    assert found[0].complexity == 0
    assert len({arm.name for arm in found}) == len(found)
    definitions = {arm.configuration.model_copy(update={"name": "x"}).definition for arm in found}
    assert len(definitions) == len(found)
    assert all(arm.configuration.needs_cpus <= cores for arm in found)
    assert {knob for arm in found for _, knob in arm.settings} >= {
        "rps_cpus", "rps_flow_cnt", "rps_sock_flow_entries", "gro", "xps_cpus",
    }  # fmt: skip


def test_every_kernel_takes_the_time_of_a_softirq() -> None:
    key = ("machine", "netdev_budget_usecs")
    given = [arm.settings[key] for arm in arms.candidates(2) if key in arm.settings]
    slowest_tick = 1_000_000 // 100
    assert given
    assert all(int(value) >= 2 * slowest_tick for value in given)


def test_three_stages_need_three_cores() -> None:
    assert {arm.name for arm in candidates(3)} - {arm.name for arm in candidates(2)} == {"stages-3"}


def test_a_knob_that_this_version_lacks_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {name: knob for name, knob in KNOBS.items() if name != "gro"}
    monkeypatch.setattr(arms, "KNOBS", fewer)
    assert not any(knob == "gro" for arm in candidates(2) for _, knob in arm.settings)


def test_a_configuration_is_read_as_what_it_changes() -> None:
    known = configurations.load()
    assert arms.of(known["baseline"]).settings == {}
    rfs = arms.of(known["rfs"])
    assert rfs.complexity == 4
    assert rfs.configuration.definition == known["rfs"].definition
    assert {arm.name: arm for arm in candidates(2)}["rfs"].settings == rfs.settings


A = Arm("a", "first", {("nic", "rps_cpus"): "all"})
B = Arm("b", "second", {("overlay", "gro"): "on"})
C = Arm("c", "", {("nic", "rps_cpus"): "last"})
AB = Arm("ab", "", {**A.settings, **B.settings})


def test_both_are_set_together_unless_they_contradict() -> None:
    both = merged(A, B)
    assert both
    assert both.settings == AB.settings
    assert both.configuration.overlay.knobs["gro"] == "on"
    assert merged(A, C) is None
    assert merged(A, AB) is None


def test_the_best_are_combined_first_and_nothing_twice() -> None:
    d = Arm("d", "", {("pod", "rps_cpus"): "last"})
    e = Arm("e", "", {("veth", "rps_cpus"): "all"})
    assert [one.name for one in combined([A, B, d, e], [], 3)] == [
        "a-with-b", "b-with-d", "b-with-e",
    ]  # fmt: skip
    assert [one.name for one in combined([A, d, B], [], 2)] == ["a-with-b", "d-with-b"]
    assert combined([A, B], [AB], 3) == []
    assert combined([A, C], [], 3) == []
    assert combined([A], [], 3) == []
