"""`doctor`: what it says of a machine, and that it ends with 3 where the lab cannot run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.targets.lab import doctor
from experiments.targets.lab.doctor import Findings

ROOT = Path(__file__).resolve().parents[2]

NODE: dict[str, Any] = {
    "kernel": "6.1.0",
    "cpu": "AMD EPYC",
    "cores": [0, 1, 2, 3],
    "isolated": "3",
    "offline": "",
    "rps": True,
    "irq_time_accounting": False,
    "irqbalance": True,
    "cgroup": "v2",
    "nics": {"ens5": 1, "ens6": 8},
    "transmit": {"ens5": 1, "ens6": 4},
    "interrupts": {"27 ens5": [10, 30, 0, 0], "28 ens6-rx": [0, 0, 0, 0]},
    "tools": {"ip": "6.1.0", "iperf3": None},
    "pulumi": None,
    "steering": {
        "sock_flow_entries": 0,
        "queues": [
            {"queue": "rx-0", "rps_cpus": "00000000,00000003", "rps_flow_cnt": 0},
            {"queue": "rx-1", "rps_cpus": "0", "rps_flow_cnt": 0},
        ],
        "machine": {"rps_sock_flow_entries": 0},
        "snapshots": [
            {
                "owner": "rps-2/server",
                "since": "2026-01-01T00:00:00Z",
                "values": {"rps_cpus": 6, "rps_sock_flow_entries": 1},
                "lease_seconds_left": 90.0,
                "watchdog": 7,
            },
            {"owner": "old", "error": "of an earlier boot"},
        ],
    },
    "kept_by": None,
    "lab": "rps-2 in /srv/steerlab",
    "missing": ["install iperf3"],
}


def test_a_machine_in_words() -> None:
    assert Findings(**NODE).text().splitlines() == [
        "kernel      6.1.0",
        "CPU         AMD EPYC",
        "cores       0-3 online, 3 isolated",
        "RPS, RFS    yes",
        "softirq     sampled at the tick (CONFIG_IRQ_TIME_ACCOUNTING)",
        "irqbalance  runs",
        "queues      ens5 1 rx 1 tx, ens6 8 rx 4 tx",
        "            ens5 interrupts at most 1 of 4 cores: RPS can use the others",
        "            ens6 has a queue for each core: RSS already spreads packets, RPS adds little",
        "interrupts  ens5 core 1 (75%)",
        "cgroup      v2",
        "tools       ip 6.1.0, iperf3 missing",
        "Pulumi      not on PATH: --engine embedded does without",
        "steering    owner rps-2/server since 2026-01-01T00:00:00Z: 6 rps_cpus, "
        "1 rps_sock_flow_entries, lease for another 1m",
        "            owner old: of an earlier boot",
        "in use      rps_cpus on 1 of 2, rps_flow_cnt on 0 of 2, rps_sock_flow_entries 0",
        f"try first   {doctor.advice({'ens5': 1}, 4)}",
        "lab         cannot run here; up: stack rps-2 in /srv/steerlab",
        "lacks       install iperf3",
    ]
    calm = {**NODE, "steering": {"snapshots": []}, "lab": None, "missing": [], "nics": {}}
    text = Findings(**calm).text()
    assert "\nqueues      no physical NIC\ninterrupts" in text
    assert "\nsteering    no active snapshots\nin use      none visible" in text
    assert text.endswith("\nlab         can run here; none is up")
    text = Findings(**{**calm, "steering": "unknown: why"}).text()
    assert "\nsteering    unknown: why\ntry first" in text
    assert text.endswith("\nlab         can run here")


def test_a_machine_with_what_could_mislead() -> None:
    uppers = [{"namespace": None, "device": "bond0", "receives_on": ["ens5", "ens6"]}]
    failing = {"unit": "steerlab-steering.service", "state": "failed (failed)", "why": "no pods"}
    odd = {
        **NODE,
        "kernel": "6.18.3-arch1-1",
        "offline": "4-7",
        "steering": {**NODE["steering"], "uppers": uppers},
        "kept_by": failing,
    }
    text = Findings(**odd).text()
    for words in ("4-7 offline", "CVE-2026-43208", "bond0 receives on ens5, ens6", "no pods"):
        assert words in text
    said = Findings(**odd).to_json()
    assert len(said["warnings"]) == 1
    assert Findings(**NODE).to_json()["warnings"] == []


@pytest.mark.parametrize(
    ("nics", "cores", "words"),
    [
        ({"eth0": 1}, 1, "nothing: steering needs"),
        ({"eth0": 4}, 4, "nothing: each core has a queue"),
        ({"eth0": 1}, 4, "rfs"),
        ({}, 4, "rfs"),
    ],
)
def test_what_to_try_first(nics: dict[str, int], cores: int, words: str) -> None:
    assert doctor.advice(nics, cores).startswith(words)


@pytest.mark.parametrize(
    ("queues", "cores", "words"),
    [
        (1, 1, None),
        (1, 2, "interrupts at most 1 of 2 cores"),
        (4, 4, "a queue for each core"),
        (8, 4, "a queue for each core"),
        (3, 4, "at most 3 of 4"),
    ],
)
def test_rps_is_hinted_at_where_queues_are_fewer_than_cores(
    queues: int, cores: int, words: str | None
) -> None:
    said = doctor.hints({"eth0": queues}, cores)
    assert (words in said[0]) if words else said == []


@pytest.mark.parametrize(
    ("tool", "argument", "output", "found"),
    [
        ("ip", "-V", "ip utility, iproute2-6.1.0, libbpf 1.1.0", "6.1.0"),
        ("mpstat", "-V", "sysstat version 12.6.1\n(C) Sebastien Godard", "12.6.1"),
        ("iperf3", "--version", "iperf 3.12 (cJSON 1.7.15)\nLinux host 6.18.44", "3.12"),
        ("ethtool", "--version", "ethtool version 6.1", "6.1"),
        ("pulumi", "version", "v3.226.0", "3.226.0"),
        ("taskset", "--version", "no number", "?"),
    ],
)
def test_the_version_of_a_tool(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    argument: str,
    output: str,
    found: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.version(tool) is None
    (tmp_path / "said").write_text(output)
    (tmp_path / tool).write_text(
        f'#!/bin/sh\n[ "$*" = {argument} ] || exit 1\nwhile read -r line; do echo "$line"; done < '
        f'{tmp_path}/said\necho "$line"\n'
    )
    (tmp_path / tool).chmod(0o755)
    assert doctor.version(tool) == found


def test_without_a_tool_the_lab_cannot_run_and_doctor_says_which(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "experiments", "doctor"]
    empty = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [*words, "--json"], cwd=ROOT, env=empty, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["kernel"] == platform.release()
    assert found["tools"]["iperf3"] is None
    assert any("iperf3" in reason for reason in found["missing"])
    assert len(found["cores"]) == os.cpu_count()
