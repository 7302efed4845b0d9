"""In-process replacement for Pulumi's resource monitor and engine: plain objects, no gRPC."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, NoReturn

from pulumi.runtime.proto import engine_pb2, resource_pb2

from experiments.engines import STACK_TYPE, EngineError, StackRef
from experiments.engines.embedded import command, kubernetes, planning, state
from experiments.engines.embedded.deployment import Deployment
from experiments.engines.embedded.planning import Resource

logger = logging.getLogger(__name__)

# The key that marks a secret, an asset, an archive or a reference in a map of Pulumi's.
_SIGNATURE = "4dabf18193072939515e22adb298388d"

# pulumi-command sets this for each of its commands.
_OF_A_COMMAND = "triggers[*]"
# The fields of a request that this engine heeds, and those that change nothing here.
_TAKEN = frozenset(
    (
        "type", "name", "parent", "custom", "object", "protect", "dependencies", "version",
        "propertyDependencies", "deleteBeforeReplace", "deleteBeforeReplaceDefined", "providers",
        "acceptSecrets", "acceptResources", "aliasSpecs", "supportsPartialValues",
        "supportsResultReporting", "sourcePosition", "stackTrace", "parentStackTraceHandle",
    )
)  # fmt: skip


class Monitor:
    """Each method is one remote procedure of the SDK; calls arrive on many threads at once."""

    def __init__(self, stack: StackRef, deployment: Deployment) -> None:
        self._stack = stack
        self._deployment = deployment
        # by URN, the options that its children inherit
        self._options: dict[str, dict[str, Any]] = {}

    def GetDeploymentInfo(self, _: object) -> resource_pb2.DeploymentInfo:  # noqa: N802
        """The features that the SDK may use; it refuses to use others."""
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
            ]
        )

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        wanted = self._wanted(request)
        resource = self._deployment.register(wanted, delete_first=request.deleteBeforeReplace)
        if resource is None:
            return resource_pb2.RegisterResourceResponse(
                urn=wanted["urn"], result=resource_pb2.FAIL
            )
        response = resource_pb2.RegisterResourceResponse(
            urn=resource["urn"], id=resource.get("id", "")
        )
        if resource["custom"]:
            response.object.update(resource.get("outputs", {}))
        return response

    def RegisterResourceOutputs(  # noqa: N802
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> None:
        self._deployment.set_outputs(request.urn, _plain_map(request.outputs, request.urn))

    def SignalAndWaitForShutdown(self, _: object) -> None:  # noqa: N802
        """The SDK calls this at the end of a program that did not fail."""
        self._deployment.delete_rest()

    def __getattr__(self, name: str) -> Callable[[Any], NoReturn]:
        if not name[0].isupper():
            raise AttributeError(name)

        def refuse(request: Any) -> NoReturn:
            what = getattr(request, "tok", "") or getattr(request, "type", "")
            raise EngineError(f"the embedded engine does not support {name} {what}".rstrip())

        return refuse

    def _wanted(self, request: resource_pb2.RegisterResourceRequest) -> Resource:
        """The requested resource in the form of the checkpoint."""
        urn = self._urn(request)
        _refuse_unsupported(request, urn)
        inputs = _plain_map(request.object, urn)
        if request.custom and (wrong := _problems(request.type, inputs)):
            raise EngineError(f"{urn}: {'; '.join(wrong)}")
        options = dict(self._options.get(request.parent, {}))
        if request.HasField("protect"):
            options["protect"] = request.protect
        self._options[urn] = options
        dependencies = request.propertyDependencies
        return planning.compact(
            {
                "urn": urn,
                "custom": request.custom,
                "type": request.type,
                "inputs": inputs,
                "parent": request.parent,
                "dependencies": sorted(request.dependencies),
                "provider": self._provider(request),
                "propertyDependencies": {k: sorted(dependencies[k].urns) for k in dependencies},
                "replaceOnChanges": list(request.replaceOnChanges),
                **options,
            }
        )

    def _provider(self, request: resource_pb2.RegisterResourceRequest) -> str:
        """The reference of a resource's provider: its own, or the default of its package."""
        if not request.custom or request.type.startswith(planning.PROVIDER):
            return ""
        package = request.type.partition(":")[0]
        return request.provider or self._deployment.provider(package, request.version)

    def _urn(self, request: resource_pb2.RegisterResourceRequest) -> str:
        """A URN; its type part begins with the types of the parents, without the stack's."""
        parent_type = request.parent.split("::")[2] if request.parent else STACK_TYPE
        prefix = "" if parent_type == STACK_TYPE else f"{parent_type}$"
        stack = self._stack
        return f"urn:pulumi:{stack.name}::{stack.project}::{prefix}{request.type}::{request.name}"


class Log:
    """In-process replacement for the SDK's engine: the program's log goes to Python's logging."""

    _LEVELS = {  # noqa: RUF012 - never changed
        engine_pb2.INFO: logging.INFO,
        engine_pb2.WARNING: logging.WARNING,
        engine_pb2.ERROR: logging.ERROR,
    }

    def Log(self, request: engine_pb2.LogRequest) -> None:  # noqa: N802
        if request.severity in self._LEVELS:
            logger.log(self._LEVELS[request.severity], "%s", request.message)


def _refuse_unsupported(request: resource_pb2.RegisterResourceRequest, urn: str) -> None:
    """Refuse unsupported types and options, also options of later SDKs."""
    for field, value in request.ListFields():
        if field.name == "aliasURNs":
            value = [alias for alias in value if not _older_type(alias)]
        elif field.name == "replaceOnChanges":
            value = [path for path in value if path != _OF_A_COMMAND]
        elif field.name == "provider" and request.type.startswith(kubernetes.TYPE):
            continue
        empty = hasattr(value, "ByteSize") and not value.ByteSize()
        if field.name not in _TAKEN and value and not empty:
            option = re.sub("(?<=[a-z])([A-Z])", r"_\1", field.name).lower()
            raise EngineError(f"the embedded engine does not support {option}: {urn}")
    explicit = request.type == f"{planning.PROVIDER}command"  # the default one is sufficient
    if request.custom and (explicit or not state.known(request.type)):
        raise EngineError(f"the embedded engine does not support {request.type}: {urn}")


def _older_type(urn: str) -> bool:
    """Whether an alias is one of the SDK's for an older Kubernetes type, which no state can contain."""
    kind = urn.split("::")[2].rpartition("$")[2]
    return kind.startswith(kubernetes.TYPE) and not state.known(kind)


def _problems(type_: str, inputs: dict[str, Any]) -> list[str]:
    """Invalid and unsupported inputs of a custom resource."""
    if type_ == command.TYPE:
        return command.problems(inputs)
    if type_.startswith(planning.PROVIDER):
        return kubernetes.provider_problems(inputs)
    return kubernetes.problems(inputs)


def _plain_map(struct: Any, urn: str) -> dict[str, Any]:
    if _SIGNATURE in struct.fields:
        raise EngineError(
            "the embedded engine supports no secret values, assets, archives or resource references:"
            f" {urn}"
        )
    return {name: _plain(value, urn) for name, value in struct.fields.items()}


def _plain(value: Any, urn: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_map(value.struct_value, urn)
    if kind == "list_value":
        return [_plain(item, urn) for item in value.list_value.values]
    plain = None if kind in (None, "null_value") else getattr(value, kind)
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain
