"""Calls of a cluster's API without one: which way they take, and what is said of its objects."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from experiments.engines.embedded import kubernetes as kinds
from experiments.engines.embedded.provider import OperationFailed
from infra.kubernetes import access

# --- one way to the API server ---


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("192.0.2.9, api.Example.com", True),
        ("192.0.2.9,api.example.com:6443", True),
        (".example.com ", True),
        ("*", True),
        ("other.example.com, ple.com", False),
        ("", False),
    ],
)
def test_exec_takes_the_proxy_where_other_calls_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: bool
) -> None:
    from kubernetes.stream.ws_client import websocket_proxycare
    from websocket._url import get_proxy_info

    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.80:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    cluster = {"name": "c", "cluster": {"server": "https://api.example.com:6443"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster],
        "contexts": [context], "users": [{"name": "u", "user": {}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(document))
    api = access.connect(str(tmp_path / "config"), "")
    rest = type(api.rest_client.pool_manager).__name__
    options = websocket_proxycare({}, api.configuration, "", {})
    proxy = get_proxy_info(
        "api.example.com",
        True,
        options.get("http_proxy_host"),
        options.get("http_proxy_port", 0),
        no_proxy=options.get("http_no_proxy"),
    )
    assert (rest == "ProxyManager", proxy[0] is not None) == (not direct, not direct)


# --- what is said of an object that is not ready ---


class Frozen(kinds.Objects):
    """A cluster whose objects stay as they are."""

    def __init__(self, live: dict, pods: list[dict] | None = None) -> None:
        super().__init__({}, threading.Event(), preview=False)
        self._live, self._listed = live, pods or []

    def _call(self, _: str, kind: kinds.Kind, *__: object, **___: object) -> dict:
        return {"items": self._listed} if kind.plural == "pods" else self._live


def condition(type_: str, status: str, message: str) -> dict:
    return {"type": type_, "status": status, "message": message}


TERMINATING = {
    "metadata": {"name": "n", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
    "status": {
        "phase": "Terminating",
        "conditions": [
            condition("NamespaceDeletionDiscoveryFailure", "False", "all discovered"),
            condition("NamespaceFinalizersRemaining", "True", "finalizer example.com/f in 1 pod"),
        ],
    },
}
NAMESPACE = {"metadata": {"name": "n"}}


def test_a_namespace_that_is_being_deleted_is_told_at_once() -> None:
    with pytest.raises(OperationFailed, match=r"being deleted .*example.com/f") as refused:
        Frozen(TERMINATING).create("kubernetes:core/v1:Namespace", NAMESPACE)
    assert "all discovered" not in str(refused.value)


def test_a_namespace_that_does_not_go_names_its_finalizers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kinds, "WAIT_S", 0.1)
    with pytest.raises(OperationFailed, match=r"finalizer example\.com/f in 1 pod after"):
        Frozen(TERMINATING).delete("kubernetes:core/v1:Namespace", NAMESPACE)


def test_a_deployment_that_is_not_ready_says_why_its_pods_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kinds, "WAIT_S", 1.5)
    live = {
        "metadata": {"name": "d", "uid": "1"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}},
        "status": {
            "conditions": [
                condition("Available", "False", "no minimum"),
                condition("Progressing", "True", "progressing"),
                condition("ReplicaFailure", "True", "exceeded quota"),
            ]
        },
    }
    taint = "0/1 nodes are available: 1 node(s) had untolerated taint"
    pods = [
        {
            "metadata": {"name": "p"},
            "status": {"conditions": [condition("PodScheduled", "False", taint)]},
        }
    ]
    with pytest.raises(OperationFailed) as refused:
        Frozen(live, pods).create("kubernetes:apps/v1:Deployment", live)
    for words in ("exceeded quota", f"pod p: {taint}"):
        assert words in str(refused.value)
    assert "progressing" not in str(refused.value)
