"""Which tests can run here: the lab tier needs root and the lab's tools, the cli tier Pulumi's CLI.

The cluster tier starts a Kubernetes of its own, where it is asked for. On a developer's machine
what cannot run is skipped with its reason; with CI=true the lab and the cluster are asked for,
and a tier that cannot run is a failure, for a skipped test has shown nothing.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
from functools import cache
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Rich keeps the width that it finds at its first import: a test sets its own.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# A shell's background job starts with these ignored, and so would every process under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LAB = Path(__file__).parent / "lab"
CLUSTER = Path(__file__).parent / "cluster"
CI = os.environ.get("CI") == "true"
# Set by `./steerlab test --cluster`.
CLUSTER_ASKED = CI or os.environ.get("STEERLAB_CLUSTER") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Compile the program once: each command of a test is a new process, often of a new copy."""
    from lab_project import PROGRAM, SOURCE

    if not hasattr(config, "workerinput"):
        for name in PROGRAM:
            compileall.compile_dir(SOURCE / name, quiet=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder, mark in ((LAB, pytest.mark.lab), (CLUSTER, pytest.mark.cluster)):
            if item.path.is_relative_to(folder):
                item.add_marker(mark)
    # the cluster last: it stays up to the end, and the lab measures on a machine of its own
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, ...]:
    """Later what needs more: the lab, the cluster's tools, the cluster."""
    of_cluster = "cluster" in getattr(item, "fixturenames", ())
    return of_cluster, item.path.is_relative_to(CLUSTER), item.path.is_relative_to(LAB)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab"):
        _require("lab", _no_lab())
        _clear(item.config)
    if item.get_closest_marker("cluster"):
        if not CLUSTER_ASKED:
            pytest.skip("a cluster is started for ./steerlab test --cluster alone")
        _require("cluster", _no_cluster())
    if item.get_closest_marker("cli"):
        provider = "kubernetes" if item.get_closest_marker("cluster") else "command"
        if reason := _no_cli(provider):
            pytest.skip(reason)


def _require(tier: str, reason: str) -> None:
    if reason and CI:
        pytest.fail(f"the {tier} tier must run where CI=true: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@cache
def _no_lab() -> str:
    from experiments.targets.lab import requirements

    return "; ".join(requirements.missing(requirements.ALL_TOOLS))


@cache
def _clear(config: pytest.Config) -> None:
    """Nothing of an earlier run of the tests that was killed is in the way of this one's labs."""
    from lab_project import clear_dead_lab, live_in

    base = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    live_in(base)
    clear_dead_lab(base)


@cache
def _no_cluster() -> str:
    from rig.cluster import lacking

    return "; ".join(lacking())


@cache
def _no_cli(provider: str) -> str:
    of_both = ("pulumi", "pulumi-language-python", "pulumi-resource-command")
    needed = dict.fromkeys((*of_both, f"pulumi-resource-{provider}"))
    absent = [name for name in needed if shutil.which(name) is None]
    return f"the Pulumi CLI is optional: no {', '.join(absent)} on PATH" if absent else ""
