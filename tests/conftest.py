"""Which tests can run here: the lab tier needs root and the lab's tools, the cli tier Pulumi's CLI.

On a developer's machine what cannot run is skipped with its reason; with CI=true a tier that
cannot run is a failure, for a skipped test has shown nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import cache
from pathlib import Path

import pytest

# A shell's background job starts with these ignored, and so would every process under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LAB = Path(__file__).parent / "lab"
CLUSTER = Path(__file__).parent / "cluster"
# Set by `./steerlab test --cluster`: a cluster is started for its tests alone.
ASKED = "STEERLAB_CLUSTER"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(LAB):
            item.add_marker(pytest.mark.lab)
        if item.path.is_relative_to(CLUSTER):
            item.add_marker(pytest.mark.cluster)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lab") and (reason := _no_lab()):
        if os.environ.get("CI") == "true":
            pytest.fail(f"the lab tier must run where CI=true: {reason}", pytrace=False)
        pytest.skip(reason)
    if item.get_closest_marker("cluster") and os.environ.get(ASKED) != "1":
        pytest.skip("a cluster is started for ./steerlab test --cluster alone")
    if item.get_closest_marker("cli") and (reason := _no_cli()):
        pytest.skip(reason)


@cache
def _no_lab() -> str:
    from experiments import requirements

    return "; ".join(requirements.missing())


@cache
def _no_cli() -> str:
    needed = ("pulumi", "pulumi-language-python", "pulumi-resource-command")
    absent = [name for name in needed if shutil.which(name) is None]
    return f"the Pulumi CLI is optional: no {', '.join(absent)} on PATH" if absent else ""
