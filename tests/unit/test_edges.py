"""The two edges of a window: captured /proc texts, percentages worked out by hand, odd counters."""

from __future__ import annotations

import dataclasses
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import procstat as agent_procstat
from experiments.host import procstat
from experiments.host.procstat import STAT_FIELDS, CounterSample
from infra.errors import Refusal

DATA = Path(__file__).parent / "data"
PERCENTAGES = ("usr", "nice", "sys", "iowait", "irq", "soft", "steal", "idle")


@pytest.fixture
def before() -> CounterSample:
    """This project's test machine before a second of iperf3 over loopback."""
    return CounterSample.read(DATA / "proc-before")


@pytest.fixture
def after() -> CounterSample:
    return CounterSample.read(DATA / "proc-after")


def stat(**cores: str) -> CounterSample:
    """An edge whose /proc/stat has these rows, without the sum of them all that leads it."""
    text = "cpu  1 2 3 4 5 6 7 8 9 10\n" + "".join(f"{k} {v}\n" for k, v in cores.items())
    return CounterSample(at=0, stat=text + "ctxt 1\n", softirqs="CPU0\n", softnet="", own_cpu=0)


def test_percentages_of_a_captured_window(before: CounterSample, after: CounterSample) -> None:
    """cpu0: 184 user, 856 system, 766 idle, 73 iowait, 4604 softirq, 2 steal of 6485 ticks."""
    first, second = procstat.cores(before, after, "lab")
    assert first.model_dump() == {
        "node": "lab", "core": 0, "usr": 2.837, "nice": 0, "sys": 13.2, "iowait": 1.126,
        "irq": 0, "soft": 70.995, "steal": 0.031, "idle": 11.812, "side": None,
    }  # fmt: skip
    assert (second.core, second.usr, second.soft, second.idle) == (1, 8.488, 61.657, 7.622)


def test_softnet_of_a_captured_window(before: CounterSample, after: CounterSample) -> None:
    """cpu0 processed 2917faaa - 255455cc; the time-squeeze column stood still."""
    rows = [row.model_dump() for row in procstat.softnet(before, after, "lab")]
    assert rows == [
        {"node": "lab", "core": 0, "processed": 63153374, "dropped": 916680, "squeezed": 0,
         "received_rps": 50357, "flow_limit": 0, "net_rx": 1206444},
        {"node": "lab", "core": 1, "processed": 28807973, "dropped": 14377, "squeezed": 0,
         "received_rps": 60738, "flow_limit": 0, "net_rx": 965123},
    ]  # fmt: skip


def test_guest_time_is_part_of_the_window_but_not_of_usr() -> None:
    """As mpstat has it: user and nice hold the guests' ticks; 100 - the sum is %guest."""
    [core] = procstat.cores(
        stat(cpu0="0 0 0 0 0 0 0 0 0 0"), stat(cpu0="60 20 0 20 0 0 0 0 50 10"), "n"
    )
    assert (core.usr, core.nice, core.idle) == (10, 10, 20)


def test_idle_that_steps_back_is_no_negative_time() -> None:
    [core] = procstat.cores(
        stat(cpu0="10 0 0 100 7 0 0 0 0 0"), stat(cpu0="20 0 0 99 6 0 10 0 0 0"), "n"
    )
    assert (core.usr, core.soft, core.idle, core.iowait) == (50, 50, 0, 0)


@pytest.mark.parametrize("field", STAT_FIELDS)
def test_time_that_steps_back_far_is_not_measured(field: str) -> None:
    """A core that went offline and came back, or a machine that moved to another host."""
    place = STAT_FIELDS.index(field)
    first, last = [1000] * 10, [1100] * 10
    last[place] = 400
    before, after = (stat(cpu0=" ".join(map(str, row))) for row in (first, last))
    [core] = procstat.cores(before, after, "n")
    assert all(getattr(core, name) is None for name in PERCENTAGES)
    [words] = procstat.backward(before, after, "n")
    assert "core 0 of node n in /proc/stat" in words


def test_only_cores_at_both_edges_are_counted() -> None:
    ticks = "1 1 1 1 1 1 1 1 0 0"
    gone, new = stat(cpu0=ticks, cpu1=ticks), stat(cpu1="2 1 1 1 1 1 1 1 0 0", cpu2=ticks)
    assert [(core.core, core.usr) for core in procstat.cores(gone, new, "n")] == [(1, 100)]


def test_a_window_without_ticks_has_no_percentages(before: CounterSample) -> None:
    for core in procstat.cores(before, before, "lab"):
        assert all(getattr(core, name) is None for name in PERCENTAGES)
    assert [row.processed for row in procstat.softnet(before, before, "lab")] == [0, 0]


def test_counters_that_wrap_at_32_bits(before: CounterSample, after: CounterSample) -> None:
    """Both files print 32-bit counters: 2^32 - 16 and then 16 are 32 packets."""
    first = dataclasses.replace(
        before,
        softnet=before.softnet.replace("255455cc", "fffffff0"),
        softirqs=before.softirqs.replace("11602042", "4294967280"),
    )
    last = dataclasses.replace(
        after,
        softnet=after.softnet.replace("2917faaa", "00000010"),
        softirqs=after.softirqs.replace("12808486", "16"),
    )
    row = procstat.softnet(first, last, "lab")[0]
    assert (row.processed, row.net_rx) == (32, 32)


def test_a_softnet_counter_that_went_back_is_not_measured(
    before: CounterSample, after: CounterSample
) -> None:
    """1,000 packets fewer than before are no 4 thousand million more."""
    fewer = dataclasses.replace(after, softnet=before.softnet.replace("255455cc", "255451e4"))
    rows = procstat.softnet(before, fewer, "lab")
    assert [row.core for row in rows] == [1]
    [words] = procstat.backward(before, fewer, "lab")
    assert "core 0 of node lab in softnet_stat" in words
    restarted = dataclasses.replace(after, softirqs=before.softirqs.replace("11602042", "11602000"))
    assert procstat.softnet(before, restarted, "lab")[0].net_rx is None
    assert procstat.backward(before, after, "lab") == []


def test_softnet_rows_of_an_old_kernel_are_of_the_cores_online() -> None:
    """Linux before 5.10 with CPU 1 offline: the second row is CPU 2's."""
    ticks = "1 1 1 1 1 1 1 1 0 0"
    old = "\n".join(["0000000a " + "00000000 " * 10] * 2)
    edge = dataclasses.replace(stat(cpu0=ticks, cpu2=ticks), softnet=old)
    assert [row.core for row in procstat.softnet(edge, edge, "n")] == [0, 2]


def test_cores_have_the_side_that_they_work_for() -> None:
    ticks = "1 1 1 1 1 1 1 1 0 0"
    edge = stat(cpu0=ticks, cpu1=ticks, cpu2=ticks)
    sides = [core.side for core in procstat.cores(edge, edge, "n", serving={1}, using={0, 1})]
    assert sides == ["client", "server", None]
    assert {core.side for core in procstat.cores(edge, edge, "n")} == {None}


def test_softnet_rows_without_a_cpu_column_count_from_zero() -> None:
    """Kernels before 5.10 print eleven columns; an offline core has no row in newer ones."""
    old = "\n".join(["0000000a " + "00000000 " * 10] * 2)
    new = "0000000a " + "00000000 " * 11 + "00000003"
    for text, cores in ((old, [0, 1]), (new, [3])):
        edge = CounterSample(
            at=0, stat="", softirqs="CPU0 CPU1 CPU2 CPU3\n", softnet=text, own_cpu=0
        )
        assert [row.core for row in procstat.softnet(edge, edge, "n")] == cores


@st.composite
def ticks(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Counters before, and how far each goes on; guest time is part of user and nice time."""
    counter, step = st.integers(0, 2**40), st.integers(0, 10**6)
    start = draw(st.lists(counter, min_size=10, max_size=10))
    more = draw(st.lists(step, min_size=8, max_size=8))
    return start, [*more, draw(st.integers(0, more[0])), draw(st.integers(0, more[1]))]


@given(ticks())
def test_percentages_and_guest_time_sum_to_100(counted: tuple[list[int], list[int]]) -> None:
    start, more = counted
    end = [a + b for a, b in zip(start, more, strict=True)]
    [core] = procstat.cores(
        stat(cpu0=" ".join(map(str, start))), stat(cpu0=" ".join(map(str, end))), "n"
    )
    values = [getattr(core, name) for name in PERCENTAGES]
    total = sum(more[: STAT_FIELDS.index("guest")])
    if total == 0:
        assert values == [None] * len(PERCENTAGES)
    else:
        guest = 100 * sum(more[STAT_FIELDS.index("guest") :]) / total
        assert sum(values) + guest == pytest.approx(100, abs=0.01)
        assert min(values) >= 0


SNMP = (
    "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors\n"
    "Udp: {} 1 {} {} {} 0 0\n"
)
DEV = (
    "Inter-|   Receive                            |  Transmit\n"
    " face |bytes    packets errs drop fifo frame |bytes    packets errs drop fifo colls\n"
    "    lo: 0 0 0 0 0 0 0 0 0 0 0 9 0 0 0 0\n"
    "eth0:12345 10 0 {} 0 0 0 0 60 1 0 9 0 0 0 0\n"
)


def of_pods(*pods: tuple[int, int, int, int, int], node: int | None = None) -> CounterSample:
    """An edge with the UDP counters of pods: delivered, errors, sent, full sockets, device drops."""
    networks = [{"snmp": SNMP.format(*udp), "dev": DEV.format(drops)} for *udp, drops in pods]
    networks += [{"dev": DEV.format(node)}] if node is not None else []
    return CounterSample(
        at=0, stat="", softirqs="CPU0\n", softnet="", own_cpu=0, networks=tuple(networks)
    )


def test_datagrams_of_all_pods_are_added() -> None:
    before = of_pods((100, 10, 5, 10, 3), (0, 0, 1000, 0, 0), node=7)
    after = of_pods((1100, 60, 6, 40, 5), (1, 0, 3000, 0, 0), node=8)
    found = procstat.datagrams(before, after, "lab")
    assert found is not None
    assert found.model_dump() == {
        "node": "lab", "sent": 2001, "delivered": 1001, "socket_drops": 30, "other_errors": 20,
        "device_drops": 3,
    }  # fmt: skip


def test_replies_are_sent_and_delivered_as_requests_are() -> None:
    """Both sides are summed: what is sent and not delivered was lost."""
    before = of_pods((0, 0, 0, 0, 0), (0, 0, 0, 0, 0))
    requests, replies = 1000, 990  # 10 requests were lost, and 5 replies
    client, server = (replies - 5, 0, requests, 0, 0), (requests - 10, 0, replies, 0, 0)
    found = procstat.datagrams(before, of_pods(client, server), "lab")
    assert found is not None and found.sent is not None
    assert found.sent - found.delivered == 15


def test_datagrams_are_known_only_where_they_were_read() -> None:
    without = of_pods(node=3)
    assert procstat.datagrams(without, without, "n") is None
    assert procstat.datagrams(stat(), stat(), "n") is None
    assert procstat.backward(without, without, "n") == []


def test_udp_counters_that_went_back_are_not_measured() -> None:
    before, after = of_pods((10, 0, 0, 0, 0)), of_pods((9, 0, 0, 0, 0))
    assert procstat.datagrams(before, after, "n") is None
    assert any("UDP" in words for words in procstat.backward(before, after, "n"))


@pytest.mark.parametrize(
    "text", ["Udp: InDatagrams\nUdp: x\n", "Udp: InDatagrams\n", "Udp: A\nUdp: 1\n"]
)
def test_udp_counters_that_cannot_be_read_are_an_error(text: str) -> None:
    odd = dataclasses.replace(of_pods((1, 0, 0, 0, 0)), networks=({"snmp": text, "dev": ""},))
    with pytest.raises(Refusal):
        procstat.datagrams(odd, odd, "n")


def test_counters_of_a_namespace_are_read_once_for_all_its_processes(tmp_path: Path) -> None:
    for pid, namespace in ((1, "net:[1]"), (2, "net:[1]"), (3, "net:[2]")):
        (tmp_path / f"{pid}/ns").mkdir(parents=True)
        (tmp_path / f"{pid}/ns/net").symlink_to(namespace)
    found = agent_procstat.networks_of([1, 2, 3, 4], tmp_path)
    assert list(found) == ["net:[1]", "net:[2]"]
    assert found["net:[2]"]["snmp"] == tmp_path / "3/net/snmp"


def test_datagrams_of_this_process_are_read() -> None:
    with ExitStack() as stack:
        networks = agent_procstat.networks_of([os.getpid()])
        counters = agent_procstat.Counters(agent_procstat.PROC, stack, [*networks.values()])
        before = CounterSample.of(counters.read().document())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("127.0.0.1", 0))
            for _ in range(5):
                here.sendto(b"x", here.getsockname())
                here.recv(1)
        after = CounterSample.of(counters.read().document())
    found = procstat.datagrams(before, after, "here")
    assert found is not None
    assert found.sent is not None and found.sent >= 5
    assert found.delivered >= 5
