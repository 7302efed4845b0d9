"""Connections through a load balancer that cuts idle ones, with credentials from a plugin of the kubeconfig."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from asked import where
from lab_project import Project
from rig import certificates, layout
from rig.cluster import Cluster
from test_stack import values
from test_sweep_switchback_cluster import measured, switched

from experiments.targets.kubernetes import shell, target
from infra.traffic.contract import Values

STACK = "baseline-1"
# Seconds after which the load balancer cuts, and between heartbeats: an eighth of 20 and of 5.
IDLE_S, HEARTBEAT_S = 2.5, 0.6


class IdleProxy:
    """A TCP proxy that cuts a connection when one of its directions has been idle for so many seconds."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port

    @contextlib.contextmanager
    def listening(self) -> Iterator[int]:
        """The port where it listens, on the loopback address."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        made = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(made, loop).result(10)
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self._there)
        ways = (self._pass(client, to_server), self._pass(server, to_client))
        tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for writer in (to_client, to_server):
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            while data := await asyncio.wait_for(source.read(1 << 16), IDLE_S):
                to.write(data)
                await to.drain()


def with_plugin(folder: Path, port: int) -> Path:
    """A kubeconfig of the administrator whose credentials come from a plugin, which counts its calls."""
    document = json.loads(certificates.kubeconfig("admin"))
    (user,) = document["users"]
    own = {name: base64.b64decode(text).decode() for name, text in user["user"].items()}
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "clientCertificateData": own["client-certificate-data"],
            "clientKeyData": own["client-key-data"],
        },
    }
    plugin = folder / "plugin.py"
    plugin.write_text(
        f"open({str(folder / 'calls')!r}, 'a').write('call\\n')\nprint({json.dumps(credential)!r})\n"
    )
    user["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(plugin)],
            "interactiveMode": "Never",
        }
    }
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    (folder / "config").write_text(json.dumps(document))
    return folder / "config"


def test_runs_that_are_longer_than_an_idle_timeout(
    project: Project, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.up(STACK, *where(cluster), "runs=0")
    steered = values(cluster)
    api = urlsplit(layout.API)
    with IdleProxy(str(api.hostname), api.port or 443).listening() as port:
        kubeconfig = with_plugin(tmp_path, port)
        through = {"kubernetes.kubeconfig": str(kubeconfig)}
        monkeypatch.setattr(shell, "HEARTBEAT_S", HEARTBEAT_S)
        windows = switched(cluster, STACK, 2 * IDLE_S, through)
        assert [len(window.traffic.results) for window in windows] == [1, 1]
        longer = measured(cluster, STACK, {**through, "duration": "6", "omit": "0"})
        backend = target.backend(longer)
        (pair,) = backend.drive(1).results
        assert isinstance(pair.outcome, Values)
        assert backend.verify()[0][1]["drift"] == []
        assert (tmp_path / "calls").read_text() == "call\n"

        monkeypatch.setattr(shell, "HEARTBEAT_S", 60)
        began = time.monotonic()
        (pair,) = target.backend(longer).drive(1).results
        assert not isinstance(pair.outcome, Values)  # the proxy does cut
        assert time.monotonic() - began < 60
    assert values(cluster) == steered
