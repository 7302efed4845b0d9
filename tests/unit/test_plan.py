"""The plan of a sweep: a split plot, the same from the same seed, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.run import options, plan
from experiments.run.plan import SweepPlan
from infra import configurations
from infra.configurations import Configuration, MachineSettings
from infra.errors import InvalidInput

KNOWN = configurations.load()
MATRIX: dict[str, Any] = {
    "seed": 7,
    "blocks": 3,
    "configurations": ["baseline", "rps", "rfs"],
    "replicas": [1, 4],
    "paths": ["overlay"],
    "duration": 5,
    "omit": 1,
    "streams": 1,
}


def make(known: Mapping[str, Configuration] = KNOWN, cpus: int = 8, **changes: Any) -> SweepPlan:
    return plan.make(options.read(MATRIX | changes), known=known, cpus=cpus)


def some(values: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=most, unique=True)


plans = st.builds(
    make,
    seed=st.integers(0, 2**31),
    blocks=st.integers(1, 5),
    configurations=some(st.sampled_from(sorted(KNOWN)), 8),
    replicas=some(st.integers(1, 128), 5),
    paths=some(st.sampled_from(["overlay", "host"]), 2),
    config=st.dictionaries(st.text().filter(lambda key: key not in options.decided()), st.text()),
)


@given(plans)
def test_every_block_has_every_state_once(made: SweepPlan) -> None:
    states = {
        (path, count, name)
        for path in made.paths
        for count in made.replicas
        for name in made.configurations
    }
    assert [run.order for run in made.runs] == list(range(len(states) * made.blocks))
    assert [run.block for run in made.runs] == sorted(run.block for run in made.runs)
    for _, runs in groupby(made.runs, lambda run: run.block):
        counted = Counter((run.path, run.replicas, run.configuration) for run in runs)
        assert counted == Counter(states)


@given(plans)
def test_configurations_follow_each_other_within_a_path_and_replica_count(made: SweepPlan) -> None:
    """The split plot: what is expensive to change, or to compare across, changes least."""
    whole = [key for key, _ in groupby(made.runs, lambda run: (run.block, run.path, run.replicas))]
    assert len(whole) == len(set(whole))
    paths = [key for key, _ in groupby(made.runs, lambda run: (run.block, run.path))]
    assert len(paths) == len(set(paths))


@given(plans)
def test_what_is_read_back_is_the_same_plan(made: SweepPlan) -> None:
    kept = plan.from_json(plan.to_json(made))
    assert kept == made
    assert kept.digest == made.digest


def test_the_seed_alone_orders_the_runs() -> None:
    assert make() == make()
    orders = {tuple(make(seed=seed).runs) for seed in range(20)}
    assert len(orders) == 20
    first = {make(seed=seed).runs[0].configuration for seed in range(20)}
    assert first == {"baseline", "rps", "rfs"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"blocks": 4},
        {"configurations": ["baseline", "rps"]},
        {"replicas": [1, 2]},
        {"paths": ["overlay", "host"]},
        {"duration": 6},
        {"omit": 0},
        {"streams": 2},
        {"pod_cpu_limit": "200m"},
        {"config": {"lease": "3h"}},
        {"baseline": "rps"},
        {
            "known": KNOWN
            | {
                "rfs": KNOWN["rfs"].model_copy(
                    update={"machine": MachineSettings(rps_sock_flow_entries=4096)}
                )
            }
        },
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_experiment_has_another_digest(change: dict[str, Any]) -> None:
    assert make(**change).digest != make().digest


def test_a_plan_edited_by_hand_has_another_digest() -> None:
    document = json.loads(plan.to_json(make()))
    document["runs"][0], document["runs"][1] = document["runs"][1], document["runs"][0]
    assert plan.from_json(json.dumps(document)).digest != make().digest


def test_other_words_about_a_configuration_do_not_matter() -> None:
    renamed = KNOWN | {"rfs": KNOWN["rfs"].model_copy(update={"summary": "as they call it"})}
    assert make(known=renamed).digest == make().digest


def test_what_needs_more_cores_is_left_out_and_named() -> None:
    made = make(configurations=["baseline", "rps-7", "pipeline"], cpus=2)
    assert made.configurations == ("baseline", "pipeline")
    assert made.left_out == (("rps-7", "needs 3 CPUs"),)
    assert {run.configuration for run in made.runs} == {"baseline", "pipeline"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"configurations": ["baseline", "rsp"]}, r"configurations: 'rsp' is unknown .*rps"),
        ({"configurations": ["rps", "rfs", "rps"]}, "configurations: .* twice"),
        ({"replicas": [4, 4]}, "replicas: .* twice"),
        ({"configurations": []}, "configurations: must be a list of one or more"),
        ({"replicas": []}, "replicas: must be a list of one or more"),
        ({"configurations": ["rps-7"], "cpus": 2}, "run none of them: rps-7 needs 3 CPUs"),
    ],
)
def test_refusals(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make(**change)


def test_the_eta_counts_traffic_and_overhead() -> None:
    made = make().model_copy(update={"duration": 30, "omit": 2})
    assert 18 * 32 < made.eta_s < 18 * 32 / 0.97
