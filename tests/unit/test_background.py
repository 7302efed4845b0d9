"""CPU time of other programs, from edges that are worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.schema import Core
from experiments import validity
from experiments.host.procstat import CounterSample
from experiments.run import background
from experiments.validity import Cause, Reason

SERVER, CLIENT, HARNESS, SHELL, OTHER = 10, 11, 12, 20, 21
OWN = (HARNESS, CLIENT, SERVER)


def edge(
    at: float,
    cores: list[tuple[int, int, int, int]],
    tasks: list[tuple[int, int, str, int, int, int, int]],
    own: tuple[int, ...] | None = OWN,
) -> CounterSample:
    """`cores` are user, nice, system and softirq ticks; a task is pid, parent, name and its times."""
    stat = "".join(
        f"cpu{core} {user} {nice} {system} 0 0 0 {soft} 0 0 0\n"
        for core, (user, nice, system, soft) in enumerate(cores)
    )
    lines = tuple(
        f"{pid} {parent} 5 {' '.join(map(str, times))} {name}"
        for pid, parent, name, *times in tasks
    )
    return CounterSample(at=at, stat=stat, softirqs="", softnet="", own_cpu=0, tasks=lines, own=own)


IDLE = [(0, 0, 0, 0), (0, 0, 0, 0)]
BEFORE = [
    (1, 0, "init", 0, 0, 0, 0),
    (HARNESS, 1, "python", 0, 0, 0, 0),
    (CLIENT, 1, "iperf3", 0, 0, 0, 0),
    (SERVER, 1, "iperf3", 0, 0, 0, 0),
    (SHELL, 1, "bash", 0, 0, 0, 0),
]


def with_times(
    **times: tuple[int, int, int, int],
) -> list[tuple[int, int, str, int, int, int, int]]:
    pids = {"harness": HARNESS, "client": CLIENT, "server": SERVER, "bash": SHELL}
    by_pid = {pids[name]: value for name, value in times.items()}
    return [(*one[:3], *by_pid.get(one[0], one[3:])) for one in BEFORE]


def test_a_quiet_machine_has_none() -> None:
    after = edge(
        2,
        [(10, 0, 100, 90), (0, 0, 40, 20)],
        # 140 system ticks, and 60 of the 110 softirq ticks were charged to the two on top
        with_times(server=(6, 120, 0, 0), client=(4, 80, 0, 0)),
    )
    found = background.measured(edge(0, IDLE, BEFORE), after, {0, 1})
    assert found == (0, [])


def test_a_nice_busy_loop_is_found_and_named() -> None:
    loop = (OTHER, SHELL, "stress", 0, 0, 0, 0)
    after = edge(
        2,
        [(10, 100, 50, 40), (0, 0, 50, 0)],
        [*with_times(server=(10, 70, 0, 0), client=(0, 70, 0, 0)), (*loop[:3], 100, 0, 0, 0)],
    )
    found = background.measured(edge(0, IDLE, [*BEFORE, loop]), after, {0, 1})
    assert found == (0.5, ["stress 0.50"])


def test_system_time_of_others_is_not_hidden_by_softirqs_on_top_of_iperf3() -> None:
    """dd in the kernel: all 150 system ticks but 20; iperf3 is charged for 200 softirqs on top."""
    after = edge(
        4,
        [(0, 0, 100, 150), (0, 0, 50, 50)],
        [
            *with_times(server=(0, 150, 0, 0), client=(0, 70, 0, 0)),
            (OTHER, SHELL, "dd", 0, 130, 0, 0),
        ],
    )
    found = background.measured(edge(0, IDLE, BEFORE), after, {0, 1})
    assert found == (pytest.approx(130 / 400), ["dd 0.33"])


def test_ksoftirqd_and_napi_threads_are_the_traffic() -> None:
    threads = [(2, 0, "ksoftirqd/0", 0, 80, 0, 0), (3, 0, "napi/eth0-8", 0, 60, 0, 0)]
    after = edge(
        2,
        [(0, 0, 100, 80), (0, 0, 0, 0)],
        [*with_times(server=(0, 20, 0, 0), client=(0, 20, 0, 0)), *threads],
    )
    zero = [(*one[:3], 0, 0, 0, 0) for one in threads]
    assert background.measured(edge(0, IDLE, [*BEFORE, *zero]), after, {0, 1}) == (0, [])


def test_children_that_ended_count_without_what_they_used_before() -> None:
    """A compiler that had used 900 ticks ended in the window; another lived within it."""
    old = (OTHER, SHELL, "cc1", 900, 0, 0, 0)
    after = edge(2, [(60, 0, 0, 0), (0, 0, 0, 0)], with_times(bash=(0, 0, 960, 0)))
    found = background.measured(edge(0, IDLE, [*BEFORE, old]), after, {0, 1})
    assert found == (0.3, ["bash 0.30"])


def test_a_child_of_the_experiment_is_its_own() -> None:
    """A shell of a pod starts its client after the processes were listed."""
    child = (OTHER, CLIENT, "iperf3", 40, 80, 0, 0)
    after = edge(2, [(40, 0, 80, 0), (0, 0, 0, 0)], [*BEFORE, child])
    assert background.measured(edge(0, IDLE, BEFORE), after, {0, 1}) == (0, [])


def test_only_the_experiments_cores_count() -> None:
    after = edge(2, [(0, 0, 0, 0), (200, 0, 0, 0)], BEFORE)
    found = background.measured(edge(0, IDLE, BEFORE), after, {0})
    assert found is not None
    assert found.cores == 0


@pytest.mark.parametrize("own", [None, (), (HARNESS, 99)])
def test_where_the_own_processes_are_not_known_there_is_no_figure(
    own: tuple[int, ...] | None,
) -> None:
    first, last = edge(0, IDLE, BEFORE, own), edge(2, IDLE, BEFORE, own)
    assert isinstance(background.measured(first, last, {0, 1}), str)


def test_a_client_that_ended_within_the_window_leaves_no_figure() -> None:
    last = edge(2, IDLE, [one for one in BEFORE if one[0] != CLIENT])
    assert isinstance(background.measured(edge(0, IDLE, BEFORE), last, {0, 1}), str)


TICKS = st.integers(0, 10**6)


@given(
    st.lists(st.tuples(TICKS, TICKS, TICKS, TICKS), min_size=2, max_size=2),
    st.lists(st.tuples(TICKS, TICKS, TICKS, TICKS), min_size=3, max_size=3),
)
def test_it_is_never_negative_nor_more_than_the_cores_counted(
    cores: list[tuple[int, int, int, int]], times: list[tuple[int, int, int, int]]
) -> None:
    after = edge(2, cores, with_times(server=times[0], client=times[1], bash=times[2]))
    found = background.measured(edge(0, IDLE, BEFORE), after, {0, 1})
    assert isinstance(found, background.Background)
    assert 0 <= found.cores <= sum(sum(core[:3]) for core in cores) / 200


@pytest.mark.parametrize(
    ("used", "cores", "kind"),
    [
        (0.09, 2, None),
        (0.11, 2, str),
        (0.51, 64, str),
        (validity.FOREIGN_LIMIT * 2, 2, str),
        (validity.FOREIGN_LIMIT * 2 + 0.01, 2, Reason),
    ],
)
def test_other_programs_are_a_warning_and_above_a_limit_a_reason(
    used: float, cores: int, kind: type | None
) -> None:
    found = validity.foreign("lab", used, cores, ["python 0.1"])
    assert [type(one) for one in found] == ([] if kind is None else [kind])
    assert all(one.cause == Cause.FOREIGN for one in found if isinstance(one, Reason))


@pytest.mark.parametrize(
    ("ticks", "seconds", "kind"),
    [
        ((1, 1), 0.25, None),  # 4 %, or next to nothing
        ((2, 1), 0.25, None),
        ((3, 1), 0.25, str),
        ((7, 7), 0.25, str),
        ((8, 8), 0.25, Reason),
        ((20, 20), 10, None),
        ((22, 22), 10, str),
        ((252, 252), 10, Reason),
    ],
)
def test_stolen_time_counts_as_far_as_it_is_certain(
    ticks: tuple[int, int], seconds: float, kind: type | None
) -> None:
    cores = [Core(node="lab", core=number, steal=one / seconds) for number, one in enumerate(ticks)]
    found = validity.stolen("lab", cores, 100 * seconds)
    assert [type(one) for one in found] == ([] if kind is None else [kind])
