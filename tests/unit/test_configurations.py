"""Configurations: the table of the built-in ones, and what a user's file may and may not say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from steer_tree import steer

from infra import configurations, steering
from infra.configurations import ROLES, Configuration, DeviceSettings, Settings
from infra.errors import InvalidInput
from infra.steering import Device

ALL = configurations.load()

NOTHING = ("none", 0)
FLOWS = ("none", 32768)

# name: nic, overlay, veth, pod (cpus, flows each), and the machine's flow table
TABLE = {
    "baseline": (NOTHING, NOTHING, NOTHING, NOTHING, 0),
    "rps": (("all", 0), ("all", 0), ("all", 0), NOTHING, 0),
    "rfs": (FLOWS, FLOWS, FLOWS, NOTHING, 32768),
    "rps-plus": (("all", 0), ("all", 0), ("all", 0), ("all", 0), 0),
    "rfs-plus": (FLOWS, FLOWS, FLOWS, FLOWS, 32768),
    "rps-7": (("7", 0), ("7", 0), ("7", 0), NOTHING, 0),
    "rps-plus-7": (("7", 0), ("7", 0), ("7", 0), ("7", 0), 0),
    "pipeline": (("first", 0), ("middle", 0), NOTHING, ("last", 0), 0),
}


def test_the_table_has_every_built_in_configuration():
    assert list(ALL) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_plan_of_a_built_in_configuration(name):
    *roles, table = TABLE[name]
    plan = steering.plan(
        ALL[name],
        owner="x",
        devices=[Device(role, ("d",)) for role in ROLES],
        cores=None,
        queue_core=None,
    )
    assert plan["sock_flow_entries"] == table
    assert [(rule["cpus"], rule["flows"]) for rule in plan["rules"]] == roles
    assert ALL[name].summary


def test_only_masks_and_stages_ask_for_cores():
    needs = {name: each.needs_cpus for name, each in ALL.items()}
    three = {"rps-7": 3, "rps-plus-7": 3}
    assert needs == dict.fromkeys(ALL, 1) | three | {"pipeline": 2}


# --- masks ---


def mask(text: str) -> Settings:
    return DeviceSettings(rps_cpus=text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", []),
        ("7", [0, 1, 2]),
        ("4", [2]),
        ("00000003", [0, 1]),
        ("1,0", [32]),
        ("1,00000000", [32]),
        ("1,0,0", [64]),
        ("00000000,00000003", [0, 1]),
        ("1,F", [0, 1, 2, 3, 32]),
        ("100000000", [32]),
    ],
)
def test_cpus_that_a_mask_names(text, cpus):
    assert sorted(mask(text).named_cpus) == cpus


@given(st.lists(st.from_regex(r"[0-9a-fA-F]{1,8}", fullmatch=True), min_size=1, max_size=8))
def test_masks_mean_to_the_model_what_they_mean_to_the_agent(groups):
    text = ",".join(groups)
    assert steer.mask_of(mask(text).named_cpus) == steer.parse_mask(text)


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_a_configuration_needs_its_highest_cpu(nic, pod):
    devices = {
        role: {"rps_cpus": steer.format_mask(steer.mask_of(cpus))}
        for role, cpus in (("nic", nic), ("pod", pod))
    }
    configuration = Configuration(name="own", **devices)
    assert configuration.named_cpus == nic | pod
    assert configuration.needs_cpus == max({0} | nic | pod) + 1


@pytest.mark.parametrize(
    "text", ["", "0x7", "g", "7,", ",7", "1,000000000", "-1", "7 ", "7\n", "All", "some", "٣"]
)
def test_what_is_no_mask_is_refused(text):
    with pytest.raises(ValidationError, match="none, all, first, middle, last or a hexadecimal"):
        mask(text)


def test_a_mask_ends_where_linux_ends():
    most = "f" * 2048
    assert len(mask(most).named_cpus) == 8192
    with pytest.raises(ValidationError, match="hexadecimal mask"):
        mask("1" + most)


def test_words_name_no_cpu():
    assert not any(mask(word).named_cpus for word in configurations.WORDS)


# --- a user's file ---


@pytest.fixture
def own(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "own.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path | str) -> str:
    with pytest.raises(InvalidInput) as refused:
        configurations.load(path)
    assert refused.value.exit_code == 2
    message = str(refused.value)
    assert message.startswith("configurations: ")
    assert str(path) in message
    assert len(message) < 600
    return message


def test_own_configurations_come_after_the_built_in(own):
    known = configurations.load(own("wide-7:\n  nic: {cpus: '1,00000000', flows: 64}\n"))
    assert list(known) == [*ALL, "wide-7"]
    assert known["wide-7"].nic.knobs == {"rps_cpus": "1,00000000", "rps_flow_cnt": 64}
    assert known["wide-7"].overlay == DeviceSettings()


def test_an_own_configuration_replaces_the_built_in_of_its_name_whole(own):
    known = configurations.load(own("rfs-plus:\n  nic: {cpus: all}\n"))
    assert known["rfs-plus"] == Configuration(name="rfs-plus", nic={"rps_cpus": "all"})
    assert known["rfs"] == ALL["rfs"]
    assert configurations.load()["rfs-plus"] == ALL["rfs-plus"]


def test_an_empty_body_is_no_steering(own):
    assert configurations.load(own("calm:\n"))["calm"] == Configuration(name="calm")


def test_the_largest_counts_that_the_agent_takes_are_taken(own):
    text = f"big: {{nic: {{flows: {2**30}}}, sock_flow_entries: {2**29}}}"
    big = configurations.load(own(text))["big"]
    plan = steering.plan(
        big, owner="x", devices=[Device("nic", ("eth1",))], cores=None, queue_core=None
    )
    assert steer.parse_plan(plan).machine == {"rps_sock_flow_entries": 2**29}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: {nic: {cpus: 7}}", ("x.nic.rps_cpus", "in quotes", "none, all,", "not 7")),
        ("x: {nic: {cpus: 0x7}}", ("x.nic.rps_cpus", "in quotes", "not 7")),
        (
            "x: {nic: {cpus: none, flows: -1}}",
            ("x.nic.rps_flow_cnt", "from 0 to 1073741824", "not -1"),
        ),
        ("x: {pod: {flows: 1073741825}}", ("x.pod.rps_flow_cnt", "1073741824, not 1073741825")),
        ("x: {nic: {flows: 1.5}}", ("x.nic.rps_flow_cnt", "whole number", "not 1.5")),
        ("x: {nic: {flows: true}}", ("x.nic.rps_flow_cnt", "whole number", "not True")),
        ("x: {nic: {flows: many}}", ("x.nic.rps_flow_cnt", "whole number", "not 'many'")),
        ("x: {nic: {flows: null}}", ("x.nic.rps_flow_cnt", "whole number", "not None")),
        ("x: {veth: {cpus: '0x7'}}", ("x.veth.rps_cpus", "hexadecimal mask", "not '0x7'")),
        ("x: {veth: {cpus: [all]}}", ("x.veth.rps_cpus", "in quotes", "not ['all']")),
        (f"x: {{nic: {{cpus: '{'f' * 9999}'}}}}", ("x.nic.rps_cpus", "hexadecimal mask", "'fff")),
        ("x: {nic: {cpu: all}}", ("x.nic.cpu: unknown key", "rps_cpus, ", "rps_flow_cnt, ")),
        ("x: {nic: all}", ("x.nic: must map rps_cpus, rps_flow_cnt", "not 'all'")),
        ("x: {nic: }", ("x.nic: must map rps_cpus, rps_flow_cnt", "not None")),
        (
            "x: {sock_flow_entries: 536870913}",
            ("x.machine.rps_sock_flow_entries", "to 536870912, not 53687"),
        ),
        ("x: {sock_flow_entrys: 1}", ("x.sock_flow_entrys: unknown", "mean sock_flow_entries?")),
        ("x: {name: y}", ("x.name: unknown key", "machine, nic, overlay, pod")),
        ("x: {7: {}}", ("x.7: unknown key",)),
        ("x: {summary: 7}", ("x.summary", "must be a valid string, not 7")),
        ("x: all", ("x: must map summary, nic, overlay, veth, pod, machine, not 'all'",)),
        ("x: []", ("x: must map summary", "not []")),
        ("Rps: {}", ("the name 'Rps'", "lower-case")),
        ("rps_7: {}", ("the name 'rps_7'",)),
        ("-x: {}", ("the name '-x'",)),
        ("7: {}", ("the name 7", "in quotes")),
        ("on: {}", ("the name True", "in quotes")),
        ("", ("must map names to steering, as configurations.yaml does",)),
        ("- rps", ("must map names to steering",)),
        ("rps", ("must map names to steering",)),
        ("x: [", ("not readable YAML", "line 1")),
        ("x: {}\ny: {}\nx: {}", ("x", "line 3")),
        ("x: 2024-13-45", ("x: must map summary", "2024-13-45")),
        ("x: !!python/object/apply:os.system [true]", ("not readable YAML",)),
        ("x: " + "[" * 9999, ("not readable YAML",)),
        (b"x: \xff\xfe", ("not readable YAML", "utf-8")),
        (b"x: \x00", ("not readable YAML",)),
    ],
)
def test_bad_file_is_refused_by_place_value_and_what_is_allowed(own, text, said):
    message = refusal(own(text))
    for words in said:
        assert words in message


def test_absent_file_is_named(tmp_path):
    assert "there is no file" in refusal(tmp_path / "none.yaml")


def test_folder_is_no_file(tmp_path):
    assert "not readable" in refusal(tmp_path)


@given(st.text(max_size=40))
def test_no_name_gets_past_that_a_stack_could_not_have(text):
    try:
        configurations._configuration(Path("own.yaml"), text, None)
    except InvalidInput:
        return
    assert text.isascii()
    assert text[0].isalpha()
    assert text == text.lower()
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_configuration_does_not_change():
    with pytest.raises(ValidationError):
        ALL["rps"].nic = DeviceSettings()
    with pytest.raises(ValidationError):
        ALL["rps"].nic.rps_cpus = "none"


def test_definitions_stay_what_they_were() -> None:
    """They are in records: another hash would make runs of before look unlike."""
    assert ALL["rfs-plus"].definition == "3feb704b9a0e"
    assert ALL["pipeline"].definition == "c47562023bec"


def test_a_state_has_the_document_that_it_always_had() -> None:
    """A stack's digest, the trigger of its measurement, is made of it."""
    flows = {"cpus": "none", "flows": 32768}
    assert ALL["rfs"].model_dump(mode="json") == {
        "name": "rfs",
        "summary": ALL["rfs"].summary,
        **dict.fromkeys(("nic", "overlay", "veth"), flows),
        "pod": {"cpus": "none", "flows": 0},
        "sock_flow_entries": 32768,
    }


def test_the_kernel_s_names_and_the_old_keys_are_one(own) -> None:
    new = configurations.load(own("a: {nic: {rps_cpus: all, rps_flow_cnt: 64}}"))["a"]
    old = configurations.load(own("a: {nic: {cpus: all, flows: 64}}"))["a"]
    assert new.definition == old.definition
    with pytest.raises(InvalidInput, match=r"nic.*rps_cpus and cpus"):
        configurations.load(own("a: {nic: {rps_cpus: all, cpus: all}}"))


def test_the_machine_s_settings_have_a_key_of_their_own(own) -> None:
    new = configurations.load(own("a: {machine: {rps_sock_flow_entries: 64}}"))["a"]
    old = configurations.load(own("a: {sock_flow_entries: 64}"))["a"]
    assert new == old
    assert new.definition == old.definition
    with pytest.raises(InvalidInput, match="sock_flow_entries is given twice"):
        configurations.load(own("a: {sock_flow_entries: 64, machine: {sock_flow_entries: 1}}"))
    with pytest.raises(InvalidInput, match=r"machine.*rps_sock_flow_entries and sock_flow"):
        configurations.load(own("a: {sock_flow_entries: 1, machine: {rps_sock_flow_entries: 1}}"))
