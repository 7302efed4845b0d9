"""`nodes advise`: decisions from texts of counters as the lab and a node have them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from analysis.schema import Confounders
from experiments.host import calls, nodes
from experiments.host.nodes import Choice
from experiments.run import advise, tune_plan
from experiments.run.advise import Reading, fitting
from infra import configurations
from infra.errors import PrerequisiteMissing

SECONDS = 20
# Ticks of 20 s: user, nice, system, idle, iowait, irq, softirq. The lab's two cores with the baseline, measured at
# 4 pairs: the first has the NIC's queue, the second one the clients and the readers.
FULL = (0, 0, 14, 8, 0, 0, 1978)
OTHER = (48, 0, 620, 382, 0, 0, 950)
IDLE = (10, 0, 10, 1960, 0, 0, 20)
APPLICATION = (1900, 0, 60, 20, 0, 0, 20)
# Rows of softnet_stat over the window: processed, dropped, squeezed.
PACKETS = ((26_341_000, 1944, 0), (2_244_000, 0, 0))


def edge(
    at: float, cores: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """What the agent reads at a moment: the texts of /proc."""
    stat = "".join(f"cpu{n} {' '.join(map(str, row))} 0 0 0\n" for n, row in enumerate(cores))
    softnet = "".join(
        " ".join(f"{value:08x}" for value in (*row, *[0] * 9, number)) + "\n"
        for number, row in enumerate(rows)
    )
    header = " ".join(f"CPU{n}" for n in range(len(cores)))
    received = " ".join(str(row[0] // 64) for row in rows)
    softirqs = f"      {header}\nNET_RX: {received}\n"
    return {"at": at, "own_cpu": 0.0, "stat": stat, "softirqs": softirqs, "softnet": softnet}


def reading(
    cores: Sequence[Sequence[int]] = (FULL, OTHER),
    *,
    flows: Sequence[int] = (10**9,) * 4,
    packets: Sequence[Sequence[int]] = PACKETS,
    gro: Mapping[str, str] | None = None,
    lab: bool = False,
    **more: Any,
) -> Reading:
    """A node with a NIC of one queue and a pod for each flow."""
    rows = list(itertools.islice(itertools.cycle(packets), len(cores)))
    zeros = [[0] * len(row) for row in cores]
    pods = [f"/run/netns/cni-{number}" for number in range(len(flows))]
    known = gro or {"nic": "on", "overlay": "on"}
    places = [("nic", None, "eth1"), ("overlay", None, "vxlan.calico")]
    answer = {
        "queues": [
            {"role": role, "namespace": None, "device": name, "queue": "rx-0", "rps_cpus": "0", "rps_flow_cnt": 0}
            for role, _, name in places
        ],
        "devices": [
            {"role": role, "namespace": None, "device": name, "gro": known[role]} for role, _, name in places
        ],
        "cpus": {"online": [*range(len(cores))], "present": [], "isolated": []},
        "edges": [
            edge(100.0, zeros, [(0, 0, 0) for _ in rows]),
            edge(100.0 + SECONDS, cores, rows),
        ],
        "plan": nodes.plan(configurations.load()["baseline"], Choice("baseline")),
        "traffic": [
            {"role": role, "namespace": path, "device": name, "rx_bytes": size, "rx_packets": 9, "rx_dropped": 0}
            for role, path, name, size in (
                *((*place, 10**10) for place in places),
                *(("pod", pod, "eth0", size) for pod, size in zip(pods, flows, strict=True)),
            )
        ],
        "flows": [
            {"namespace": pod, "received": [size]}
            for pod, size in [*zip(pods, flows, strict=True)][:4]
        ],
        "cpu_seconds": 0.02,
        "warnings": [],
        **more,
    }  # fmt: skip
    calls._Answer.model_validate(answer)
    empty = Confounders(nic_interrupts={})
    return Reading.of(answer, (empty, empty), lab=lab)


def names(read: Reading) -> list[str]:
    return [arm.name for arm, _ in advise.advise(read).arms]


def test_few_flows_get_stages_some_their_readers_and_many_the_hash() -> None:
    first = {pairs: names(reading(flows=[10**9] * pairs))[:1] for pairs in (1, 2, 4, 8, 16)}
    assert first == {1: [], 2: ["pipeline"], 4: ["rfs"], 8: ["rfs"], 16: ["rps-plus"]}


def test_one_flow_is_cut_into_stages_where_another_core_is_idle() -> None:
    assert "one flow" in advise.advise(reading(flows=[10**9])).why
    assert names(reading([FULL, IDLE], flows=[10**9]))[0] == "pipeline"


@pytest.mark.parametrize(
    ("cores", "why"),
    [
        ([IDLE, IDLE], "no core is full"),
        ([APPLICATION, IDLE], "user time"),
        ([FULL, FULL], "so are all others"),
    ],
)
def test_a_node_that_steering_cannot_help_is_left_alone(cores: Any, why: str) -> None:
    read = reading(cores)
    found = advise.document(advise.advise(read), read)
    assert found["advice"] == "leave"
    assert why in found["why"]
    assert found["command"] == ""
    assert "leave it" in advise.text(found)


def test_work_that_only_applications_can_make_room_for_is_raced_with_a_warning() -> None:
    found = advise.advise(reading([FULL, APPLICATION]))
    assert found.arms[0][0].name == "rfs"
    assert "applications pay" in found.why


def test_a_core_that_is_full_with_an_application_does_not_hide_one_full_with_packets() -> None:
    busy = (1990, 0, 10, 0, 0, 0, 0)
    read = reading([busy, FULL, IDLE, IDLE], flows=[10**9] * 8)
    found = advise.document(advise.advise(read), read)
    assert found["evidence"]["full_core"] == 1
    assert found["bottleneck"].startswith("core 1 was full")
    assert found["advice"] == "race"


def test_gro_comes_first_unless_the_lab_has_it_off_on_purpose() -> None:
    off = {"nic": "off", "overlay": "off"}
    assert names(reading(gro=off))[:2] == ["gro-nic-on", "gro-overlay-on"]
    assert names(reading(gro=off, lab=True))[0] == "rfs"
    # a lab of the form stock emulates nothing
    assert names(reading(gro={"nic": "off", "overlay": "on"}, lab=True))[0] == "gro-nic-on"


def test_losses_bring_a_longer_backlog_and_a_larger_budget() -> None:
    lost = ((10_000_000, 20_000, 0), (2_000_000, 0, 0))
    assert "backlog" in names(reading(packets=lost))[:4]
    squeezed = ((10_000_000, 0, 9_000), (2_000_000, 0, 0))
    idle = reading([IDLE, IDLE], packets=squeezed)
    assert names(idle) == ["budget"]
    assert "no core is full" in advise.advise(idle).why
    # a longer backlog does not relieve a full core
    assert names(reading([FULL, FULL], packets=lost)) == []


def test_flows_that_carry_next_to_nothing_do_not_count() -> None:
    assert reading(flows=[10**9, 10**9, 10**5, 10**5]).hot_flows == 2
    # pods beyond those whose connections are counted have one each
    assert reading(flows=[10**9] * 16).hot_flows == 15


def test_only_what_the_node_can_have_and_does_not_have_is_suggested() -> None:
    read = reading(flows=[10**9] * 16)
    asked: list[dict[str, Any]] = []

    def preview(plan: dict[str, Any]) -> dict[str, Any]:
        asked.append(plan)
        if len(asked) == 1:
            raise PrerequisiteMissing("no CPU for it")
        return {"changes": [{}] if len(asked) == 2 else []}

    found = fitting(advise.advise(read), read, preview)
    assert [arm.name for arm, _ in found.arms] == ["pipeline"]
    assert found.left_out == [
        ("rps-plus", "no CPU for it"),
        ("rfs-plus", "is set already"),
        ("rps", "is set already"),
    ]
    # the devices of the reading, with the values of the suggestion
    wanted = nodes.planned(Choice("rps-plus"))
    assert asked[0] == wanted


def test_the_command_names_what_tune_knows_and_the_evidence_has_figures() -> None:
    read = reading(gro={"nic": "off", "overlay": "off"})
    found = advise.document(fitting(advise.advise(read), read, lambda _: {"changes": [1]}), read)
    words = found["command"].split()
    arms = tune_plan.chosen(words[words.index("--configurations") + 1])
    assert [arm.name for arm in arms][1:] == [one["name"] for one in found["configurations"]]
    assert len(arms) == advise.MOST + 1
    evidence = found["evidence"]
    assert evidence["full_core"] == 0
    assert evidence["cores"][0]["softirq"] == 98.9
    assert evidence["cores"][0]["packets_per_second"] == 26_341_000 / SECONDS
    assert evidence["spare_cores"] == 0.191
    assert evidence["dropped_per_second"] == 97.2
    assert [one["gro"] for one in evidence["devices"]] == ["off", "off"]
    assert found["reader_cpu_percent"] == 0.1
    said = advise.text(found)
    for figure in (
        "core 0",
        "99 %",
        "92 %",
        "eth1 (nic): receive queues 1",
        "GRO off",
        "at least 4 flows",
    ):
        assert figure in said
    study = reading(gro={"nic": "off", "overlay": "off"}, lab=True)
    assert advise.document(advise.advise(study), study)["command"].endswith("-c lab.form=study")
