"""What an episode of switchback is: balanced orders, the agent's schedule, refusals, its verdict."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from itertools import groupby, islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.knobs import KNOBS
from agent.schedule import parse_schedule
from experiments.run import episodes, matrix, options, plan
from experiments.run.episodes import Timing
from experiments.run.plan import SweepPlan
from experiments.validity import Cause, Reason
from infra import config, configurations, untrusted
from infra.errors import InvalidInput
from infra.lab import measurement

NAMES = ["baseline", "rps", "rfs", "rps-plus", "rfs-plus", "pipeline"]
MATRIX: dict[str, Any] = {
    "seed": 7, "blocks": 6, "configurations": NAMES, "replicas": [1, 4], "paths": ["overlay"],
    "duration": 5, "omit": 1, "method": "switchback",
}  # fmt: skip


def make(**changes: Any) -> SweepPlan:
    asked = options.read(MATRIX | changes)
    return plan.make(asked, known=configurations.load(), cpus=8)


@given(st.integers(1, 9), st.integers())
def test_orders_are_balanced(count: int, seed: int) -> None:
    """Each name at each place, and after each other one, equally often."""
    names = list("abcdefghi"[:count])
    rows = count if count % 2 == 0 else 2 * count
    found = list(islice(episodes.orders(names, random.Random(seed)), 2 * rows))  # noqa: S311
    assert all(sorted(order) == names for order in found)
    places = Counter((place, name) for order in found for place, name in enumerate(order))
    assert set(places.values()) == {2 * rows // count}
    followed = Counter(pair for order in found for pair in pairwise(order))
    assert len(followed) == count * (count - 1)
    assert len(set(followed.values())) <= 1


def test_orders_come_from_the_seed() -> None:
    def first(seed: int) -> tuple[str, ...]:
        return tuple(next(episodes.orders(NAMES, random.Random(seed))))  # noqa: S311

    assert first(1) == first(1)
    assert len({first(seed) for seed in range(30)}) > 25


def test_an_episode_has_each_configuration_once() -> None:
    made = make()
    groups = made.groups(made.runs)
    assert len(groups) == 12
    for runs in groups:
        assert sorted(run.configuration for run in runs) == sorted(NAMES)
        assert len({(run.block, run.path, run.replicas) for run in runs}) == 1
        assert made.key(runs).configuration == "baseline"
    for _, some in groupby(sorted(groups, key=lambda r: r[0].replicas), lambda r: r[0].replicas):
        orders = [tuple(run.configuration for run in runs) for runs in some]
        assert {Counter(place).most_common(1)[0][1] for place in zip(*orders, strict=True)} == {1}
    assert plan.from_json(plan.to_json(made)) == made
    assert make(seed=8).runs != made.runs
    assert make(window=0.5).digest != made.digest


def test_an_isolated_run_is_on_its_own() -> None:
    made = make(method="isolated")
    assert made.groups(made.runs) == [[run] for run in made.runs]
    assert made.together == 1


def test_without_its_baseline_the_first_configuration_is_the_key() -> None:
    made = make(configurations=["rps", "rfs"], baseline="none")
    keys = {made.key(runs).configuration for runs in made.groups(made.runs)}
    assert keys == {"rps"}


def test_the_estimate_counts_windows_and_episodes() -> None:
    made = make()
    windows = 72 * 0.61
    lead = statistics.fmean(map(episodes.warm_up, made.replicas)) + episodes.OVERHEAD_S
    assert made.eta_s == pytest.approx(windows + 12 * lead, abs=0.1)
    assert made.seconds_of(made.together) == pytest.approx(6 * 0.61 + lead, abs=0.1)


def test_a_connection_that_is_alone_warms_up_longer() -> None:
    made = make(replicas=[1, 2])
    plans: dict[str, dict[str, Any]] = {name: {"lease_seconds": 0} for name in NAMES}
    first = [
        episodes.schedule(plans, [5], made.timing(count))["windows"][0]["at"]
        for count in made.replicas
    ]
    assert first == [episodes.WARM_UP_ALONE_S, episodes.WARM_UP_S]


@pytest.mark.parametrize("lease", ["30s", "2h", "none"])
def test_the_agent_takes_the_schedule(lease: str) -> None:
    timing = Timing(0.4, 0.1)
    plans = {
        name: measurement.of(config.state(f"{name}-2", {"lease": lease}, (0, 1))).plans[0]
        for name in NAMES
    }
    # one stack's plans differ in their configuration alone
    document = episodes.schedule(
        {n: {**p, "owner": "x/server"} for n, p in plans.items()}, [5, 6], timing
    )
    found = parse_schedule(document)
    assert [window.plan for window in found.windows] == NAMES
    assert [window.first - window.at for window in found.windows] == pytest.approx([0.1] * 6)
    assert [window.seconds for window in found.windows] == [0.4] * 6
    assert found.windows[0].at == episodes.WARM_UP_S
    assert (found.receivers, found.every) == ([5, 6], episodes.EVERY_S)
    assert found.lease_seconds >= {"30s": 60, "2h": 7200, "none": 7200}[lease]
    assert timing.traffic(6) > found.windows[-1].last + 1


@pytest.mark.parametrize(
    ("receivers", "windows", "timing", "seconds"),
    [
        (4, 6, Timing(0.4, 0.2), 0.05),
        (16, 6, Timing(0.2, 0.2), 0.05),
        (32, 6, Timing(0.4, 0.2), 0.08),
        (4, 6, Timing(0.1, 0.2), None),  # two readings in a window
        (64, 6, Timing(0.4, 0.2), None),
        (64, 6, Timing(1, 0.2), 0.16),
        (100, 20, Timing(29.5, 0.2), None),  # more than the driver reads
    ],
)
def test_goodput_is_read_as_often_as_the_agent_can(
    receivers: int, windows: int, timing: Timing, seconds: float | None
) -> None:
    assert episodes.every(receivers, windows, timing) == seconds


@pytest.mark.parametrize(
    ("receivers", "windows", "timing", "word"),
    [
        ([4, 16], 6, Timing(0.4, 0.2), ""),
        ([4, 64], 6, Timing(0.4, 0.2), "--window 0.64 "),
        ([1], 6, Timing(0.1, 0.2), "--window 0.2 "),
        ([100], 20, Timing(29.5, 0.2), "fewer configurations"),
    ],
)
def test_where_goodput_is_not_read_the_remedy_is_named(
    receivers: list[int], windows: int, timing: Timing, word: str
) -> None:
    words = episodes.unread(receivers, windows, timing)
    assert (word in words, bool(words)) == (True, bool(word))
    if "--window" in word:
        longer = timing._replace(window=float(word.split()[1]))
        assert episodes.unread(receivers, windows, longer) == ""


LATE = [Reason(Cause.WINDOW, "late")]
LOST = [Reason(Cause.TRAFFIC, "lost")]


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ({"a": [], "b": [], "c": []}, ""),
        ({"a": [], "b": LATE, "c": []}, ""),
        ({"a": [], "b": LATE, "c": LATE}, "2 of 3 windows of the episode are not valid: late"),
        ({"a": LOST, "b": [], "c": []}, "the episode has no valid window of a: lost"),
    ],
)
def test_an_episode_with_too_few_windows_does_not_count(
    reasons: dict[str, list[Reason]], words: str
) -> None:
    found = episodes.too_few(reasons, "a")
    assert [reason.text for reason in found] == ([words] if words else [])


SWITCHED: dict[str, Any] = {
    "configurations": "baseline,rfs", "replicas": "2", "runs": 3, "seed": 1, "method": "switchback",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"steerNodes": "both"}}, "method: switchback steers one server node"),
        ({"isolation": "fresh"}, "isolation fresh"),
        ({"traffic": "udp"}, "method: switchback measures TCP streams"),
        ({"traffic": "rr"}, "method: switchback measures TCP streams"),
        ({"window": 60, "configurations": ",".join(NAMES), "settle": 60}, "at most 600 seconds"),
        ({"traffic": "mixed", "window": 60}, "method: switchback keeps the round trips"),
        ({"config": {"lease": "30s"}, "window": 10}, "method: switchback needs a lease"),
        ({"window": 0.01}, "window: must be greater than or equal to 0.1"),
        ({"method": "both"}, "method: must be"),
    ],
)
def test_what_cannot_be_switched_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        matrix.plan(SWITCHED | change)


@pytest.mark.parametrize(
    ("traffic", "window"),
    [("stream:congestion=bbr", 60), ("mixed", 0.4), ("mixed:rate=300M", 45)],
)
def test_what_has_streams_can_be_switched(traffic: str, window: float) -> None:
    made = matrix.plan(SWITCHED | {"traffic": traffic, "window": window})
    assert made.method == "switchback"


def test_answers_that_would_be_too_large_are_refused_before_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    largest = SWITCHED | {"replicas": "2,1024", "configurations": ",".join(NAMES)}
    assert matrix.plan(largest).method == "switchback"
    monkeypatch.setattr(untrusted, "MOST_VALUES", untrusted.MOST_VALUES // 3)
    with pytest.raises(
        InvalidInput, match="method: switchback takes fewer configurations or pairs"
    ):
        matrix.plan(largest)


@pytest.mark.parametrize(("windows", "pairs", "read"), [(20, 1024, False), (256, 1, True)])
def test_an_answer_must_be_readable(windows: int, pairs: int, read: bool) -> None:
    assert episodes.readable(windows, pairs, 2 * windows) == read


def test_the_settle_time_is_the_longest_of_the_knobs_that_differ() -> None:
    def own(name: str, word: str) -> configurations.Configuration:
        threads = {"gro": "on", "threaded": word}
        return configurations.Configuration.model_validate({"name": name, "nic": threads})

    baseline, rfs = (configurations.load()[name] for name in ("baseline", "rfs"))
    steering, threads = KNOBS["rps_flow_cnt"].settle, KNOBS["threaded"].settle
    assert steering < threads
    assert episodes.settle_of([baseline, rfs]) == steering
    assert episodes.settle_of([baseline, rfs, own("a", "on")]) == threads
    assert episodes.settle_of([own("a", "off"), own("b", "on")]) == threads
    assert episodes.settle_of([own("a", "on"), own("b", "on")]) <= steering


def test_a_window_settles_for_what_changes_before_it() -> None:
    def own(**parts: dict[str, Any]) -> configurations.Configuration:
        return configurations.Configuration.model_validate({"name": "own", **parts})

    baseline, budget = own(), own(machine={"netdev_budget": 600})
    threaded = own(nic={"gro": "on", "threaded": "on"})
    quick, slow = KNOBS["netdev_budget"].settle, KNOBS["threaded"].settle
    assert quick < KNOBS["gro"].settle < slow
    order = [budget, baseline, threaded, budget]
    assert episodes.settles_of(baseline, order) == [quick, quick, slow, slow]
