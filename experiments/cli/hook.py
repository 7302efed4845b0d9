"""The internal entry for the commands of a stack, not for users: JSON in, JSON out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.cli.terminal import show_json
from infra import untrusted
from infra.errors import InvalidInput, Refusal, leave_notes

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from infra.kubernetes.finalizer import Finalizer
    from infra.kubernetes.names import Names
    from infra.kubernetes.ownership import Holder
    from infra.kubernetes.pinned import Pin

NAME = "hook"


def call(verb: str) -> None:
    """Print a hook's result, or `{"error": {"code": 3, "message": ...}}` and raise."""
    try:
        if verb not in HOOKS:
            raise InvalidInput(f"hook: {verb or 'no verb'} is none of {', '.join(HOOKS)}")
        try:
            said = untrusted.parsed(sys.stdin.read(untrusted.MOST_BYTES + 1))
        except ValueError as error:
            raise InvalidInput(f"{verb}: stdin contains no JSON: {error}") from None
        answer = HOOKS[verb](said)
    except Refusal as error:
        show_json({"error": {"code": error.exit_code, "message": str(error)}})
        raise
    show_json(answer)


def _measure(said: Any) -> dict[str, Any]:
    """Measure a converged stack; the results become outputs of the stack."""
    from experiments.run import single
    from experiments.targets import TARGETS

    what = single.declared(said)
    with TARGETS[what.target].busy(what.stack, f"measure of {what.stack}"):
        return single.measure(what)


def _claim(said: Any) -> dict[str, Any]:
    """Claim a stack's name on its cluster; the owner is the output of the stack's claim."""
    from infra.kubernetes import ownership

    api, names, holder, known, pin = _claimant(said, again=True)
    return ownership.claim(api, names, holder, known, pin).model_dump()


def _release(said: Any) -> dict[str, Any]:
    """Give a stack's name back."""
    from infra.kubernetes import ownership

    api, names, holder, known, _ = _claimant(said)
    ownership.release(api, names, holder, known)
    return {}


def _check(said: Any) -> dict[str, Any]:
    """Refuse to delete what belongs to another stack by now."""
    from infra.kubernetes import ownership

    api, names, _, known, _ = _claimant(said)
    ownership.check(api, names, known)
    return {}


def _claimant(said: Any, *, again: bool = False) -> tuple[ApiClient, Names, Holder, str, Pin]:
    """A stack that claims its name: its names and holder, the id that it has, and its cluster.

    That is the recorded one or, to claim it `again`, the kubeconfig's now. Raises `PrerequisiteMissing`
    where it is not the cluster on which the stack was created.
    """
    from pydantic import ValidationError

    from infra.kubernetes import ownership
    from infra.kubernetes.names import Names
    from infra.kubernetes.pinned import look, refuse_other

    try:
        claim = ownership.Claim.model_validate(said)
    except ValidationError:
        raise InvalidInput("stdin contains no claim of a stack") from None
    # the place of the state, which both engines set, and the last output, as in pulumi-command
    holder = ownership.holder(os.environ.get("PULUMI_BACKEND_URL") or "file://.")
    owner = ownership.recorded(os.environ.get("PULUMI_COMMAND_STDOUT", ""))
    if owner and owner.namespace != claim.namespace:
        raise InvalidInput(
            f"kubernetes.namespace: stack {claim.stack} is in {owner.namespace or 'its own namespaces'}: "
            "destroy it before another one is set"
        )
    api, now = look(
        claim.kubeconfig, claim.context or (owner.context if owner and not again else "")
    )
    refuse_other(now, owner or claim)
    pin = now.model_copy(update={"namespace": claim.namespace})
    names = Names(claim.stack, claim.namespace)
    return api, names, holder, owner.id if owner else claim.id, pin


def _secrets(said: Any) -> dict[str, Any]:
    """Copy the Secrets of the images' registries to a namespace of a stack."""
    from pydantic import ValidationError

    from infra.kubernetes import admission
    from infra.kubernetes.access import connect

    try:
        of = admission.PullSecrets.model_validate(said)
    except ValidationError:
        raise InvalidInput("stdin contains no Secrets of a stack") from None
    admission.copy(connect(of.kubeconfig, of.context), of.namespace, of.secrets)
    return {}


def _apply(said: Any) -> dict[str, Any]:
    """Steer a node of a cluster over SSH."""
    from datetime import UTC, datetime

    from experiments.targets.kubernetes import agents

    node = _node(said)
    if not isinstance(said.get("plan"), dict):
        raise InvalidInput("apply: stdin contains no plan")
    applied_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {**agents.apply_over_ssh(node, said["plan"]), "applied_at": applied_at}


def _restore(said: Any) -> dict[str, Any]:
    """Restore a node of a cluster."""
    from experiments.targets.kubernetes import agents

    answer = agents.restore(_node(said))
    leave_notes([*answer.get("left", ()), *answer.get("warnings", ())])
    return answer


def _node(said: Any) -> Finalizer:
    """The node that a stack hands over."""
    from pydantic import ValidationError

    from infra.kubernetes.finalizer import Finalizer

    try:
        return Finalizer.model_validate(said["guard"])
    except (KeyError, TypeError, ValidationError):
        raise InvalidInput("stdin contains no node of a stack") from None


HOOKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "measure": _measure,
    "claim": _claim,
    "release": _release,
    "check": _check,
    "secrets": _secrets,
    "apply": _apply,
    "restore": _restore,
}
