"""The state of a stack: what its name and keys say, what is refused and in which words."""

from __future__ import annotations

import contextvars
import json
import os
from pathlib import Path

import pulumi
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from experiments.targets.lab import requirements
from infra import config, configurations, cores, keys, reference, settings
from infra.cores import Cores
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.settings import ALL_KEYS, KEYS, SECTIONS, StackSettings

ROOT = Path(__file__).resolve().parents[2]
FOUR = (0, 1, 2, 3)
KNOWN = configurations.load()
FROM_THE_NAME = {"configuration", "replicas"}
IMAGES = '{"iperf3": "registry.local:5000/iperf3:2", "steering": "registry.local:5000/steering:2"}'

NAMES = st.sampled_from(list(KNOWN))
COUNTS = st.integers(1, 1024)


def state(
    stack: str = "rfs-plus-4", online: tuple[int, ...] = FOUR, **values: str
) -> StackSettings:
    return config.state(stack, values, online)


def refusal(stack: str = "rfs-plus-4", online: tuple[int, ...] = FOUR, **values: str) -> str:
    with pytest.raises(InvalidInput) as refused:
        state(stack, online, **values)
    assert refused.value.exit_code == 2
    message = str(refused.value)
    assert len(message) < 500
    assert "\n" not in message
    return message


# --- the stack's name ---


@given(NAMES, COUNTS)
def test_a_name_says_configuration_and_replicas(name, replicas):
    stack = f"{name}-{replicas}"
    if stack in KNOWN:
        with pytest.raises(InvalidInput, match="reads as"):
            config.stack_name(stack, KNOWN)
    else:
        assert config.stack_name(stack, KNOWN) == (name, str(replicas))
        of = state(stack)
        assert (of.stack, of.configuration, of.replicas) == (stack, name, replicas)
        assert of.steering == KNOWN[name]


@given(st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,5}){0,3}", fullmatch=True), COUNTS)
def test_own_names_round_trip_too(name, replicas):
    assert config.stack_name(f"{name}-{replicas}", {name: None}) == (name, str(replicas))


@given(st.text(max_size=30))
def test_a_name_that_starts_with_no_configuration_says_nothing(text):
    known = [name for name in KNOWN if text.startswith(name)]
    assert known or config.stack_name(text, KNOWN) == (None, None)


@pytest.mark.parametrize(("stack", "rest"), [("rps-7", "rps"), ("rps-plus-7", "rps-plus")])
def test_a_name_with_two_readings_is_refused_with_both(stack, rest):
    message = refusal(stack)
    assert f"configuration {stack} " in message
    assert f"{rest} at 7 pairs" in message
    assert f"{stack}-4" in message
    # also where the replicas alone are set: either reading could be meant
    assert refusal(stack, replicas="4") == message


@pytest.mark.parametrize(
    ("stack", "values", "says"),
    [
        ("rps-7-16", {}, ("rps-7", 16)),
        ("rps-plus-7-1", {}, ("rps-plus-7", 1)),
        ("rps-7", {"configuration": "rps"}, ("rps", 7)),
        ("rps-7", {"configuration": "rps-7", "replicas": "2"}, ("rps-7", 2)),
        ("rps-7", {"configuration": "rfs", "replicas": "2"}, ("rfs", 2)),
        ("rfs-4", {"replicas": "8"}, ("rfs", 8)),
        ("rfs-4", {"configuration": "rps"}, ("rps", 4)),
        ("rfs", {"replicas": "8"}, ("rfs", 8)),
        ("mine-12", {"configuration": "rps"}, ("rps", 12)),
        ("lab", {"configuration": "rps", "replicas": "3"}, ("rps", 3)),
        ("rfs-007", {}, ("rfs", 7)),
    ],
)
def test_keys_go_over_the_name(stack, values, says):
    of = state(stack, **values)
    assert (of.configuration, of.replicas) == says


@pytest.mark.parametrize(
    ("stack", "values", "said"),
    [
        ("rsf-4", {}, ("stack: rsf-4 does not name", "<configuration>-<replicas>", "rfs-plus,")),
        ("lab", {}, ("stack: lab does not name", "set `configuration`")),
        ("lab", {"configuration": "rps"}, ("stack: lab does not", "number of pairs", "`replicas`")),
        ("rps", {}, ("stack: rps does not give the number", "rps-<replicas>")),
        ("rps-7", {"configuration": "rps-7"}, ("number of pairs", "rps-7-<replicas>")),
        ("rps-7", {"configuration": "rfs"}, ("number of pairs", "rfs-<replicas>")),
        ("rps-four", {}, ("stack: rps-four does not name",)),
        ("rps-0", {}, ("replicas: ", "from 1 to 1024, not '0'")),
        ("rps--1", {}, ("stack: rps--1 does not name",)),
        ("rps-1025", {}, ("replicas: ", "from 1 to 1024, not '1025'")),
        ("rfs-4", {"configuration": "rsf"}, ("configuration: 'rsf' is unknown", "baseline, rps")),
        ("rfs-4", {"configuration": ""}, ("configuration: '' is unknown",)),
        *(
            (stack, {}, ("stack: ", "letters, digits, dots"))
            for stack in ("", "-rps-4", "rps 4", "rps/4", "rps-4\n", "rps-٤", "r" * 101, "$(id)-4")
        ),
    ],
)
def test_a_name_that_says_too_little_is_refused(stack, values, said):
    message = refusal(stack, **values)
    for words in said:
        assert words in message


# --- the keys ---

WHOLE = ["-1", "abc", "1.5", "1e2", "1_0", "true", "", " 3", "9" * 5000, "٣"]


@pytest.mark.parametrize(
    ("key", "bad", "allowed"),
    [
        ("replicas", [*WHOLE, "0", "1025"], "from 1 to 1024"),
        ("runs", [*WHOLE, "10001"], "from 0 to 10000"),
        ("duration", [*WHOLE, "0", "86401"], "from 1 to 86400"),
        ("omit", [*WHOLE, "61"], "from 0 to 60"),
        ("streams", [*WHOLE, "0", "129"], "from 1 to 128"),
        ("target", ["kubernets", "", "Lab"], "'lab' or 'kubernetes'"),
        ("nodeAccess", ["", "jobs"], "'job' or 'ssh'"),
        ("via", ["", "pods"], "'service' or 'pod'"),
        ("serverSelector", ["", "iperf", "a=b c=d", "=b"], "labels as key=value"),
        ("clientSelector", ["", "iperf in (a)"], "labels as key=value"),
        ("overlayDevice", ["", "a/b", "sixteen-letters-"], "auto or a device's name"),
        ("kubernetes.nic", ["", "a/b", "-x"], "auto or a device's name"),
        ("path", ["both", "", "Host"], "'overlay' or 'host'"),
        ("steerNodes", ["client", "", "none"], "'server' or 'both'"),
        ("podCpuLimit", ["9m", "0", "0.001", "8193", "-1", "200M", "1e1", "200 m", "m", ".5",
                         "9" * 400, "9" * 400 + "m", "٣"], "200m, 0.5"),
        ("lease", ["0h", "2d", "2", "h", "-1h", "1.5h", "", "None", "2h ", "0", "8761h"],
         "or none"),
        ("cpus", ["1", "[]", '"x"', "null"], "server, client, irq"),
        ("cpus", ["", "0,1", "{", "[" * 9999, "9" * 5000], '{"server": [0, 1], "client": [2]'),
        ("ssh", ["", "root@node"], '{"user": "root"'),
        ("images", ["iperf3:1"], '{"iperf3": "'),
    ],
)  # fmt: skip
def test_bad_value_of_a_key_is_named_with_what_is_allowed(key, bad, allowed):
    for value in bad:
        message = refusal(**{key: value})
        assert message.startswith(f"{'.'.join(keys.path_of(key))}: ")
        assert allowed in message
        said = json.loads(value) if value == "[]" else value
        assert repr(said)[:60] in message


@pytest.mark.parametrize(
    ("cpus", "said"),
    [
        ({"server": [0]}, "cpus.client: is missing (keys: server, client, irq)"),
        ({"server": [0], "client": [1], "nic": 0}, "cpus.nic: unknown key"),
        ({"server": [], "client": [1]}, "cpus.server: must be a list of one or more different"),
        ({"server": [0, 0], "client": [1]}, "cpus.server: must be a list of one or more different"),
        ({"server": 0, "client": [1]}, "cpus.server: must be a list"),
        ({"server": "0,1", "client": [1]}, "cpus.server: must be a list"),
        ({"server": [0], "client": [-1]}, "cpus.client: must be a whole number from 0"),
        ({"server": [0], "client": [True]}, "cpus.client: must be a whole number from 0"),
        ({"server": [0], "client": [1], "irq": "x"}, "cpus.irq: must be a whole number from 0"),
        ({"server": [0, 4], "client": [1]}, "cpus: core 4 is not online (online: 0, 1, 2, 3)"),
        ({"server": [0], "client": [9]}, "cpus: core 9 is not online"),
        ({"server": [1, 2], "client": [3]}, "cpus: the irq core 0 is not a server core (1, 2)"),
    ],
)
def test_bad_cores_are_named(cpus, said):
    assert refusal(cpus=json.dumps(cpus)).startswith(f"lab.{said}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("images", {"iperf3": "iperf3"}, "images.iperf3: must name an image and its tag"),
        ("images", {"iperf3": "iperf3:latest"}, "images.iperf3: must name an image and its tag"),
        ("images", {"iperf": "iperf3:1"}, "images.iperf: unknown key; did you mean iperf3?"),
        ("images", {"iperf3": "iperf3:1"}, "images.steering: is missing"),
        ("ssh", {"port": 0}, "ssh.port: must be a whole number from 1 to 65535"),
        ("ssh", {"password": "x"}, "ssh.password: unknown key"),
        ("cpus", 1, "cpus: must map server, client, irq"),
    ],
)
def test_what_is_wrong_within_a_key_is_named(key, value, said):
    place = ".".join(keys.path_of(key)).removesuffix(key)
    assert refusal(**{key: json.dumps(value)}).startswith(place + said)
    assert refusal(**{place + key: json.dumps(value)}).startswith(place + said)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("queues", "0", "must be a whole number from 1 to 64"),
        ("queues", "two", "must be a whole number from 1 to 64"),
        ("queues", "3", "3 queues need as many server cores, and there are 2"),
        ("form", "Stock", "'study' or 'stock'"),
    ],
)
def test_a_bad_form_or_number_of_queues_is_named(key, value, said):
    message = refusal(**{f"lab.{key}": value})
    assert message.startswith(f"lab.{key}: ")
    assert said in message


def test_the_wire_alone_steers_what_the_client_sends_to_several_queues(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("mine: {nic: {xps_cpus: all}}")
    given = {"configurations": str(own), "configuration": "mine", "lab.queues": "2"}
    assert state(**given).lab.queues == 2
    assert refusal(**given, steerNodes="both").startswith("lab.queues: XPS of the client's eth1")


def test_the_number_of_queues_is_not_steered_where_they_are_entries_of_a_table(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("mine: {nic: {rx_queues: 2}}")
    given = {"configurations": str(own), "configuration": "mine"}
    assert state(**given).steering.nic.knobs["rx_queues"] == 2
    for nodes in ("server", "both"):
        message = refusal(**given, **{"lab.queues": "2"}, steerNodes=nodes)
        assert message.startswith("lab.queues: ")
        assert "mine sets rx_queues" in message


@pytest.mark.parametrize(("key", "value"), [("queues", "2"), ("form", "stock")])
def test_form_and_queues_are_of_the_lab_alone(key, value):
    given = {f"lab.{key}": value, "target": "kubernetes", "images": IMAGES}
    assert refusal(**given).startswith(f"lab.{key}: applies to target lab only")
    assert config.state("rps-4", {f"lab.{key}": value}, (0, 1, 2, 3)).digest() != state().digest()


def test_the_first_queue_has_the_irq_core_and_the_others_follow():
    cpus = '{"server": [0, 3, 1], "client": [2], "irq": 3}'
    assert state(cpus=cpus).queue_cores == (3,)
    assert state(cpus=cpus, **{"lab.queues": "3"}).queue_cores == (3, 0, 1)


def test_a_cluster_has_no_default_images():
    said = refusal(target="kubernetes")
    assert said.startswith("kubernetes.images: ")
    assert "docker/build" in said


def test_a_cluster_has_no_cores_and_no_host_arm_of_ours():
    assert state(target="kubernetes", images=IMAGES).lab.cpus is None
    cpus = '{"server": [0], "client": [1]}'
    assert refusal(target="kubernetes", cpus=cpus).startswith("lab.cpus: ")
    assert refusal(target="kubernetes", path="host").startswith("lab.path: ")
    images = {"images": IMAGES}
    assert (
        config.state("rps-7-4", {"target": "kubernetes", **images}, (0, 1)).steering.needs_cpus == 3
    )


def test_own_cores_are_taken_as_they_are():
    of = state(cpus='{"server": [3, 1], "client": [0, 1], "irq": 3}')
    assert (of.cores.server, of.cores.client, of.cores.irq) == ((3, 1), (0, 1), 3)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("replica", "replicas"),
        ("pod_cpu_limit", "podCpuLimit"),
        ("Duration", "duration"),
        ("contxt", "kubernetes.context"),
        ("kubernetes.contxt", "context"),
    ],
)
def test_an_unknown_key_is_told_the_nearest(given, meant):
    message = refusal(**{given: "1"})
    assert message.startswith(f"{given}: unknown key; did you mean {meant}?")
    if "." not in given:
        assert ", ".join(sorted(ALL_KEYS)) in message


# what the program works out by itself is no key either
@pytest.mark.parametrize("key", ["steering", "quota", ""])
def test_a_foreign_key_is_not_taken_for_another(key):
    message = refusal(**{key: "x"})
    assert message.startswith(f"{key}: unknown key (known: configuration, configurations, ")


@pytest.mark.parametrize("key", ["stack", "online"])
def test_stack_and_machine_are_no_keys(key):
    with pytest.raises(InvalidInput, match=f"{key}: unknown key"):
        config.state("rfs-4", {key: "other"}, FOUR)


@given(st.integers(1, 86_400), st.integers(0, 60))
def test_more_is_measured_than_left_out(duration, omit):
    values = {"duration": str(duration), "omit": str(omit), "lease": "none"}
    if duration > omit:
        assert (state(**values).duration, state(**values).omit) == (duration, omit)
    else:
        message = refusal(**values)
        assert message.startswith(f"duration: {duration} s must be longer than omit, {omit} s")


@given(st.integers(1, 8760), st.sampled_from([("s", 1), ("m", 60), ("h", 3600)]))
def test_a_lease_in_seconds(number, unit):
    letter, seconds = unit
    short = {"lease": f"{number}{letter}", "duration": "1", "omit": "0"}
    if number * seconds >= 11:
        assert state(**short).lease_seconds == number * seconds
    else:
        assert refusal(**short).startswith(f"lease: {number}{letter} is shorter than a run")


@pytest.mark.parametrize(
    ("target", "lease", "duration", "needed"),
    [("lab", "2h", 7190, "7201s"), ("kubernetes", "2h", 7140, "7201s"), ("lab", "60s", 50, "61s")],
)
def test_a_run_that_outlasts_its_lease_is_refused(target, lease, duration, needed):
    images = '{"iperf3": "r/iperf3:1", "steering": "r/steering:1"}'
    of = {"target": target, "omit": "1"} | ({} if target == "lab" else {"images": images})
    message = refusal(**of, lease=lease, duration=str(duration))
    assert f"{lease} is shorter than a run: 1 + {duration} s" in message
    assert f"at least {needed}" in message
    assert state(**of, lease="none", duration=str(duration))
    assert state(**of, lease=lease, duration=str(duration - 1))


def test_no_lease():
    assert state(lease="none").lease_seconds is None


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("200m", 0.2), ("10m", 0.01), ("0.5", 0.5), ("2", 2.0), ("8192", 8192.0), ("1500m", 1.5)],
)
def test_a_pods_quota_in_cpus(text, cpus):
    assert settings.cpu_limit(text) == cpus
    assert state(podCpuLimit=text).pod_cpu_limit == text


# --- the machine ---


def test_a_mask_beyond_the_machine_is_refused_by_itself():
    message = refusal("rps-7-4", online=(0, 1))
    assert message == "configuration: rps-7 needs 3 CPUs, this machine has 0, 1"
    assert state("rps-7-4", online=(0, 1, 2)).replicas == 4


def test_a_mask_with_an_offline_core_is_refused():
    message = refusal("rps-7-4", online=(0, 2, 3))
    assert message.startswith("configuration: rps-7 has a mask with core 1, which is not online")


def test_one_core_cannot():
    with pytest.raises(PrerequisiteMissing) as refused:
        state(online=(0,))
    assert refused.value.exit_code == 3


def test_cores_are_shared_out_where_none_are_set():
    assert state(online=(0, 1)).cores.client == (1,)
    assert state(online=FOUR).cores.client == (2, 3)


# --- a user's configurations ---


def test_own_configurations_name_stacks(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("wide-2:\n  nic: {cpus: 'f'}\n")
    of = state("wide-2-8", configurations=str(own))
    assert (of.configuration, of.replicas, of.steering.nic.knobs["rps_cpus"]) == ("wide-2", 8, "f")
    assert "own.yaml" in refusal("wide-2-8", configurations=str(tmp_path / "not-own.yaml"))


def test_the_path_of_own_configurations_starts_at_the_project(tmp_path, monkeypatch):
    # whoever validates stands anywhere, the program stands there
    (tmp_path / "own.yaml").write_text("mine: {}\n")
    monkeypatch.chdir(tmp_path)
    assert str(ROOT / "own.yaml") in refusal("mine-4", configurations="own.yaml")
    monkeypatch.setattr(config, "_ROOT", tmp_path)
    monkeypatch.chdir("/")
    assert state("mine-4", configurations="own.yaml").configuration == "mine"


# --- Pulumi ---


def test_the_program_and_the_page_are_what_the_model_says():
    assert reference.PROGRAM.read_text() == reference.program()
    assert reference.PAGE.read_text() == reference.page()


def test_pulumi_yaml_declares_what_has_a_default():
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert declared.keys() == set(KEYS) - FROM_THE_NAME - SECTIONS.keys()
    for declaration in declared.values():
        assert declaration.keys() == {"type", "default", "description"}
        assert isinstance(declaration["default"], int if declaration["type"] == "integer" else str)


def test_the_page_has_every_key():
    page = reference.page()
    assert all(f"| `{key}` |" in page for key in ALL_KEYS)


def test_declared_defaults_are_a_valid_state():
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    values = {key: str(declaration["default"]) for key, declaration in declared.items()}
    assert state(**values) == state()


def test_the_ready_stack_is_a_valid_state():
    section = yaml.safe_load((ROOT / "Pulumi.lab.yaml").read_text())["config"]
    of = state("lab", **{key.removeprefix("steerlab:"): str(v) for key, v in section.items()})
    assert (of.configuration, of.replicas) == ("rfs-plus", 4)


def read_by_the_program(stack: str, values: dict[str, str]) -> StackSettings:
    def read() -> StackSettings:
        pulumi.runtime.configure(pulumi.runtime.Settings(project="steerlab", stack=stack))
        pulumi.runtime.set_all_config(values, [])
        return config.from_pulumi()

    return contextvars.copy_context().run(read)


def test_the_program_reads_its_own_keys_alone(monkeypatch):
    monkeypatch.setattr(cores, "online", lambda: FOUR)
    values = {"steerlab:replicas": "8", "steerlab:lease": "1h", "aws:region": "x"}
    values["steerlab:cpus"] = '{"server": [0], "client": [1]}'
    of = read_by_the_program("rfs-plus-4", values)
    assert of == state(replicas="8", lease="1h", cpus='{"server": [0], "client": [1]}')
    with pytest.raises(InvalidInput, match="replica: unknown key"):
        read_by_the_program("rfs-plus-4", {"steerlab:replica": "8"})


def test_online_cores_are_those_of_this_machine():
    found = cores.online()
    listed = [line for line in Path("/proc/stat").read_text().splitlines() if line[:3] == "cpu"]
    assert [f"cpu{core}" for core in found] == [line.split()[0] for line in listed[1:]]


def test_the_lab_takes_the_cores_of_this_process_alone(monkeypatch):
    monkeypatch.setattr(cores, "online", lambda: FOUR)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    assert cores.allowed() == (1, 3)
    assert config.state("rps-2", {}).cores == Cores(server=(1, 3), client=(3,), irq=1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    with pytest.raises(PrerequisiteMissing, match="at least 2 cores"):
        config.state("rps-2", {})
    assert any("may use 1:" in reason for reason in requirements.missing())


@pytest.mark.parametrize("core", [0, 2])
def test_cores_outside_of_the_cpuset_cannot_be_chosen(monkeypatch, core):
    monkeypatch.setattr(cores, "online", lambda: FOUR)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    for cpus in ({"server": [1, core], "client": [3]}, {"server": [1, 3], "client": [core]}):
        with pytest.raises(
            PrerequisiteMissing, match=rf"may not use core {core} \(allowed: 1, 3\)"
        ):
            config.state("rps-2", {"cpus": json.dumps({**cpus, "irq": 1})})
    chosen = json.dumps({"server": [1, 3], "client": [3], "irq": 1})
    assert config.state("rps-2", {"cpus": chosen}).cores.server == (1, 3)


def test_an_affinity_is_the_default_and_no_limit():
    """taskset binds a process, and an isolated CPU is in the affinity of none: both may be chosen."""
    online = cores.online()
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert set(cores.allowed()) >= mine
        assert os.sched_getaffinity(0) == {min(mine)}
        with pytest.raises(PrerequisiteMissing, match="at least 2 cores"):
            config.state("rps-2", {})
        everything = json.dumps({"server": online, "client": online, "irq": online[0]})
        if mine == set(online):
            assert config.state("rps-2", {"cpus": everything}).cores.server == online
    finally:
        os.sched_setaffinity(0, mine)


# --- the state as a value ---

ANOTHER = {
    "configuration": "rps",
    "replicas": "5",
    "runs": "2",
    "duration": "11",
    "omit": "2",
    "streams": "2",
    "path": "host",
    "cpus": '{"server": [0], "client": [1]}',
    "podCpuLimit": "200m",
    "steerNodes": "both",
    "lease": "none",
    "kubeconfig": "admin.conf",
    "context": "other",
    "serverSelector": "role=server,zone=a",
    "clientSelector": "role=client",
    "nodeAccess": "ssh",
    "ssh": '{"user": "steer", "port": 2222}',
    "images": IMAGES,
    "via": "pod",
    "overlayDevice": "flannel.1",
    "kubernetes.nic": "bond0",
    "kubernetes.namespace": "team",
    "kubernetes.pairing": "mesh",
    "kubernetes.pods": '{"runAsUser": "assigned"}',
    "traffic": "stream:congestion=cubic",
    "lab.form": "stock",
    "lab.queues": "2",
}


def test_the_digest_changes_with_every_key(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("x: {}\n")
    others = {**ANOTHER, "configurations": str(own)}
    places = {".".join(keys.path_of(key)) for key in others}
    assert places | {"target"} == set(ALL_KEYS)
    digests = {key: state(**{key: value}).digest() for key, value in others.items()}
    digests["none of them"] = state().digest()
    digests["the stack"] = state("other-4", configuration="rfs-plus").digest()
    assert len(set(digests.values())) == len(digests)


def test_the_digest_changes_with_what_the_configuration_means(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("x: {nic: {flows: 64}}\n")
    before = state("x-4", configurations=str(own)).digest()
    own.write_text("x: {nic: {flows: 128}}\n")
    assert state("x-4", configurations=str(own)).digest() != before


@given(NAMES, COUNTS, st.permutations(["runs", "omit", "lease"]))
def test_one_state_has_one_digest_however_it_was_said(name, replicas, order):
    said = {"configuration": name, "replicas": str(replicas)}
    defaults = {"runs": "1", "omit": "1", "lease": "2h"}
    spelled = {key: defaults[key] for key in order}
    assert state("lab", **said, **spelled).digest() == state("lab", **said).digest()


def test_a_stack_without_traffic_keeps_its_digest():
    assert state(traffic="stream").digest() == state().digest()
    assert "traffic" not in state().model_dump()
    assert state(traffic="stream:congestion=bbr").model_dump()["traffic"]


def test_the_digest_is_a_short_word():
    assert len(state().digest()) == 16
    assert state().digest().isalnum()


def test_a_state_does_not_change():
    of = state()
    with pytest.raises(ValidationError):
        of.replicas = 5
    with pytest.raises(ValidationError):
        of.cores.irq = 1


# --- keys of the targets, and their spelling in the first version ---


@pytest.mark.parametrize("old", keys.MOVED)
def test_an_old_key_and_its_successor_are_one_setting(old):
    new = ".".join(keys.path_of(old))
    value = ANOTHER[old]
    section, name = new.split(".")
    inner = json.loads(value) if value[0] == "{" else value
    forms = [{old: value}, {new: value}, {section: json.dumps({name: inner})},
             {section: json.dumps({name: value})}, {old: value, new: value}]  # fmt: skip
    assert len({state(**form).digest() for form in forms}) == 1
    assert state(**forms[0]) != state()
    assert keys.renamed(["runs", old, new]) == f"{old} is now {new}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"context": "a", "kubernetes.context": "b"}, "kubernetes.context"),
        ({"context": "a", "kubernetes": '{"context": "b"}'}, "context"),
        ({"runs.x": "1"}, "runs"),
        ({"runs": "1", "runs.x": "1"}, "runs"),
        ({"lab": "host"}, "lab: must"),
        ({"lab": "{"}, "lab: must"),
        ({"lab": "{", "lab.path": "host"}, "lab: must be a mapping"),
        ({"kubernetes.context.x": "1"}, "kubernetes.context: "),
    ],
)
def test_a_contradiction_is_refused(values, said):
    assert said in refusal(**values)


def test_a_part_of_a_mapping_is_no_contradiction():
    cpus = '{"server": [0, 1], "client": [1]}'
    assert state(**{"lab.cpus.irq": "1", "cpus": cpus}).cores.irq == 1


def test_numbers_of_a_mapping_may_be_texts():
    lab = '{"cpus": {"server": ["1", 2], "client": ["3"], "irq": "1"}}'
    assert state(lab=lab).cores == Cores(server=(1, 2), client=(3,), irq=1)
    assert state(kubernetes='{"context": 5}').kubernetes.context == "5"
