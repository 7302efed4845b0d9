"""Documents that once ended a reader in a traceback, kept it busy or took all memory, by reader."""

from __future__ import annotations

import json

_DEEP = b"[" * 5000
_PLAN = {
    "configurations": ["rfs"], "replicas": [1], "blocks": 2, "duration": 5, "omit": 1, "streams": 1,
    "paths": ["overlay"], "until_ci": None, "isolation": "incremental", "seed": 7, "settings": [],
    "left_out": [], "definitions": [], "runs": [{"block": 0}],
}  # fmt: skip
_RUNS = b"cpu0 5 10 15 20\n"
_NO_TYPE = {"version": 3, "checkpoint": {"latest": {"resources": [{"urn": "u"}]}}}
_ODD_INPUTS = {"urn": "u", "type": "command:local:Command", "inputs": 1, "outputs": []}
_ODD_OUTPUT = {
    "urn": "u",
    "type": "command:local:Command",
    "custom": True,
    "outputs": {"stdout": [1]},
}
_ODD_PENDING = {"type": "creating", "resource": {"urn": "u", "type": "x:y:Z"}}
_PENDING = {"version": 3, "checkpoint": {"latest": {"pending_operations": [_ODD_PENDING]}}}
_ODD_RESOURCE = {"version": 3, "checkpoint": {"latest": {"resources": [_ODD_INPUTS]}}}
_SNAPSHOT = {
    "version": 2, "owner": "mine/server", "boot_id": "boot-one", "since": "x", "pid": 1, "plan": {},
    "lease": None,
}  # fmt: skip
_ENTRY = {
    "namespace": None, "cookie": "own", "device": "eth0", "ifindex": 2, "queue": "rx-0", "inode": 0,
    "knob": "rps_cpus", "before": "0", "written": ["1"], "overwritten": [], "reason": None,
}  # fmt: skip


def _snapshot(**changes: object) -> bytes:
    return json.dumps({**_SNAPSHOT, "entries": [{**_ENTRY, **changes}]}).encode()


FOUND: dict[str, tuple[bytes, ...]] = {
    "plan of a sweep": (_DEEP, b'{"runs": 1e999}', json.dumps(_PLAN).encode()),
    "raw text of the study": (
        b"Running experiment " + b"9" * 4301 + b"...\n",
        b"Running experiment 1...\nExperiment 1 completed.\n1\n2\nAverage: CPU %soft %idle\n"
        b"Average: all 1 1\nAverage: " + b"9" * 4301 + b" 1 1\n",
    ),
    "table of the study, confidence_4_soft": (
        b"x\n" + b"a" * 140_000, b"x,\0\n1,2\n", b"x,C" + b"9" * 4301 + b"\nx,1\n",
        b"x,C1\nx," + b"9" * 400 + b"\n",
    ),
    "configurations": (b'{"mine": {"nic": {"cpus": ' + _DEEP, b"mine: !!timestamp x\n"),
    "matrix": (b'runs: !!int ""\n', b"runs: !!bool x\n", b"config: [{}]\n", b"runs: " + b"9" * 4301),
    "stack's file": (_DEEP, b"config: 0\n", b"config: {x: !!map [1]}\n"),
    "stack's file to change": (b"0", b"config: {steerlab:replicas: 4}\n\xc2\x85  x: {a: [0]}\n"),
    "kubeconfig": (
        b"\t", b"\x1b", b"}", b"users: !!python/name:os.system x\n", _DEEP,
        b'{"current-context": "c", "contexts": [{"name": "c", "context": -1e999}]}',
    ),
    "checkpoint, by the embedded engine": (
        json.dumps(_PENDING).encode(), b'{"a":' * 5000, json.dumps(_ODD_RESOURCE).encode()),
    "checkpoint, by any engine": (
        b"", b"\xfa", b"0", b"9" * 5000, _DEEP, b'{"": ""}', b'{"version": 3, "checkpoint": 1}',
        json.dumps(_NO_TYPE).encode(),
        json.dumps({"version": 3, "checkpoint": {"latest": {"resources": [_ODD_OUTPUT]}}}).encode(),
        json.dumps(_ODD_RESOURCE).encode(),
    ),
    "words of a resource": (
        b'{"guard": null}', b'{"guard"', b'{"namespaces": {"x": null}}', b'{"namespaces": true}', _DEEP,
    ),
    "lock of a stack": (_DEEP,),
    "lock of the machine": (b"\x85",),
    "claim of the lab": (b"\x93",),
    "plan that systemd keeps": (_DEEP,),
    "output of stream": (_DEEP, b'{"end": {"sum_received": {"bits_per_second": 1e999}}}'),
    "traffic beside a record": (_DEEP,),
    "the agent's answer here": (b"0", b'{"": ""}', _DEEP),
    "the agent's answer on a node": (_DEEP,),
    "the agent's answer in a run": (b"9", b'{"queues": [1], "drift": [], "warnings": []}'),
    "files of a node": (b"", b"9" * 5000, _DEEP),
    "files of a node, in a run": (b"0", b"{}", b'{"files": {"/proc/interrupts": null}}'),
    "edges of a node's window": (b"", b"[1, 2]", b'[{"at": "x"}]'),
    "cpu.stat of a pod": (b"{", b"nr_throttled x\n"),
    "/proc: stat at the end": (b"cpu9 CPU1", b"cpu99999999999999999999 1", b"cpu\xc2\xb2 1", _RUNS * 2),
    "/proc: softirqs at the end": (b"", b"\\", b"CPU0\nNET_RX: x\n", b"CPU0\n\n"),
    "/proc: softnet at the end": (b"/", b" ", b"0000 1\n"),
    "/proc/stat, read here": (b"\xa9",),
    "/proc/interrupts": (
        b"", b"\0", b" CPU0\n 25: 18446744073709551616 PCI-MSI eth0\n",
        b" CPU99999999\n 25: 1 PCI-MSI eth0\n",
    ),
    "a node described": (b"", b"1", b'{"files": {}}', b'{"files": 0, "commands": {}}'),
    "/sys/devices/system/cpu/online": (b"", b"1.", b"0-999999999999", b"0-8191," * 100_000),
    "/sys/class/net/eth0/mtu": (b"", b"1e999"),
    "ethtool's features": (b": \n on: \n",),
    "API server's refusal": (_DEEP,),
    "labels of pods": (b"", b"x", b"\xc2\xb2"),
    "a node's CPUs": (b"", b"3.5", b"m"),
    "node of a stack": (_DEEP, b"[]"),
    "/proc/config.gz": (b"\n", b"\x1f\x8b\x08"),
    "online cores": (b"", b"\x85"),
    "plan of the agent, on stdin": (_DEEP,),
    "plan of the agent, in a file": (_DEEP,),
    "snapshot, by show": (_DEEP, _snapshot(device=[]), _snapshot(ifindex=None)),
    "snapshot, by restore --owner mine/server": (
        _snapshot(ifindex=1e999), _snapshot(before=1e999), _snapshot(cookie={}), _snapshot(written=[1]),
        _snapshot(namespace="/\ud800"), _snapshot(namespace="/\0"),
    ),
    "the agent's boot_id": (b"\xff",),
    "the agent's online": (b"1.", b"0-999999999999", b"\x93"),
    "the agent's isolated": (b"0-99999999", b"\xc2\xb2"),
    "the agent's ifindex": (b"", b"x"),
    "the agent's meminfo": (b"MemAvailable: " + b"9" * 5000 + b" kB\n",),
    "the agent's routes": (b"x\neth0 00000000 0 0 0 0 x 00000000 \n", b"\n" * (11 << 20)),
    "the agent's watch file": (b",, )", b"-- --"),
    "the agent's process": (b"", b"-"),
}  # fmt: skip
