"""The cluster's API: a client from a kubeconfig, and what its refusals mean in words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from infra.refusals import Cannot

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# A call that takes longer than this has lost its API server, seconds.
CALL_S = 30.0


def connect(kubeconfig: str, context: str) -> ApiClient:
    """A client of the cluster; empty words mean kubectl's defaults. Raises `Cannot`.

    Credentials stay in the kubeconfig: nothing of it is kept, shown or recorded.
    """
    from kubernetes import config
    from kubernetes.config import ConfigException

    where = kubeconfig or "$KUBECONFIG or ~/.kube/config"
    try:
        return config.new_client_from_config(kubeconfig or None, context or None)
    except ConfigException as error:
        known = "" if not context else f" (context {context})"
        raise Cannot(f"kubeconfig: {where}{known}: {error}") from None
    except (OSError, ValueError, TypeError) as error:
        raise Cannot(f"kubeconfig: {where}: {type(error).__name__}: it cannot be read") from None


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the API refuses, or its absence, into a `Cannot` that says what was tried."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise Cannot(f"{doing}: {words(error.status, error.reason, error.body)}") from None
    except (HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Cannot(f"{doing}: the API server does not answer: {reason}") from None


def words(status: int | None, reason: str | None, body: str | bytes | None) -> str:
    """The API's own words for a refusal, and what to do about the usual ones (pure)."""
    try:
        said = str(json.loads(body or "")["message"])
    except (ValueError, KeyError, TypeError):
        said = reason or "no reason was given"
    hints = {
        401: "the kubeconfig's credentials are not accepted: log in again",
        403: "the role of this kubeconfig does not allow it: ./steerlab doctor --target kubernetes "
        "lists what is needed",
    }
    hint = hints.get(status or 0)
    return f"{said} ({hint})" if hint else said
