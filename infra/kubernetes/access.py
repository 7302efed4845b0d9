"""The cluster's API: a client from a kubeconfig, and messages for its errors."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from infra import untrusted, yaml_files
from infra.errors import PrerequisiteMissing

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# Credentials that Kubernetes gives to a pod.
POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Timeout of a call; seconds.
CALL_S = 30.0
# Limits of a kubeconfig: a hundred clusters with their certificates.
_MOST_BYTES = 1 << 20
_MOST_SIGNS = 10_000
# Credentials are obtained again after so many seconds: the library renews tokens, but no certificates of plugins.
_RENEW_S = 1800
# The library keeps the certificates of a kubeconfig in files, in a table without a lock: a file of which the
# table has no entry, because another thread added the same one, would not be removed at the end.
_LOADING = threading.Lock()


def connect(kubeconfig: str, context: str) -> ApiClient:
    """A client of the cluster; empty strings mean kubectl's defaults. Raises `PrerequisiteMissing`.

    All callers share it, so a plugin for credentials is called once and connections are reused; it is
    made again when the kubeconfig has changed. In a pod without a kubeconfig it has the rights of the
    pod's account. Credentials are never shown or recorded.
    """
    with _files(kubeconfig, context) as paths, _LOADING:
        version = int(time.monotonic() / _RENEW_S), *map(_version, paths)
        return _client(kubeconfig, context, version, *paths)


def current_context(kubeconfig: str) -> str:
    """The name of the kubeconfig's current context; empty in a pod. Raises `PrerequisiteMissing`."""
    from kubernetes import config

    with _files(kubeconfig, "") as paths:
        for path in paths:
            _check(path)
        if not paths:
            return ""
        _, current = config.list_kube_config_contexts(kubeconfig or None)
        return str(current["name"])


@contextlib.contextmanager
def _files(kubeconfig: str, context: str) -> Iterator[list[Path]]:
    """The files of a kubeconfig, whose faults are explained; none where a pod's account is used."""
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    where = kubeconfig or "$KUBECONFIG or ~/.kube/config"
    # as in the library: without a home directory ~ stays, and no file is found
    paths = [
        Path(os.path.expanduser(path))  # noqa: PTH111
        for path in (kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep)
    ]
    named = kubeconfig or context or os.environ.get("KUBECONFIG")
    try:
        in_pod = not named and not paths[0].exists() and (POD_ACCOUNT / "token").exists()
        yield [] if in_pod else paths
    except ConfigException as error:
        known = "" if not context else f" (context {context})"
        raise PrerequisiteMissing(f"kubeconfig: {where}{known}: {error}") from None
    # the library does not check the structure of the file
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise PrerequisiteMissing(
            f"kubeconfig: {where}: {type(error).__name__}: it cannot be read"
        ) from None
    except yaml.YAMLError as error:
        raise PrerequisiteMissing(
            f"kubeconfig: {where}: it is not YAML: {' '.join(str(error).split())}"
        ) from None


@lru_cache(maxsize=8)
def _client(kubeconfig: str, context: str, _: tuple[object, ...], *paths: Path) -> ApiClient:
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    if not paths:
        settings = Configuration()
        config.load_incluster_config(settings)
        return _one_way(ApiClient(settings))
    for path in paths:
        _check(path)
    return _one_way(config.new_client_from_config(kubeconfig or None, context or None))


def _version(path: Path) -> tuple[int, ...]:
    """Changes with the contents of a file."""
    if not path.exists():
        return ()
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _one_way(api: ApiClient) -> ApiClient:
    """Let WebSockets (exec) use the proxy if, and only if, other calls do.

    The library has two parsers of NO_PROXY; one of them fails with spaces, capitals and ports.
    """
    from kubernetes.client.rest import should_bypass_proxies

    settings = api.configuration
    direct = not settings.proxy or should_bypass_proxies(settings.host, settings.no_proxy or "")
    settings.no_proxy = "*" if direct else "none.invalid"  # RFC 6761: no host has this name
    return api


def _check(path: Path) -> None:
    """Refuse a kubeconfig that would take the library seconds or all memory.

    Valid ones have long certificates but few parts.
    """
    data = untrusted.content(path, _MOST_BYTES) if path.exists() else b""
    if sum(data.count(sign) for sign in b"\n,[{:?-&*") > _MOST_SIGNS:
        raise ValueError("it has too many parts")
    yaml_files.check_levels(data.decode())
    if node := yaml.compose(data, Loader=yaml.SafeLoader):
        yaml_files.check_size(node)


NAMESPACES = "/api/v1/namespaces"
# Types of the body of a PATCH.
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


def request(
    api: ApiClient,
    method: str,
    path: str,
    *,
    query: Sequence[tuple[str, str]] = (),
    body: Any = None,
    patch: str = MERGE,
) -> dict[str, Any]:
    """The object that one call returns. Raises `ApiException`, `HTTPError` and `Refusal`.

    Without the library's model of each kind: its models of core/v1 take longer to import than most
    commands take to run.
    """
    from kubernetes.client import ApiException

    kind = {"Content-Type": patch} if method == "PATCH" else {}
    made = api.param_serialize(
        method,
        path,
        query_params=list(query),
        header_params={"Accept": "application/json"} | kind,
        body=body,
        auth_settings=["BearerToken"],
    )
    response = api.call_api(*made, _request_timeout=CALL_S)
    text = response.read()
    if not 200 <= response.status < 300:
        raise ApiException(response.status, response.reason, body=text.decode(errors="replace"))
    return answered(text)


def answered(text: bytes) -> dict[str, Any]:
    """An object from the API server's answer (pure). Raises `Refusal`."""
    with untrusted.reading("the API server's answer"):
        answer = untrusted.parsed(text)
        if not isinstance(answer, dict):
            raise ValueError("it is not an object")
    return answer


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn errors of the API into `PrerequisiteMissing`, with the attempted action `doing`."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise PrerequisiteMissing(
            f"{doing}: {words(error.status, error.reason, error.body)}"
        ) from None
    except (HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise PrerequisiteMissing(f"{doing}: the API server does not answer: {reason}") from None


def words(status: int | None, reason: str | None, body: str | bytes | None) -> str:
    """The API's message of an error, with a remedy for frequent ones (pure)."""
    try:
        said = str(untrusted.parsed(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        said = reason or "no reason was given"
    hints = {
        401: "the kubeconfig's credentials are not accepted: log in again",
        403: "the role of this kubeconfig does not allow it; required rights: "
        "./steerlab doctor --target kubernetes",
    }
    hint = hints.get(status or 0)
    return f"{said} ({hint})" if hint else said
