"""Where the state of a stack is: in its own folder, or in the backend that the caller's team shares."""

from __future__ import annotations

import os

from experiments.engines import EngineError, StackRef
from infra.kubernetes.ownership import place


def shared(stack: StackRef) -> str:
    """The URL of the caller's backend, for stacks of the project; empty: the stack's own folder.

    The state of a sweep is in its results directory, whatever the backend is.
    """
    url = os.environ.get("PULUMI_BACKEND_URL", "")
    own = stack.home != stack.root or not url or place(url) == str(stack.home.resolve())
    return "" if own else url


def refuse_shared(stack: StackRef) -> None:
    """Raise `EngineError` where only the Pulumi CLI has the state: the embedded engine keeps it in a folder."""
    if url := shared(stack):
        raise EngineError(
            f"engine: PULUMI_BACKEND_URL is {place(url)}, which only the Pulumi CLI can use: install it "
            "(./steerlab setup --pulumi), or unset the variable to keep states in .pulumi",
            exit_code=3,
        )
