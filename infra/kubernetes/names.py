"""Names and labels of a stack's objects in a cluster (pure)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator

PROJECT = {"app.kubernetes.io/name": "steerlab"}  # a label of all objects
ROLLOUT = "steerlab/rollout"  # a label of the namespace of rollouts and of their nodes
DOCTOR = "doctor-"  # prefix of the stacks of doctor, which steer nothing
OVERLAY_LEVEL, NODE_LEVEL = "restricted", "privileged"  # pod-security levels of the namespaces

_LONGEST = 36  # below 63 with a hash, prefixes and the suffix of a Deployment
_LABEL = re.compile(r"[^a-z0-9]+")
_DNS_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*\.?")
_LONGEST_DNS_NAME = 253


def label(text: str) -> str:
    """The text as a DNS label (RFC 1123), with a hash where it had to change."""
    plain = _LABEL.sub("-", text.lower()).strip("-")
    if plain == text and len(plain) <= _LONGEST:
        return plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{plain[:_LONGEST].rstrip('-')}-{digest}"


def checked_address(text: str) -> str:
    """An IP address or a DNS name, which no program can take for an option.

    Raises ValueError for any other text.
    """
    if _DNS_NAME.fullmatch(text) and len(text) <= _LONGEST_DNS_NAME:
        return text
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:  # a zone can be any text
        raise ValueError(f"{text[:80]!r} is neither an IP address nor a DNS name")
    return text


Address = Annotated[str, AfterValidator(checked_address)]


def admits(level: str) -> dict[str, str]:
    """The labels of a namespace with a pod-security level."""
    modes = ("enforce", "audit", "warn")
    return {f"pod-security.kubernetes.io/{mode}": level for mode in modes}


@dataclass(frozen=True)
class Names:
    """Names and labels of a stack's objects; `namespace` is an existing one for all of them."""

    stack: str
    namespace: str = ""

    @property
    def pods(self) -> str:
        """The namespace of the measured pods."""
        return self.namespace or f"steerlab-{label(self.stack)}"

    @property
    def steering(self) -> str:
        """The namespace of the agents and Jobs."""
        return self.namespace or f"{self.pods}-steering"

    def own(self, name: str) -> str:
        """The name of an object, which is not that of another's in a shared namespace."""
        return f"steerlab-{name}" if self.namespace else name

    @property
    def selector(self) -> str:
        """The labels of all pods and Services of the stack."""
        labels = self.labels("")
        return ",".join(f"{key}={value}" for key, value in labels.items() if value)

    def labels(self, role: str, index: int | None = None) -> dict[str, str]:
        """The labels of an object, which select exactly its pods."""
        said = PROJECT | {"steerlab/stack": label(self.stack), "steerlab/role": role}
        return said if index is None else said | {"steerlab/pair": str(index)}

    def owner(self, node: str) -> str:
        """The name under which the agent keeps a node's snapshot."""
        return f"{self.stack}/{node}"
