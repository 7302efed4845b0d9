"""A lab on a machine whose network settings its namespaces inherit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_project import Project

from infra.lab import layout

_CONF = Path("/proc/sys/net/ipv4/conf")
_HOSTILE = {
    "all/arp_ignore": "2",
    "default/arp_ignore": "2",
    "all/arp_announce": "2",
    "default/arp_filter": "1",
    "default/rp_filter": "1",
    "default/forwarding": "0",
}


@pytest.fixture
def hostile() -> Iterator[None]:
    """Settings of the first namespace with which pods get no answer to ARP."""
    found = {name: (_CONF / name).read_text() for name in _HOSTILE}
    try:
        for name, value in _HOSTILE.items():
            (_CONF / name).write_text(value)
        yield
    finally:
        for name, value in found.items():
            (_CONF / name).write_text(value)


@pytest.mark.usefixtures("hostile")
def test_settings_of_the_machine_do_not_reach_the_lab(project: Project) -> None:
    outputs = project.up("baseline-1", "duration=1", "omit=0").json["outputs"]
    assert outputs["bitrate_mbps"] > 0
    pair = layout.pair("baseline-1", 1, host=False)
    for namespace, forwards in ((pair.server.namespace, "0"), (pair.server.node.namespace, "1")):
        wanted = {"arp_ignore": "0", "arp_announce": "0", "arp_filter": "0", "rp_filter": "0"}
        for name, value in (wanted | {"forwarding": forwards}).items():
            read = ["ip", "netns", "exec", namespace, "sh", "-c", f"cat {_CONF}/*/{name}"]
            found = subprocess.run(read, capture_output=True, text=True, check=True).stdout
            assert set(found.split()) == {value}, (namespace, name)
