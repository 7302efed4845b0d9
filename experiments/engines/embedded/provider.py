"""What the providers of the embedded engine have in common: properties and failures."""

from __future__ import annotations

from typing import Any

Properties = dict[str, Any]


class OperationFailed(Exception):
    """A provider could not create, update or delete a resource; the message says why."""


class OperationInterrupted(OperationFailed):
    """An operation was ended because the engine was told to stop."""
