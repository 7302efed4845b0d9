"""The contract of a provider of the embedded engine, and how its operations fail."""

from __future__ import annotations

import uuid
from typing import Any, Protocol

Properties = dict[str, Any]


class OperationFailed(Exception):
    """A provider could not create, update or delete a resource; the message gives the cause."""


class OperationInterrupted(OperationFailed):
    """An operation was ended because the engine was told to stop."""


class Provider(Protocol):
    """Converges the custom resources of one package; in a preview it only predicts outputs.

    `inputs` are those of the program, `recorded` the outputs of the checkpoint. Each call returns
    the resource's outputs or raises `OperationFailed`.
    """

    def create(self, type_: str, inputs: Properties, /) -> Properties: ...

    def update(self, type_: str, inputs: Properties, recorded: Properties, /) -> Properties: ...

    def delete(self, type_: str, recorded: Properties, /) -> None: ...

    def new_id(self, name: str, outputs: Properties, /) -> str:
        """The id of a resource that was created; empty in a preview."""


class Records:
    """Explicit providers: resources that are a record and nothing else."""

    def create(self, _: str, inputs: Properties) -> Properties:
        return inputs

    def update(self, _: str, inputs: Properties, __: Properties) -> Properties:
        return inputs

    def delete(self, _: str, __: Properties) -> None:
        return

    def new_id(self, _: str, __: Properties) -> str:
        return str(uuid.uuid4())
