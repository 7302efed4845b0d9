"""The agent's pure parts: masks, counts, placement, and the validation of plans."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steer_tree import plan, rule, steer

MASKS = st.integers(min_value=0, max_value=2**300)
TWO = steer.Cpus([0, 1], [0, 1], [])


@given(MASKS)
def test_a_mask_survives_formatting(mask: int) -> None:
    assert steer.parse_mask(steer.format_mask(mask)) == mask


@given(MASKS)
def test_a_mask_is_written_in_groups_that_the_kernel_takes(mask: int) -> None:
    first, *groups = steer.format_mask(mask).split(",")
    assert all(len(group) == 8 for group in groups)
    assert 1 <= len(first) <= 8
    assert first == "0" or first.lstrip("0")


@given(MASKS, st.integers(min_value=0, max_value=4))
def test_the_kernels_padding_means_nothing(mask: int, groups: int) -> None:
    head, *rest = steer.format_mask(mask).split(",")
    padded = ",".join(["00000000"] * groups + [head.zfill(8), *rest])
    assert steer.parse_mask(padded) == mask
    assert steer.KNOBS["rps_cpus"].equal(padded, steer.format_mask(mask), 0)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("0", 0),
        ("00000003", 3),
        ("ff", 255),
        ("A", 10),
        ("1,00000000", 1 << 32),
        ("1,2", 2**32 + 2),
    ],
)
def test_masks_as_the_kernel_reads_them(text: str, mask: int) -> None:
    assert steer.parse_mask(text) == mask


@pytest.mark.parametrize("text", ["", "0x3", "3,", ",3", "g", "1,123456789", "-1", "3 ", "1\n"])
def test_what_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a hexadecimal mask"):
        steer.parse_mask(text)


@given(st.integers(min_value=1, max_value=2**30))
def test_flows_round_up_to_the_next_power_of_two(entries: int) -> None:
    rounded = steer.rounded_flows(entries)
    assert rounded & (rounded - 1) == 0
    assert entries <= rounded < 2 * entries


@pytest.mark.parametrize(
    ("entries", "rounded"), [(0, 0), (1, 1), (3, 4), (1000, 1024), (4096, 4096)]
)
def test_flows_round_as_measured(entries: int, rounded: int) -> None:
    assert steer.rounded_flows(entries) == rounded


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-1\n", [0, 1]), ("0,2-4,8", [0, 2, 3, 4, 8]), ("\n", []), ("(null)", [])]
)
def test_cpu_lists(text: str, cpus: list[int]) -> None:
    assert steer.parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("cores", "first", "middle", "last"),
    [
        ([5], [5], [], [5]),
        ([0, 1], [0], [], [1]),
        ([0, 1, 2], [0], [1], [2]),
        ([0, 1, 2, 3], [0], [1], [2, 3]),
        ([2, 3, 4, 5, 6, 7], [2], [3, 4], [5, 6, 7]),
    ],
)
def test_placement(cores: list[int], first: list[int], middle: list[int], last: list[int]) -> None:
    stages = [steer.place(word, cores) for word in ("first", "middle", "last")]
    assert stages == [first, middle, last]
    assert steer.place("all", cores) == cores
    assert steer.place("none", cores) == []


@given(st.lists(st.integers(0, 500), min_size=2, max_size=64, unique=True))
def test_the_stages_share_out_every_core_once(cores: list[int]) -> None:
    stages = [steer.place(word, cores) for word in ("first", "middle", "last")]
    assert [core for stage in stages for core in stage] == cores
    assert len(stages[0]) == 1
    assert len(stages[2]) - len(stages[1]) in (0, 1)


@given(MASKS, MASKS, MASKS)
def test_a_mask_may_only_lose_cpus_that_the_kernel_cannot_use(
    wanted: int, got: int, unusable: int
) -> None:
    texts = [steer.format_mask(mask) for mask in (wanted, got)]
    lost, gained = wanted & ~got, got & ~wanted
    assert steer.KNOBS["rps_cpus"].equal(*texts, unusable) == (
        not gained and lost & unusable == lost
    )


@pytest.mark.parametrize(
    ("wanted", "got", "unusable", "same"),
    [
        ("3", "00000000,00000003", 0, True),
        ("f", "7", 0b1000, True),
        ("f", "7", 0, False),
        ("3", "1", 0, False),
        ("1", "3", 0b10, False),
    ],
)
def test_read_back_of_a_mask(wanted: str, got: str, unusable: int, same: bool) -> None:
    assert steer.KNOBS["rps_cpus"].equal(wanted, got, unusable) is same


def test_read_back_of_a_count_is_the_rounded_one() -> None:
    assert steer.KNOBS["rps_flow_cnt"].equal("1000", "1024", 0)
    assert not steer.KNOBS["rps_flow_cnt"].equal("1000", "1000", 0)
    assert not steer.KNOBS["rps_sock_flow_entries"].equal("1024", "2048", 0)


def test_offline_and_isolated_cpus_are_unusable() -> None:
    assert steer.Cpus([0, 1, 2], [0, 1, 2, 3], [2]).unusable == 0b1100


def test_a_plan_is_read() -> None:
    parsed = steer.parse_plan(
        plan(
            rule("nic", "eth1", cpus="all", flows=32768, namespace="/run/netns/x", generation="g"),
            rule("veth", "cali*"),
            rule("veth", "eth9", optional=False),
            cores=[0, 1],
            sock_flow_entries=32768,
        )
    )
    assert parsed.owner == "rfs-plus-4/server"
    assert (parsed.cores, parsed.machine, parsed.lease_seconds) == (
        [0, 1],
        {"rps_sock_flow_entries": 32768},
        None,
    )
    assert [r.optional for r in parsed.rules] == [False, True, False]
    assert parsed.rules[0][:3] == ("nic", "/run/netns/x", ["eth1"])
    assert parsed.rules[0].set == {"rps_cpus": "all", "rps_flow_cnt": 32768}


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"version": 2}, "version", "2"),
        ({"version": True}, "version", "true"),
        ({"owner": "a b"}, "owner", '"a b"'),
        ({"owner": ""}, "owner", '""'),
        ({"owner": "x" * 129}, "owner", "x" * 129),
        ({"cores": []}, "cores", "[]"),
        ({"cores": [0, "1"]}, "cores", '[0, "1"]'),
        ({"cores": [1, 1]}, "cores", "[1, 1]"),
        ({"queue_core": -1}, "queue_core", "-1"),
        ({"queue_cores": []}, "queue_cores", "[]"),
        ({"queue_cores": [0, -1]}, "queue_cores", "[0, -1]"),
        ({"sock_flow_entries": 2**29 + 1}, "sock_flow_entries", str(2**29 + 1)),
        ({"sock_flow_entries": 1.0}, "sock_flow_entries", "1.0"),
        ({"lease_seconds": 0}, "lease_seconds", "0"),
        ({"rules": {}}, "rules", "{}"),
        ({"colour": 1}, "colour", "unknown"),
    ],
)
def test_a_bad_plan_is_refused_by_key_and_value(change: dict, key: str, value: str) -> None:
    with pytest.raises(steer.SteerError) as refusal:
        steer.parse_plan({**plan(), **change})
    assert refusal.value.status == 2
    assert f"plan: {key} " in str(refusal.value)
    assert value in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"role": "bridge"}, "role", '"bridge"'),
        ({"namespace": "x-server"}, "namespace", '"x-server"'),
        ({"namespace": "/run/\ud800"}, "namespace", "ud800"),
        ({"devices": []}, "devices", "[]"),
        ({"devices": "eth1"}, "devices", '"eth1"'),
        ({"devices": ["../eth1"]}, "devices", '["../eth1"]'),
        ({"cpus": "some"}, "cpus", '"some"'),
        ({"cpus": 7}, "cpus", "7"),
        ({"cpus": "0x7"}, "cpus", '"0x7"'),
        ({"flows": -1}, "flows", "-1"),
        ({"flows": 2**30 + 1}, "flows", str(2**30 + 1)),
        ({"flows": False}, "flows", "false"),
        ({"optional": 1}, "optional", "1"),
        ({"pod": 1}, "pod", "1"),
        ({"role": "pod", "devices": ["auto"]}, "devices", '["auto"]'),
        ({"mask": "3"}, "mask", "unknown"),
    ],
)
def test_a_bad_rule_is_refused_by_key_and_value(change: dict, key: str, value: str) -> None:
    with pytest.raises(steer.SteerError) as refusal:
        steer.parse_plan(plan(rule("nic", "eth0"), {**rule("nic", "eth1"), **change}))
    assert refusal.value.status == 2
    assert f"rules[1].{key} " in str(refusal.value)
    assert value in str(refusal.value)


@pytest.mark.parametrize("missing", ["role", "devices", "cpus", "flows"])
def test_a_missing_key_is_named(missing: str) -> None:
    half = rule("nic", "eth1")
    del half[missing]
    with pytest.raises(steer.SteerError, match=rf"rules\[0\]\.{missing} is missing"):
        steer.parse_plan(plan(half))


@pytest.mark.parametrize(
    ("fields", "key"),
    [(steer.PLAN_FIELDS, key) for key in steer.PLAN_FIELDS]
    + [(steer.RULE_FIELDS, key) for key in steer.RULE_FIELDS],
)
def test_null_is_taken_where_the_field_allows_it_and_nowhere_else(fields: dict, key: str) -> None:
    ruled = fields is steer.RULE_FIELDS
    document = plan({**rule("nic", "d"), key: None}) if ruled else {**plan(), key: None}
    if fields[key].nullable:
        steer.parse_plan(document)
        return
    with pytest.raises(steer.SteerError, match=f"{key} is null"):
        steer.parse_plan(document)


def test_the_words_of_a_field_decide_nothing() -> None:
    check = lambda v: v == 1  # noqa: E731
    with pytest.raises(steer.SteerError):
        steer.read_fields({"a": None}, {"a": steer.Field(check, "1 or null")}, "")
    assert steer.read_fields({}, {"a": steer.Field(check, "1", nullable=True)}, "") == {"a": None}


def test_a_plan_without_end_is_refused_in_few_words() -> None:
    with pytest.raises(steer.SteerError, match="rules is") as refusal:
        steer.parse_plan(plan(*[rule("nic", "d")] * (steer.MAX_RULES + 1)))
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("document", [[], "plan", 3, True])
def test_a_plan_that_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(steer.SteerError, match="must be a JSON object"):
        steer.parse_plan(document)


def masks(*rules: dict, cpus: object = TWO, **more: object) -> list[int]:
    values = steer.wanted_values(steer.parse_plan(plan(*rules, **more)), cpus)
    return [steer.parse_mask(one["rps_cpus"].text) for one in values.rules]


def test_words_and_masks_become_masks() -> None:
    words = [
        rule("nic", "d", cpus=word) for word in ("none", "all", "first", "middle", "last", "2")
    ]
    assert masks(*words) == [0, 3, 1, 0, 2, 2]
    assert masks(rule("pod", "d", cpus="all"), cores=[1]) == [2]


def test_only_an_unsteered_nic_gets_the_queue_core() -> None:
    roles = [rule(role, "d", cpus="none") for role in ("nic", "overlay", "veth", "pod")]
    assert masks(*roles, queue_core=0) == [1, 0, 0, 0]
    assert masks(rule("nic", "d", cpus="last"), queue_core=0) == [2]


def test_queues_of_an_unsteered_nic_get_their_cores_in_turn() -> None:
    rules = [rule("nic", "d", cpus=word) for word in ("none", "all")]
    values = steer.wanted_values(steer.parse_plan(plan(*rules, queue_cores=[1, 0])), TWO)
    texts = [[one["rps_cpus"].of_queue(n).text for n in range(3)] for one in values.rules]
    assert texts == [["2", "1", "2"], ["3", "3", "3"]]


@pytest.mark.parametrize(
    ("rules", "more", "words"),
    [
        ([], {"queue_cores": [0, 4]}, "queue_cores is 4: CPU 4 does not exist"),
        ([rule("nic", "d", cpus="7")], {}, r'rules\[0\].cpus is "7": CPU 2 does not exist'),
        ([rule("nic", "d", cpus="1,00000000")], {}, "CPU 32 does not exist"),
        ([], {"cores": [0, 2]}, r"cores is \[0, 2\]: CPU 2 does not exist"),
        ([], {"queue_core": 4}, "queue_core is 4: CPU 4 does not exist"),
    ],
)
def test_a_cpu_that_the_machine_does_not_have_is_refused(
    rules: list[dict], more: dict, words: str
) -> None:
    with pytest.raises(steer.SteerError, match=words) as refusal:
        masks(*rules, **more)
    assert refusal.value.status == 2


EIGHT = steer.Cpus([0, 1, 2, 3, 4, 5], list(range(8)), [4, 5])


@pytest.mark.parametrize(
    ("rules", "more", "named"),
    [
        ([rule("nic", "d", cpus="10")], {}, ["CPU 4 is isolated"]),
        ([rule("nic", "d", cpus="30")], {}, ["CPUs 4,5 are isolated"]),
        ([rule("nic", "d", cpus="c0")], {}, ["CPUs 6,7 are offline"]),
        ([rule("nic", "d", cpus="60")], {}, ["CPU 6 is offline", "CPU 5 is isolated"]),
        ([rule("nic", "d", cpus="all")], {"cores": [4, 5]}, ["CPUs 4,5 are isolated"]),
        ([rule("nic", "d", cpus="none")], {"queue_core": 5}, ["CPU 5 is isolated"]),
        ([rule("nic", "d", cpus="none")], {"queue_cores": [0, 5]}, ["CPU 5 is isolated"]),
    ],
)
def test_a_mask_of_no_usable_cpu_is_refused_and_each_of_them_named(
    rules: list[dict], more: dict, named: list[str]
) -> None:
    with pytest.raises(steer.SteerError) as refusal:
        masks(rule("veth", "v", cpus="1"), *rules, cpus=EIGHT, **more)
    assert refusal.value.status == 3
    assert "rules[1].cpus" in str(refusal.value)
    assert all(words in str(refusal.value) for words in named)


def test_placement_words_count_the_cpus_that_take_packets() -> None:
    words = ("all", "first", "middle", "last")
    rules = [rule("nic", "d", cpus=word) for word in words]
    assert masks(*rules, cpus=EIGHT) == [0b1111, 0b0001, 0b0010, 0b1100]
    assert masks(*rules, cpus=EIGHT, cores=[4, 0, 1, 7]) == [0b11, 0b01, 0b00, 0b10]
    first_isolated = steer.Cpus([0, 1, 2, 3], [0, 1, 2, 3], [0])
    assert masks(*rules, cpus=first_isolated) == [0b1110, 0b0010, 0b0100, 0b1000]


def test_a_mask_that_mixes_loses_the_unusable_cpus_and_says_which() -> None:
    parsed = steer.parse_plan(plan(rule("nic", "d", cpus="d1"), rule("veth", "v", cpus="3")))
    wanted = steer.wanted_values(parsed, EIGHT)
    assert [one["rps_cpus"].text for one in wanted.rules] == ["1", "3"]
    (words,) = steer.reductions(parsed, EIGHT)
    assert "d1 becomes 1" in words
    assert "CPUs 6,7 are offline" in words
    assert "CPU 4 is isolated" in words
    explicit = steer.parse_plan(plan(rule("veth", "v", cpus="all"), cores=[1, 4]))
    assert steer.wanted_values(explicit, EIGHT).rules[0]["rps_cpus"].text == "2"
    assert len(steer.reductions(explicit, EIGHT)) == 1
    assert steer.reductions(steer.parse_plan(plan(rule("nic", "d", cpus="all"))), EIGHT) == []


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_cpus_reads_back(cpus: set[int]) -> None:
    assert steer.parse_cpu_list(steer.as_list(cpus)) == sorted(cpus)
    assert steer.cpus_of(steer.mask_of(cpus)) == sorted(cpus)


# --- guards ---


def change(name: str, found: int, wanted: int, device: str = "eth0 rx-0") -> tuple:
    return (
        steer.Setting(steer.KNOBS[name], Path("/sys") / device / name, device),
        str(found),
        str(wanted),
    )


@pytest.mark.parametrize(
    ("changes", "available", "fits"),
    [
        ([change("rps_flow_cnt", 0, 2**20)], 200 * 10**6, True),  # 12.6 MB
        ([change("rps_flow_cnt", 0, 2**20)], 100 * 10**6, False),
        ([change("rps_flow_cnt", 0, 2**20 - 5)], 100 * 10**6, False),  # the kernel rounds it up
        ([change("rps_flow_cnt", 2**20, 2**20)], 10**6, True),  # it has that already
        ([change("rps_flow_cnt", 2**20, 0)], 10**6, True),
        ([change("rps_flow_cnt", 0, 2**14, f"rx-{n}") for n in range(64)], 100 * 10**6, False),
        ([change("rps_sock_flow_entries", 0, 2**20)], 100 * 10**6, True),  # 4.2 MB
        ([change("rps_sock_flow_entries", 0, 2**22)], 100 * 10**6, False),
        ([change("rps_cpus", 0, 3)], 1, True),
        ([change("rps_flow_cnt", 0, 2**30)], None, True),  # nothing is known
    ],
)
def test_flow_tables_may_take_a_tenth_of_the_free_memory(
    changes: list, available: int | None, fits: bool
) -> None:
    if fits:
        steer.refuse_exhaustion(changes, available)
        return
    with pytest.raises(steer.SteerError) as refusal:
        steer.refuse_exhaustion(changes, available)
    assert refusal.value.status == 3
    assert "10.0 MB" in str(refusal.value)


@pytest.mark.parametrize(
    ("release", "faulty"),
    [
        ("6.17.13", False),
        ("6.18.0-rc3", True),
        ("6.18.0", True),
        ("6.18.9-200.fc43.x86_64", True),
        ("6.18.15", True),
        ("6.18.16", False),
        ("6.18.44-fc-v657", False),
        ("6.19.5-arch1-1", True),
        ("6.19.6", False),
        ("6.19-rc8", True),
        ("7.0.0-rc1", True),
        ("7.0.0-rc2", False),
        ("7.0.0-rc10", False),
        ("7.0.0", False),
        ("5.15.0-1.el8", False),
        ("", False),
    ],
)
def test_kernels_that_tables_of_unequal_size_can_crash(release: str, faulty: bool) -> None:
    assert steer.has_table_fault(release) is faulty


SIZES = st.sampled_from([0, 64, 128, 4096])


@given(st.lists(SIZES, min_size=1, max_size=6), SIZES)
def test_tables_of_one_device_never_differ_in_size_on_the_way(found: list[int], to: int) -> None:
    """A queue without a table is safe; what the machine had before may differ."""
    names = [f"eth0 rx-{n}" for n in range(len(found))]
    changes = [
        change("rps_flow_cnt", size, to, name)
        for name, size in zip(names, found, strict=True)
        if size != to
    ]
    steps = steer.without_unequal_tables(changes)
    held = {change("rps_flow_cnt", 0, 0, name)[0]: size
            for name, size in zip(names, found, strict=True)}  # fmt: skip
    before = {*held.values(), 0}
    for setting, expected, wanted in steps:
        assert held[setting] == int(expected)  # so a rollback in reverse takes the same way
        held[setting] = int(wanted)
        assert {*held.values(), 0} == {0, to} or {*held.values()} <= before
    assert set(held.values()) == {to}


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth9\t00000000\t0138A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth1\t00000000\t0138A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t00000000\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
"""


def test_the_default_route_of_least_metric_names_the_nic() -> None:
    assert steer.default_route_device(ROUTES) == "eth1"
    assert steer.default_route_device(ROUTES.splitlines()[0]) is None
    assert steer.default_route_device("") is None


def a_route(device: str, flags: str = "0003", metric: int = 0, mask: str = "00000000") -> str:
    return f"{device}\t00000000\t0138A8C0\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("routes", "device"),
    [
        (a_route("*", "0201", 5) + a_route("eth1", metric=100), "eth1"),
        (a_route("eth0", "0002", 5) + a_route("eth1", metric=100), "eth1"),
        (a_route("*", "0201", 5), None),
        (a_route("eth0", mask="00000080"), "eth0"),
        (a_route("tun0", mask="00000080") + a_route("eth0", metric=100), "eth0"),
        (a_route("eth0", mask="000000FF"), None),
    ],
)
def test_a_default_route_that_rejects_or_is_down_names_no_nic(
    routes: str, device: str | None
) -> None:
    assert steer.default_route_device(routes) == device


def test_names_come_in_the_order_of_the_patterns() -> None:
    names = ["cali2", "veth0", "cali1", "eth0"]
    assert steer.matching(["veth*", "cali*"], names) == ["veth0", "cali1", "cali2"]
