"""The resource graph of a program, as it declares it to an engine that builds nothing."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockMonitor, MockResourceArgs, Mocks, set_mocks

from infra.measured import RESULTS

COMMAND = "command:local:Command"
MEASURED = {
    "bitrate_mbps",
    "bitrate_ci",
    "idle_percent",
    "softirq_percent",
    "valid_runs",
    "directory",
}


@dataclass
class Graph:
    """The custom resources by name, and what the stack exports."""

    types: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    needs: dict[str, set[str]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted_first: set[str] = field(default_factory=set)
    outputs: dict[str, Any] = field(default_factory=dict)

    def under(self, name: str) -> set[str]:
        """All that must stand before this one does."""
        found: set[str] = set()
        ahead = {name}
        while ahead:
            ahead = {need for one in ahead for need in self.needs[one]} - found
            found |= ahead
        return found

    def changed(self, other: Graph) -> set[str]:
        """The resources that are in both, with inputs that differ."""
        both = self.inputs.keys() & other.inputs.keys()
        return {name for name in both if self.inputs[name] != other.inputs[name]}


class _Answers(Mocks):
    """Answers as providers would to a resource whose id is its name, or what `ids` says."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = ids

    def call(self, args: Any) -> Any:
        raise AssertionError(f"the program invokes nothing, not {args.token}")

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        own = self._ids.get(args.name, f"id of {args.name}")
        if args.typ.startswith("kubernetes:"):
            metadata = {**args.inputs["metadata"], "uid": f"uid of {args.name}"}
            return own, {**args.inputs, "metadata": metadata}
        stdout = json.dumps(dict.fromkeys(RESULTS, 0)) if args.name == "measurement" else ""
        return own, {**args.inputs, "stdout": stdout}


class _Recorder(MockMonitor):
    """The monitor of the SDK's mocks, which shows resources no options."""

    def __init__(self, mocks: Mocks) -> None:
        super().__init__(mocks)
        self.graph = Graph()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        if request.custom:
            name = request.name
            assert name not in self.graph.inputs, f"{name} is declared twice"
            self.graph.types[name] = request.type
            self.graph.inputs[name] = rpc.deserialize_properties(request.object)
            custom = {name for name in request.dependencies if self._custom(name)}
            self.graph.needs[name] = {urn.rpartition("::")[2] for urn in custom}
            if request.deleteBeforeReplace:
                self.graph.deleted_first.add(name)
            assert not request.additionalSecretOutputs, f"{name} keeps a secret"
        else:
            self.graph.components[request.name] = rpc.deserialize_properties(request.object)
        if request.parent:
            kind, parent = request.parent.split("::")[2:]
            self.graph.parents[request.name] = f"{kind.rpartition(':')[2]} {parent}"
        return super().RegisterResource(request)

    @staticmethod
    def _custom(urn: str) -> bool:
        kind = urn.split("::")[2].rpartition("$")[2]
        return not kind.startswith(("steerlab:", "pulumi:pulumi:"))

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        if "pulumi:pulumi:Stack" in request.urn:
            # set_mocks declares an empty stack of its own
            self.graph.outputs |= rpc.deserialize_properties(request.outputs)
        return super().RegisterResourceOutputs(request)


def declared(
    stack: str,
    declare: Callable[[], None],
    ids: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    *,
    preview: bool = False,
) -> Graph:
    """The graph of a program; what the SDK keeps of it goes with a context of its own.

    `ids` are the ids of resources by name, `values` the stack's configuration.
    """
    return contextvars.copy_context().run(_run, stack, declare, ids or {}, values or {}, preview)


def _run(
    stack: str,
    declare: Callable[[], None],
    ids: Mapping[str, str],
    values: Mapping[str, str],
    preview: bool,
) -> Graph:
    mocks = _Answers(ids)
    recorder = _Recorder(mocks)

    async def program() -> None:
        set_mocks(mocks, project="steerlab", stack=stack, preview=preview, monitor=recorder)
        pulumi.runtime.settings.ROOT.set(None)  # set_mocks made one, the program makes its own
        pulumi.runtime.set_all_config(dict(values), [])
        await pulumi.runtime.run_in_stack(declare)

    with asyncio.Runner() as runner:
        runner.run(program())
    return recorder.graph
