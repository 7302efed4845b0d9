"""Results of `measure` become outputs of the stack, where both engines and Pulumi keep them."""

from __future__ import annotations

import json
from typing import Any

from experiments.engines import STACK_TYPE, StackRef, locks
from experiments.engines.embedded import state
from infra import checkpoint
from infra.measured import NAME, RESULTS


def keep(stack: StackRef, result: dict[str, Any]) -> None:
    """Record a measurement in the stack's checkpoint as its last `up` would.

    `pulumi stack output` shows it, and the next `up` does not measure again. A stack without a
    measurement (`runs=0`) keeps these outputs until its next `up`. Without a checkpoint nothing is
    recorded. Raises `EngineError` where the stack is locked or cannot be written.
    """
    if not stack.checkpoint.exists():
        return
    with locks.hold(stack):
        state.load(stack)  # refuses a damaged one
        document = checkpoint.read(stack.checkpoint) or {}
        for resource in document["checkpoint"]["latest"].get("resources") or ():
            _record(resource, result)
        state.save(stack, state.to_json(document))


def _record(resource: dict[str, Any], result: dict[str, Any]) -> None:
    outputs = resource.get("outputs")
    if resource["type"] == STACK_TYPE:
        others = {name: value for name, value in (outputs or {}).items() if name not in RESULTS}
        found = {name: result[name] for name in RESULTS if result.get(name) is not None}
        resource["outputs"] = others | found
    elif resource["urn"].endswith(f"::{NAME}") and outputs:
        outputs["stdout"] = json.dumps(result, indent=1)
