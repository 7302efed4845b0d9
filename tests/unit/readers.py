"""Every reader of text that this project did not just write itself: how to call it, what it may say.

A reader gives a value or raises an error of its own kind, for any bytes whatever.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from foreign_documents import WORDS, Documents, damaged, json_like, text_like, yaml_like
from steer_tree import plan, rule
from study_text import write_text

from agent import procstat as agent_procstat
from analysis import load as records_of
from analysis import schema
from analysis.study import importer, tables
from experiments.cli import hook
from experiments.engines import StackRef, locks, stacks
from experiments.engines.embedded import state
from experiments.host import calls, lock, machine, persist, procstat
from experiments.rollout.audit import AuditLog
from experiments.rollout.kubernetes import latency_ms
from experiments.run import matrix, measure, options, records, single, tune_state, tuned
from experiments.run import plan as plans
from experiments.run import sweep as sweeps
from experiments.run.arms import candidates
from experiments.targets import TARGETS, contract, roundtrips
from experiments.targets.kubernetes import agents as cluster_steer
from experiments.targets.kubernetes import clocks, counters, drift, pods, sessions, shell
from experiments.targets.kubernetes import doctor as cluster_doctor
from experiments.targets.lab import drift as verify
from experiments.targets.lab import standing
from infra import checkpoint, config, configurations, cores, traffic, untrusted
from infra.errors import Refusal
from infra.kubernetes import access, admission, ownership, pinned
from infra.kubernetes.nodes import cpus_of
from infra.lab import claim
from infra.traffic import TRAFFIC
from infra.traffic.contract import Kind

NOTHING = ()


@dataclass(frozen=True)
class Reader:
    """`read` is given the bytes or, where `file` names one, the folder that holds it."""

    name: str
    read: Callable[[Any], object]
    documents: Documents
    valid: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = NOTHING
    file: str | None = None
    around: Callable[[Path], None] = lambda _: None
    # nobody puts anything else in place of its file: a kernel's, or a pipe that a user names
    plain: bool = False
    # documents of a usual run: fewer where a reading is a whole episode
    few: int = 100

    def __str__(self) -> str:
        return self.name


READERS: list[Reader] = []


def add(
    name: str,
    read: Callable[[Any], object],
    documents: Documents,
    *valid: bytes | str,
    errors: tuple[type[Exception], ...] = NOTHING,
    file: str | None = None,
    around: Callable[[Path], None] = lambda _: None,
    plain: bool = False,
    few: int = 100,
) -> None:
    bytes_ = tuple(one.encode() if isinstance(one, str) else one for one in valid)
    READERS.append(Reader(name, read, documents, bytes_, errors, file, around, plain, few))


def _text(data: bytes) -> str:
    """As a command's or a node's output arrives."""
    return data.decode(errors="replace")


# --- records, plans and the study ---

RECORD: dict[str, Any] = json.loads(
    schema.Record(
        target="lab",
        stack="rfs-4",
        configuration="rfs",
        replicas=2,
        valid=True,
        pairs=[schema.Pair(index=1, values={"bitrate_mbps": 10.5, "retransmits": 3})],
        cores=[schema.Core(node="server", core=0, usr=1, idle=99)],
        softnet=[
            schema.Softnet(
                node="server",
                core=0,
                processed=1,
                dropped=0,
                squeezed=0,
                received_rps=1,
                flow_limit=0,
            )
        ],
        block=0,
        order=0,
        seed=7,
        plan="0123456789ab",
        start="2025-01-01T00:00:00Z",
        duration=5,
        omit=1,
        window=5.001,
        steering_before=schema.Steering(
            sock_flow_entries=0,
            queues=[
                schema.QueueSteering(
                    node="server",
                    role="nic",
                    device="eth1",
                    queue="rx-0",
                    rps_cpus="3",
                    rps_flow_cnt=0,
                )
            ],
        ),
        machine=schema.Machine(kernel="6.1", cpu="x", cores=2, mtu={"eth1": 1500}),
        confounders_before=schema.Confounders(nic_interrupts={"24 eth0": [1, 2]}, irqbalance=False),
        harness=schema.Harness(cpu_seconds=0.1),
    ).model_dump_json()
)
_RECORD = json.dumps(RECORD)

add(
    "record",
    records_of.load,
    json_like(RECORD),
    _RECORD,
    file="run-00000-rfs-2-overlay.json",
)

PLAN = plans.make(
    options.read(
        {
            "seed": 7,
            "blocks": 2,
            "configurations": ["baseline", "rfs"],
            "replicas": [1, 2],
            "paths": ["overlay"],
            "duration": 5,
            "omit": 1,
            "streams": 1,
            "pod_cpu_limit": "200m",
        }
    ),
    known=configurations.load(),
    cpus=2,
)
_PLAN = plans.to_json(PLAN)
add(
    "plan of a sweep",
    sweeps.kept_plan,
    json_like(json.loads(_PLAN)),
    _PLAN,
    errors=(Refusal,),
    file=sweeps.PLAN,
)


def _resumed(folder: Path) -> object:
    sweep = sweeps.Sweep(folder, PLAN, None)  # type: ignore[arg-type] no engine is asked
    return sweep._left(PLAN.runs[:1])


_TUNE = tune_state.TuneState(
    options=options.kept(PLAN.asked.model_copy(update={"replicas": (1,)})), minutes=3, by="bitrate_mbps", generated=False,
    arms=tuple(map(tune_state.Kept.of, candidates(2)[:3])),
).model_dump_json()  # fmt: skip


def _tuned(directory: Path) -> object:
    """A tuning without records, and its lab."""
    found = tuned.Tuned.read(directory)
    return found.state, found.lab


add(
    "state of a tuning",
    _tuned,
    json_like(json.loads(_TUNE)),
    _TUNE,
    errors=(Refusal,),
    file=tune_state.FILE,
)


_RUN = PLAN.runs[0]
add(
    "record of a sweep that goes on",
    _resumed,
    json_like(RECORD),
    _RECORD,
    file=f"records/run-{_RUN.order:05d}-{_RUN.configuration}-{_RUN.replicas}-{_RUN.path}.json",
)

_STUDY = write_text([[100, 200], [110, 190]], 2)
add(
    "raw text of the study",
    importer.import_study,
    text_like([_STUDY]),
    _STUDY,
    file="rps-2.txt",
)


def _tables(folder: Path) -> object:
    cells, faults = tables.read_tables(folder)
    return [(cell.value, cell.tolerance) for cell in cells], faults


_BITRATES = "Replicas,Baseline,RPS-7+\n1 pair,1.00,1.21\n4 pairs,1,1.5\n"
_CORES = "Configuration,Core 0,Core 1\nBaseline,99.5,1\nRPS,50,50.25\n"
for _name, _table in (("finalized_bitrate", _BITRATES), ("confidence_4_soft", _CORES)):
    add(
        f"table of the study, {_name}",
        _tables,
        text_like([_table, _table.replace(" ", "")], (*WORDS, "1,2", '"a\nb"', '"1', "x,,y")),
        _table,
        file=f"{_name}.csv",
    )

# --- people's files: YAML ---

_CONFIGURATIONS = """\
mine-7:
  summary: tried
  nic: {cpus: all, flows: 4096}
  overlay:
    cpus: "3"
  sock_flow_entries: 32768
none: {}
"""
add(
    "configurations",
    lambda folder: configurations.load(folder / "mine.yaml"),
    yaml_like(_CONFIGURATIONS, {"mine": {"nic": {"cpus": "all", "flows": 8}, "summary": "x"}}),
    _CONFIGURATIONS,
    errors=(Refusal,),
    file="mine.yaml",
)

_MATRIX = """\
summary: mine
configurations: [baseline, rfs]
replicas: [1, 4]
runs: 3
duration: 5
traffic: mixed:rate=300M
limit: p99_us=+10%
path: [overlay, host]
config: {steerNodes: both}
"""


def _matrix(folder: Path) -> object:
    options = matrix.named(str(folder / "mine.yaml")) | {"seed": 1}
    return matrix.plan(options)


add(
    "matrix",
    _matrix,
    yaml_like(
        _MATRIX,
        {"configurations": ["baseline", "rfs"], "replicas": [1, "2"], "runs": 2, "own": "",
         "config": {"lease": "2h"}, "podCpuLimit": "200m", "duration": 5, "omit": 1,
         "traffic": "mixed", "limit": "p99_us=+10%"},
    ),
    _MATRIX,
    errors=(Refusal,),
    file="mine.yaml",
)  # fmt: skip

_STACK = """\
# kept
config:
  steerlab:configuration: rfs
  steerlab:replicas: 4
  steerlab:cpus: {server: [0], client: [1], irq: 0}
  other:key: x
"""
_STACK_JSON = {
    "config": {
        "steerlab:configuration": "rfs",
        "steerlab:replicas": "2",
        "steerlab:ssh": {"user": "root"},
        "steerlab:cpus": {"server": [0], "client": [1], "irq": 0},
        "steerlab:lease": "2h",
        "steerlab:podCpuLimit": "200m",
    }
}


def _stack(folder: Path) -> object:
    with patch.object(stacks, "ROOT", folder):
        return stacks.load("mine")


def _stack_changed(folder: Path) -> object:
    with patch.object(stacks, "ROOT", folder):
        return stacks.save("mine", {"replicas": "3", "cpus": '{"server": [0]}'})


for _title, _read in (("stack's file", _stack), ("stack's file to change", _stack_changed)):
    add(
        _title,
        _read,
        yaml_like(_STACK, _STACK_JSON),
        _STACK,
        json.dumps(_STACK_JSON),
        errors=(Refusal,),
        file="Pulumi.mine.yaml",
    )


def _stack_value(data: bytes) -> object:
    """Structured values of `-c key=value`."""
    values = stacks.changes([f"cpus={_text(data)}"])
    return config.state("rfs-2", values, online=(0, 1))


_CPUS = {"server": [0, 1], "client": [1], "irq": 0}
add("value of -c cpus", _stack_value, json_like(_CPUS), json.dumps(_CPUS), errors=(Refusal,))

_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: c
clusters:
- name: k
  cluster: {server: "https://127.0.0.1:6443"}
contexts:
- name: c
  context: {cluster: k, user: u}
users:
- name: u
  user: {token: secret}
"""
_KUBECONFIG_JSON = {
    "current-context": "c",
    "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443"}}],
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "secret", "client-certificate-data": "aGk="}}],
}
add(
    "kubeconfig",
    lambda folder: access.connect(str(folder / "config"), ""),
    yaml_like(_KUBECONFIG, _KUBECONFIG_JSON),
    _KUBECONFIG,
    errors=(Refusal,),
    file="config",
)

# --- checkpoints and locks ---

_URN = "urn:pulumi:mine::steerlab::command:local:Command::{}"
_PROVIDER_URN = "urn:pulumi:mine::steerlab::pulumi:providers:command::default"


def _resource(name: str, **more: Any) -> dict[str, Any]:
    return {
        "urn": _URN.format(name),
        "custom": True,
        "id": name,
        "type": "command:local:Command",
        "inputs": {"create": "true", "stdin": "words"},
        "outputs": {"stdout": '{"namespaces": {"steerlab-none": ["lo"]}, "process": "/none"}'},
        "provider": f"{_PROVIDER_URN}::p",
        **more,
    }


_REF = StackRef(Path("/"), Path("/"), "mine")
_PROVIDER = {
    "urn": _PROVIDER_URN, "custom": True, "id": "p", "type": "pulumi:providers:command",
}  # fmt: skip
_OBJECT = {
    "urn": "urn:pulumi:mine::steerlab::kubernetes:core/v1:Namespace::n",
    "custom": True,
    "id": "n",
    "type": "kubernetes:core/v1:Namespace",
    "inputs": {"metadata": {"name": "n"}},
}
CHECKPOINT: dict[str, Any] = json.loads(
    state.render(
        _REF,
        [json.dumps(one) for one in (_PROVIDER, _resource("a"), _resource("b"))],
        [("creating", json.dumps(_resource("c")))],
        {"type": "passphrase", "state": {"salt": "x"}},
    )
)
_CHECKPOINT = json.dumps(CHECKPOINT)
_CHECKPOINT_FILE = ".pulumi/stacks/steerlab/mine.json"


def _engine_state(folder: Path) -> object:
    ref = StackRef(folder, folder, "mine")
    loaded = state.load(ref)
    state.refuse_unsupported(ref, loaded)
    return loaded


def _drifted(folder: Path) -> object:
    """What `status`, `up` and a failed run ask of whichever checkpoint there is."""
    resources = checkpoint.resources(checkpoint.path_of(folder, "steerlab", "mine"))
    drift.of_cluster(resources)
    drift.objects(resources)
    return verify.drifted(resources, lambda _: {"lo"}, lambda _: [])


add(
    "checkpoint, by the embedded engine",
    _engine_state,
    json_like(CHECKPOINT),
    _CHECKPOINT,
    errors=(Refusal,),
    file=_CHECKPOINT_FILE,
)
add(
    "checkpoint, by any engine",
    _drifted,
    json_like(CHECKPOINT),
    _CHECKPOINT,
    errors=(Refusal,),
    file=_CHECKPOINT_FILE,
)


def _resource_read(data: bytes) -> object:
    """What a resource of a sound checkpoint printed, and what it was given."""
    text = _text(data)
    resources = [
        _PROVIDER,
        {**_OBJECT, "inputs": {"metadata": {"name": text}}},
        _resource("a", outputs={"stdout": text}),
        _resource("b", inputs={"stdin": text}),
    ]
    guards = drift.guards(resources)
    return guards, verify.drifted(resources, lambda _: {"lo"}, lambda _: [])


def _owner_read(data: bytes) -> object:
    """Whose a stack is, as a sound checkpoint has it."""
    text = _text(data)
    namespace = {**_OBJECT, "outputs": {"metadata": {"name": text, "uid": text}}}
    resources = [_resource("claim", outputs={"stdout": text}), namespace]
    return drift.uids(resources), ownership.of_checkpoint(resources)


add(
    "id of a stack",
    _owner_read,
    json_like({"id": "1"}),
    '{"id": "1"}',
    errors=(Refusal,),
)


_GUARD = {
    "stack": "mine", "node": "n", "hostname": "n", "address": "10.0.0.1", "boot_id": "b",
    "kubeconfig": "", "context": "", "image": "i:1", "ssh": {"user": "root"},
}  # fmt: skip
_FACTS = {"namespaces": {"x": ["lo"]}, "process": "/none", "file": "/none"}
_STEERED = {"queues": [], "owner": "mine/server"}
add(
    "words of a resource",
    _resource_read,
    json_like({"guard": _GUARD}) | json_like(_FACTS) | json_like(_STEERED),
    json.dumps({"guard": _GUARD}),
    json.dumps(_FACTS),
    errors=(Refusal,),
)

_LOCK = {
    "pid": 2**22 + 1, "username": "root", "hostname": "elsewhere",
    "timestamp": "2025-01-01T00:00:00Z", "process": "x 1",
}  # fmt: skip
_LOCKS = ".pulumi/locks/organization/steerlab/mine"


def _held(folder: Path) -> object:
    with locks.hold(StackRef(folder, folder, "mine")):
        return None


add(
    "lock of a stack",
    _held,
    json_like(_LOCK)
    | json_like({**_LOCK, "hostname": locks.socket.gethostname(), "process": None}),
    json.dumps({**_LOCK, "hostname": locks.socket.gethostname(), "process": None}),
    errors=(Refusal,),
    file=f"{_LOCKS}/0.json",
)


_HOLDER = "up -s mine (pid 1 on here, since 2025-01-01 00:00:00)\n0123abcd\n"


def _busy(data: bytes) -> object:
    import fcntl
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile() as holder, patch.dict(os.environ, {lock.TOKEN: "0123abcd"}):
        holder.write(data)
        holder.flush()
        fcntl.flock(holder, fcntl.LOCK_EX)
        with lock.machine("fuzz", Path(holder.name)):
            return None


add(
    "lock of the machine",
    _busy,
    text_like([_HOLDER, _HOLDER.replace("0123", "")]),
    _HOLDER,
    errors=(Refusal,),
)


def _lab(folder: Path) -> object:
    with patch.object(claim, "OWNER", str(folder / ".owner")):
        stands = standing.lab()
        with suppress(lock.Busy):
            standing.refuse_foreign(StackRef(folder, folder, "mine"))
        return stands


add(
    "claim of the lab",
    _lab,
    text_like(["mine in /root/steerlab\n"]),
    "mine in /root/steerlab\n",
    errors=(Refusal, OSError),
    file=".owner",
)
add(
    "pid file",
    lambda folder: verify.alive(folder / "pid"),
    text_like(["1 23\n"]),
    "1 23\n",
    file="pid",
)
add(
    "plan that systemd keeps",
    persist.kept,
    json_like(plan(rule("nic", "eth0"))),
    json.dumps(plan(rule("nic", "eth0"))),
    errors=(Refusal,),
    file=persist.PLAN.lstrip("/"),
)

# --- what commands and nodes print ---

_IPERF = {
    "start": {"version": "iperf 3.12"},
    "intervals": [{"sum": {"bits_per_second": 1e9}}],
    "end": {
        "streams": [{"sender": {"retransmits": 1}}],
        "sum_sent": {"retransmits": 3, "bits_per_second": 2e9},
        "sum_received": {"bits_per_second": 2e9, "bytes": 500_000_000, "seconds": 2.0},
        "sender_tcp_congestion": "cubic",
    },
}
# A number in another form, and half a surrogate pair.
_ODD_IPERF = '{"end": 1e3, "error": "\\ud800"}'
_IPERFS = json_like(_IPERF) | json_like({"error": "unable to connect", "end": {}})


class _Window:
    """The run that `_IPERF` answers."""

    duration, omit, streams = 2, 1, 1


_SOCKPERF = (Path(__file__).parent / "data/sockperf-tcp.txt").read_text()

for _name, _kind in {one.name: one for name in TRAFFIC for one in traffic.of(name).kinds}.items():

    def _traffic(data: bytes, kind: Kind = _kind) -> object:
        return kind.parse(data, b"", 0, _Window())

    if _kind.image == "iperf3":
        add(f"output of {_name}", _traffic, _IPERFS, json.dumps(_IPERF), _ODD_IPERF)
    else:
        add(f"output of {_name}", _traffic, text_like([_SOCKPERF]), _SOCKPERF)

_TRIPS = {
    "start": 5,
    "lost": [7],
    "full": False,
    "trips": base64.b64encode(zlib.compress(bytes(80))).decode(),
}
add(
    "round trips of a client",
    lambda data: roundtrips.read(data, b"", 0),
    json_like(_TRIPS),
    json.dumps(_TRIPS),
)


def _clock(data: bytes) -> object:
    session = SimpleNamespace(say=lambda _: None, await_line=lambda _: _text(data))
    return clocks.ask(session, "pod x")  # type: ignore[arg-type]


_TIME = "12345.678901234\n"
add("clock of a pod", _clock, text_like([_TIME]), _TIME, errors=(Refusal,))

_REPORT = {
    "owner": "mine/server",
    "changed": 0,
    "sock_flow_entries": 0,
    "queues": [
        {"role": "nic", "device": "eth1", "queue": "rx-0", "rps_cpus": "3", "rps_flow_cnt": 0}
    ],
    "drift": [{"kind": "value", "message": "x"}],
    "warnings": ["w"],
    "snapshots": [{"owner": "other"}],
}


def _agent(data: bytes) -> object:
    with patch.object(calls, "_run", lambda *_, **__: (0, _text(data), "")):
        answer = calls.call("verify", "--owner", "x")
        return verify._steering_drift("x"), answer


add("the agent's answer here", _agent, json_like(_REPORT), json.dumps(_REPORT), errors=(Refusal,))
add(
    "the agent's answer on a node",
    lambda data: cluster_steer.read(shell.Answer(0, _text(data), ""), "verify", "node x"),
    json_like(_REPORT),
    json.dumps(_REPORT),
    errors=(Refusal,),
)

_STAT = (
    "cpu  10 20 30 40 5 6 7 8 9 10\ncpu0 5 10 15 20 2 3 3 4 4 5\ncpu1 5 10 15 20 3 3 4 4 5 5\n"
    "intr 1 2 3\nbtime 1735689600\nsoftirq 9 1 2\n"
)
_SOFTIRQS = "                    CPU0       CPU1\n          HI:          0          1\n      NET_RX:        100        200\n"
_SOFTNET = "".join(
    f"0000{n:04x} 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 "
    f"00000002 00000000 00000000 0000000{n} 00000000 00000000\n"
    for n in range(2)
)
_SNMP = (
    "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors\n"
    "Udp: 1000 0 7 5 7 0 0\n"
)
_DEV = (
    "Inter-|   Receive                            |  Transmit\n"
    " face |bytes    packets errs drop fifo frame |bytes    packets errs drop fifo colls\n"
    "  eth0: 1500 10 0 2 0 0 0 0 60 1 0 0 0 0 0 0\n"
)
_INTERRUPTS = (
    "           CPU0       CPU1\n 24:        100         20   PCI-MSI 1-edge      virtio1-input.0\n"
    " 25:          1          2   PCI-MSI 2-edge      eth0-TxRx-0\nNMI:          0          0   Non-maskable\n"
)


class _Shell:
    """A place whose command printed these bytes."""

    def __init__(self, out: bytes) -> None:
        self._answer = shell.Answer(0, _text(out), "")

    def start(self, _: object) -> Any:
        return self

    def finish(self, _: float) -> shell.Answer:
        return self._answer

    def close(self) -> None:
        """Nothing is open."""


class _Session(_Shell):
    """An open connection to an agent, which answers with these lines."""

    def __init__(self, out: bytes) -> None:
        super().__init__(b"")
        self._text = io.StringIO(_text(out))

    def await_line(self, _: float) -> str:
        return self._text.readline().removesuffix("\n")

    def say(self, _: str) -> None:
        """It answers anyway."""


def _answered(data: bytes) -> object:
    shown = b'{"sock_flow_entries": 0, "queues": [], "snapshots": []}\n'
    return sessions.NodeAgent(lambda: _Session(shown + data)).verb("show")


_LOOKED = {
    "files": {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: x\n",
        "/proc/sys/kernel/osrelease": "6.1\n",
        "/proc/interrupts": _INTERRUPTS,
        "/sys/class/net/eth0/mtu": "1500\n",
        "/sys/class/net/eth0/device": "",
        "/sys/class/net/eth0/queues/rx-0": "",
        "/sys/class/net/eth0/queues/tx-0/xps_cpus": "1\n",
    },
    "commands": {"ethtool --show-features eth0": "generic-receive-offload: on\n"},
}


def _node_files(data: bytes) -> object:
    return shell.looked(_Shell(data), {"files": []})


add(
    "files of a node",
    _node_files,
    json_like(_LOOKED),
    json.dumps(_LOOKED),
    errors=(Refusal,),
)
_ENDED = {"ended": 0, "messages": "steer: a note"}
add(
    "the last line of an answer",
    _answered,
    json_like(_ENDED),
    json.dumps(_ENDED),
    errors=(Refusal,),
)


# --- a run: whatever its site brings makes a record that can be read, or a refusal ---


def _measurement() -> Any:
    from infra.lab import measurement

    values = {"runs": "1", "duration": "2", "podCpuLimit": "200m", "replicas": "2"}
    return measurement.of(config.state("rfs", values, online=(0, 1)))


WHAT = _measurement()
MACHINE = schema.Machine(kernel="6.1", cpu="x", cores=2)


def _edge(at: float, **texts: str) -> procstat.CounterSample:
    kernel = {"stat": _STAT, "softirqs": _SOFTIRQS, "softnet": _SOFTNET, **texts}
    return procstat.CounterSample(at=at, own_cpu=at, **kernel)


class FakeSite:
    """Answers as the lab does; a test replaces one answer."""

    def __init__(self, **answers: Callable[[], Any]) -> None:
        self._answers = answers

    def _answer(self, name: str, usual: Any) -> Any:
        return self._answers[name]() if name in self._answers else usual

    def describe(self) -> schema.Machine:
        return MACHINE

    def confounders(self) -> schema.Confounders:
        files = self._answer("confounders", _LOOKED["files"])
        return machine.confounders_in(files)

    def verify(self) -> list[tuple[str, dict[str, Any]]]:
        return [("server", self._answer("verify", {**_REPORT, "drift": []}))]

    def topology(self, _: int) -> contract.Topology:
        return contract.Topology((), WHAT.pod_cpu_limit)

    def throttled(self, pairs: int) -> dict[int, int]:
        count = machine.throttled(self._answer("throttled", "nr_periods 3\nnr_throttled 1\n"))
        return {} if count is None else dict.fromkeys(range(1, pairs + 1), count)

    def drive(self, pairs: int) -> Any:
        raw = self._answer("traffic", json.dumps(_IPERF).encode())
        both = self._answer("edges", (_edge(1.0), _edge(3.0)))
        outcome = traffic.of(WHAT.traffic).kinds[0].parse(raw, b"", 0, WHAT)
        results = [contract.PairResult(index, outcome) for index in range(1, pairs + 1)]
        return contract.TrafficResult(results, {"lab": both})


def measured(**answers: Callable[[], Any]) -> schema.Record:
    """The record of a run at a site with these answers, written and read back."""
    with patch.object(TARGETS["lab"], "backend", lambda _: FakeSite(**answers)):
        record, _ = measure.run(WHAT, on=MACHINE)
    return schema.Record.model_validate_json(record.model_dump_json())


def _of_run(name: str) -> Callable[[bytes], object]:
    return lambda data: measured(**{name: lambda: _text(data)})


add(
    "traffic of a run",
    lambda data: measured(traffic=lambda: data),
    _IPERFS,
    json.dumps(_IPERF),
    errors=(Refusal,),
)
add("traffic beside a record", records._traffic, _IPERFS, json.dumps(_IPERF))
add(
    "cpu.stat of a pod",
    _of_run("throttled"),
    text_like(["usage_usec 5\nnr_periods 3\nnr_throttled 1\nthrottled_usec 0\n"]),
    "nr_periods 3\nnr_throttled 1\n",
    errors=(Refusal,),
)
for _name, _words in (("stat", _STAT), ("softirqs", _SOFTIRQS), ("softnet", _SOFTNET)):

    def _one(data: bytes, name: str = _name) -> object:
        return measured(edges=lambda: (_edge(1.0), _edge(3.0, **{name: _text(data)})))

    def _both(data: bytes, name: str = _name) -> object:
        bent = {name: _text(data)}
        return measured(edges=lambda: (_edge(1.0, **bent), _edge(3.0, **bent)))

    for _title, _read in (("at the end", _one), ("at both edges", _both)):
        add(
            f"/proc: {_name} {_title}",
            _read,
            text_like([_words]),
            _words,
            errors=(Refusal,),
        )


for _name, _words in (("snmp", _SNMP), ("dev", _DEV)):

    def _of_pods(data: bytes, name: str = _name) -> object:
        bent = ({"snmp": _SNMP, "dev": _DEV, name: _text(data)},)
        both = tuple(replace(_edge(at), networks=bent) for at in (1.0, 3.0))
        return measured(edges=lambda: both)

    add(f"/proc/net/{_name} of pods", _of_pods, text_like([_words]), _words, errors=(Refusal,))


def _edges_here(folder: Path) -> object:
    """The three files of one edge, one of them hostile."""
    both = procstat.CounterSample.read(folder), procstat.CounterSample.read(folder)
    return measured(edges=lambda: both)


def _kernel(folder: Path) -> None:
    (folder / "net").mkdir()
    for name, words in (("stat", _STAT), ("softirqs", _SOFTIRQS), ("net/softnet_stat", _SOFTNET)):
        (folder / name).write_text(words)


add(
    "/proc/stat, read here",
    _edges_here,
    text_like([_STAT]),
    _STAT,
    errors=(Refusal,),
    file="stat",
    around=_kernel,
    plain=True,
)
add(
    "/proc/interrupts",
    lambda data: measured(
        confounders=lambda: {**_LOOKED["files"], "/proc/interrupts": _text(data)}
    ),
    text_like([_INTERRUPTS]),
    _INTERRUPTS,
    errors=(Refusal,),
)
add(
    "files of a node, in a run",
    lambda data: measured(confounders=lambda: _node_files(data)["files"]),
    json_like(_LOOKED),
    json.dumps(_LOOKED),
    errors=(Refusal,),
)
add(
    "the agent's answer in a run",
    lambda data: measured(
        verify=lambda: cluster_steer.read(shell.Answer(0, _text(data), ""), "verify", "node x")
    ),
    json_like(_REPORT),
    json.dumps(_REPORT),
    errors=(Refusal,),
)

# --- nodes: what look and ethtool bring, and what doctor concludes ---


def _described(data: bytes) -> object:
    return machine.described(_node_files(data), ["eth0"], {"iperf3": "3.12"})


_ABOUT = {
    "files": {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: x\n",
        "/proc/sys/kernel/osrelease": "6.1\n",
        "/sys/devices/system/cpu/online": "0-3\n",
        "/sys/class/net/eth0/mtu": "1500\n",
        "/sys/class/net/eth0/queues/rx-0": "",
    },
    "commands": {"uname -m": "x86_64\n", "ethtool --show-features eth0": "rx-checksumming: on\n"},
}
add("a node described", _described, json_like(_ABOUT), json.dumps(_ABOUT), errors=(Refusal,))


def _about_text(path: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        files = {**_ABOUT["files"], path: _text(data)}
        return machine.described({**_ABOUT, "files": files}, ["eth0"], {"iperf3": "3.12"})

    return read


for _path, _words in (
    ("/proc/cpuinfo", "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\nCPU part\t: 0xd0c\n"),
    ("/sys/devices/system/cpu/online", "0-3,8\n"),
    ("/sys/class/net/eth0/mtu", "1500\n"),
):
    add(_path, _about_text(_path), text_like([_words]), _words, errors=(Refusal,))

_FEATURES = "Features for eth0:\nrx-checksumming: on\ngeneric-receive-offload: off [fixed]\n"


def _ethtool(data: bytes) -> object:
    printed = {**_ABOUT["commands"], "ethtool --show-features eth0": _text(data)}
    return machine.described({**_ABOUT, "commands": printed}, ["eth0"], {"iperf3": "3.12"})


add("ethtool's features", _ethtool, text_like([_FEATURES]), _FEATURES, errors=(Refusal,))

_DOCTOR: dict[str, Any] = {
    "show": {"sock_flow_entries": 0, "snapshots": [{"owner": "x"}]},
    "verify": {
        "sock_flow_entries": 0,
        "warnings": [],
        "queues": [
            {"role": role, "device": name, "queue": "rx-0", "rps_cpus": "0", "rps_flow_cnt": 0}
            for role, name in (("nic", "eth0"), ("overlay", "vxlan.calico"))
        ],
        "drift": [{"kind": "missing", "message": "x"}],
    },
    "looked": {
        "files": {
            **_LOOKED["files"],
            "/sys/class/net/vxlan.calico/mtu": "1450\n",
        },
        "commands": {
            f"ethtool --show-features {name}": _FEATURES for name in ("eth0", "vxlan.calico")
        },
    },
}


def _concluded(answers: Mapping[str, Any]) -> object:
    """Doctor's findings of a node from its three answers."""
    found = cluster_doctor.NodeFindings("n", "server", 2, "6.1")
    state = config.state("rfs-2", {"target": "kubernetes", **_IMAGES}, online=(0, 1))
    cluster_doctor.concluded(found, state, answers["show"], answers["verify"], answers["looked"])
    return found


def _asked_of_agent(data: bytes, name: str) -> dict[str, Any]:
    return cluster_steer.read(shell.Answer(0, _text(data), ""), name, "node n")


_IMAGES = {"images": '{"iperf3": "r/i:1", "steering": "r/s:1"}'}


add(
    "API server's refusal",
    lambda data: [access.words(403, None, data), access.words(None, "x", _text(data))],
    json_like({"message": "no", "code": 403}),
    '{"message": "no"}',
)


def _hooked(verb: str, read: Callable[[Any], object], data: bytes) -> object:
    """What a hook is given; the shell hands bytes over as they are."""
    stdin = io.TextIOWrapper(io.BytesIO(data), "utf-8", "surrogateescape")
    with (
        patch.object(hook.sys, "stdin", stdin),
        patch.object(hook, "show_json"),
        patch.object(TARGETS["lab"], "require"),
        patch.dict(hook.HOOKS, {verb: read}),
    ):
        return hook.call(verb)


add(
    "measurement of a stack",
    partial(_hooked, "measure", single.declared),
    json_like(json.loads(WHAT.to_stdin())),
    WHAT.to_stdin(),
    errors=(Refusal,),
)


_HANDED = {"guard": _GUARD, "plan": plan(rule("nic", "eth0"))}
add(
    "node of a stack",
    partial(_hooked, "restore", hook._node),
    json_like(_HANDED),
    json.dumps(_HANDED),
    errors=(Refusal,),
)


def _claimed(said: Any) -> object:
    """What a claim asks for; the cluster is asked later."""
    with patch.object(pinned, "look", return_value=(None, pinned.UNKNOWN)):
        return hook._claimant(said)


_CLAIM = {"stack": "mine", "kubeconfig": "", "context": ""}
add(
    "claim of a stack",
    partial(_hooked, "claim", _claimed),
    json_like(_CLAIM),
    json.dumps(_CLAIM),
    errors=(Refusal,),
)


def _copied(said: Any) -> object:
    """Which Secrets are to be copied; the cluster is asked later."""
    with patch.object(access, "connect"), patch.object(admission, "copy"):
        return hook._secrets(said)


_SECRETS = {"kubeconfig": "", "context": "", "namespace": "n", "secrets": ["a/b"]}
add(
    "Secrets of a stack",
    partial(_hooked, "secrets", _copied),
    json_like(_SECRETS),
    json.dumps(_SECRETS),
    errors=(Refusal,),
)
add(
    "cluster of a sweep",
    lambda folder: pinned.kept(folder / "cluster.json"),
    json_like({"context": "c", "server": "https://s", "cluster": "uid"}),
    '{"context": "c", "server": "https://s"}',
    errors=(Refusal,),
    file="cluster.json",
)
add(
    "settings of a cluster",
    lambda data: config.cluster({"kubernetes": _text(data)}),
    json_like({"kubeconfig": "x", "ssh": {"port": 1}, "pods": {"runAsUser": 1}}),
    '{"context": "x", "pods": {"runAsUser": "assigned"}}',
    errors=(Refusal,),
)


def _irq_accounting(folder: Path) -> object:
    with patch.object(machine, "PROC", folder):
        return machine.irq_time_accounting()


_CONFIG = gzip.compress(b"CONFIG_RPS=y\nCONFIG_IRQ_TIME_ACCOUNTING=y\n", mtime=0)
add(
    "/proc/config.gz",
    _irq_accounting,
    damaged(_CONFIG) | damaged(gzip.compress(b"\xff" * 4096)),
    _CONFIG,
    errors=(Refusal,),
    file="config.gz",
    plain=True,
)
add(
    "files that look brings",
    lambda folder: json.dumps(agent_procstat.read_files(["proc/*", "sys/*/*"], folder)),
    text_like([_STAT]),
    _STAT,
    file="proc/stat",
    plain=True,
)


def _online(folder: Path) -> object:
    with patch.object(cores, "_CPUS", folder):
        return cores.online()


add(
    "online cores",
    _online,
    text_like(["0-3\n", "0,2-3\n"]),
    "0-3\n",
    errors=(Refusal, OSError),
    file="online",
    plain=True,
)

# --- what the API server and doctor are told ---

_EDGES = [
    {"at": at, "own_cpu": at, "stat": _STAT, "softirqs": _SOFTIRQS, "softnet": _SOFTNET}
    for at in (1.0, 3.0)
]


def _window(data: bytes) -> object:
    return measured(edges=lambda: counters.window_of(_text(data), "n"))


add(
    "edges of a node's window",
    _window,
    json_like(_EDGES),
    f"ready\n{json.dumps(_EDGES)}",
    errors=(Refusal,),
)


def _pods(data: bytes) -> object:
    """Pods and services of others may be in the namespace, with any labels."""
    pod = SimpleNamespace(
        metadata=SimpleNamespace(
            labels={"steerlab/role": "server", "steerlab/pair": _text(data)},
            name="x",
            uid="u",
            deletion_timestamp=None,
        ),
        spec=SimpleNamespace(node_name="n", containers=[]),
        status=SimpleNamespace(
            conditions=[SimpleNamespace(type="Ready", status="True")],
            pod_ip="10.0.0.1",
            host_ip="192.0.2.1",
            container_statuses=[],
        ),
    )
    return pods.running([pod], "server", "iperf3")


add("labels of pods", _pods, text_like(["7\n"]), "7")
add(
    "a node's CPUs",
    lambda data: cpus_of(_text(data)),
    text_like(["4", "3920m"]),
    "3920m",
    errors=(Refusal,),
)
_OBJECT_JSON = {"metadata": {"name": "n"}, "status": {"phase": "Active"}}
add(
    "object of the API server",
    access.answered,
    json_like(_OBJECT_JSON),
    json.dumps(_OBJECT_JSON),
    errors=(Refusal,),
)
_NAMESPACE = {
    "metadata": {
        "name": "n", "uid": "u", "labels": {"steerlab/id": "1"}, "annotations": {"steerlab/user": "a"},
        "creationTimestamp": "2026-11-28T09:00:00Z", "deletionTimestamp": "2026-11-28T09:00:00Z",
    }
}  # fmt: skip
add(
    "a stack's namespace in the API",
    lambda data: ownership.namespace_of(access.answered(data)),
    json_like(_NAMESPACE),
    json.dumps(_NAMESPACE),
    errors=(Refusal,),
)
add(
    "answers that doctor gets of a node",
    lambda data: _concluded(_DOCTOR | {"looked": _node_files(data)}),
    json_like(_DOCTOR["looked"]),
    json.dumps(_DOCTOR["looked"]),
    errors=(Refusal,),
)
add(
    "answers of the agent that doctor gets",
    lambda data: _concluded(_DOCTOR | {"verify": _asked_of_agent(data, "verify")}),
    json_like(_DOCTOR["verify"]),
    json.dumps(_DOCTOR["verify"]),
    errors=(Refusal,),
)


# --- rollouts ---

_LOGGED = {"n": 7, "at": "2026-11-28T03:21:36.123Z", "who": "me", "node": "n1", "step": "keep"}
add(
    "local audit log",
    lambda folder: AuditLog(folder / "audit.jsonl"),
    json_like(_LOGGED),
    json.dumps(_LOGGED),
    errors=(Refusal,),
    file="audit.jsonl",
)
add(
    "lines of a node's audit log",
    lambda folder: AuditLog(folder / "new").add(
        "n1", untrusted.parsed((folder / "said").read_bytes())
    ),
    json_like([_LOGGED]),
    json.dumps([_LOGGED]),
    errors=(Refusal, ValueError),
    file="said",
    plain=True,
)
add(
    "latency of a node",
    lambda data: latency_ms(_text(data)),
    text_like(["250"]),
    "250",
    errors=(Refusal,),
)
