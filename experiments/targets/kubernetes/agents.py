"""The node agent on a cluster's nodes: verify, apply and restore."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from agent.archive import archive, digest
from experiments.host import calls
from experiments.targets.kubernetes.shell import Answer, PodShell, Session, Shell, SshShell, run
from infra.commands import quoted
from infra.errors import PrerequisiteMissing, Refusal
from infra.kubernetes import agent as pods
from infra.kubernetes import ownership
from infra.kubernetes.access import CALL_S, explained
from infra.kubernetes.admission import copy
from infra.kubernetes.finalizer import Finalizer, restored
from infra.kubernetes.names import NODE_LEVEL, Names, label
from infra.kubernetes.ownership import Owner
from infra.kubernetes.pinned import Pin, connect

# Timeout of a restore Job; seconds.
RESTORE_S = 120.0


# A plan is one line on stdin: arguments of exec are part of a URL, which has a limited length.
_PLANNED = 'read -r plan && printf %s "$plan" | "$@"'


def verb(shell: Shell, *words: str, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one verb of the agent on a node and return its JSON, like `experiments.host.calls.call`."""
    text = "" if plan is None else json.dumps(plan, separators=(",", ":"))
    if isinstance(shell, SshShell):
        answer = _over_ssh(shell, *words, *(("--plan", text) if text else ()))
    elif text:
        answer = run(shell, ("sh", "-c", _PLANNED, "sh", *pods.AGENT, *words), said=text)
    else:
        answer = run(shell, (*pods.AGENT, *words))
    return checked(shell, answer, words[0])


def start(shell: Shell, *words: str) -> Session:
    """A verb of the agent that reads from stdin; over SSH the agent is sent first where it is missing."""
    if not isinstance(shell, SshShell):
        return shell.start((*pods.AGENT, *words))
    if _script(shell, _TEST).status != 0:
        _send(shell)
    return shell.start(("sh", "-c", _CALL, "sh", digest(), *words))


# SHA-256 of the agent in an image; over SSH the project's own is sent.
HASH = (
    "python3", "-I", "-c",
    f"import hashlib; print(hashlib.sha256(open('{pods.AGENT[-1]}', 'rb').read()).hexdigest())",
)  # fmt: skip


def checked(shell: Shell, answer: Answer, name: str) -> dict[str, Any]:
    """The same as `read`; names the remedy where this agent's version has no such verb or plan."""
    try:
        return read(answer, name, str(shell))
    except Refusal as refusal:
        # its arguments are this program's own: a usage error is a difference of versions
        odd = answer.status in (0, 2) and not isinstance(shell, SshShell)
        if odd and run(shell, HASH).out.strip() != digest():
            raise PrerequisiteMissing(f"{refusal}: the image {pods.OTHER_AGENT}") from None
        raise


# Sent once for each version of the agent and boot of a node; a broken connection leaves no part of it.
_FILE = "f=/run/steerlab/agent-$1.pyz"
_CALL = f'{_FILE}; shift; [ -f "$f" ] || exit 97; exec python3 -I "$f" "$@"'
_SEND = (
    f'{_FILE}; umask 077; mkdir -p /run/steerlab && cat >"$f.$$" && '
    'if echo "$1  $f.$$" | sha256sum -c >&2; then mv "$f.$$" "$f"; else rm "$f.$$"; exit 1; fi'
)
_REMOVE = f'{_FILE}; rm -f "$f"'
_TEST = f'{_FILE}; [ -f "$f" ]'
_ABSENT = 97


def _over_ssh(shell: SshShell, *words: str) -> Answer:
    """Call the agent on a node; it is sent first where it is missing."""
    answer = _script(shell, _CALL, *words)
    if answer.status == _ABSENT:
        _send(shell)
        answer = _script(shell, _CALL, *words)
    if words[0] == "restore" and answer.status == 0:
        _script(shell, _REMOVE)
    return answer


def _send(shell: SshShell) -> None:
    sent = _script(shell, _SEND, stdin=archive())
    if sent.status != 0:
        raise PrerequisiteMissing(f"sending the agent to {shell}: {sent.err.strip()[-300:]}")


def _script(shell: SshShell, script: str, *words: str, stdin: bytes | None = None) -> Answer:
    session = shell.start(("sh", "-c", script, "sh", digest(), *words), stdin)
    answer = session.finish(time.monotonic() + RESTORE_S)
    session.close()
    if answer is None:
        what = f"steer {words[0]}" if words else "looking for the agent"
        raise PrerequisiteMissing(f"{what} on {shell} did not end within {RESTORE_S:.0f} s")
    return answer


def read(answer: Answer, name: str, where: str) -> dict[str, Any]:
    """The agent's JSON, or the exception for its exit status (pure)."""
    return calls.read(name, answer.status, answer.out, answer.err, f"{where}: ")


def agent_shell(kubeconfig: str, pin: Pin, names: Names, node: str) -> PodShell:
    """The running agent pod of a node. Raises `PrerequisiteMissing` where there is none."""
    from kubernetes.client import CoreV1Api

    api = connect(kubeconfig, pin)
    selector = ",".join(
        f"{key}={value}"
        for key, value in {**names.labels("agent"), "steerlab/node": label(node)}.items()
    )
    with explained(f"looking for the agent of node {node}"):
        listed = CoreV1Api(api).list_namespaced_pod(
            names.steering, label_selector=selector, _request_timeout=CALL_S
        )
    running = [
        pod
        for pod in listed.items
        if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp
    ]
    if not running:
        raise PrerequisiteMissing(
            f"node {node}: its agent does not run in {names.steering}: ./steerlab up -s STACK"
        )
    return PodShell(
        lambda: connect(kubeconfig, pin),
        names.steering,
        running[0].metadata.name,
        pods.CONTAINER,
    )


# Prefix of the agent's lines on stderr.
SENTENCE = "steer: "


def apply_over_ssh(guard: Finalizer, plan: dict[str, Any]) -> dict[str, Any]:
    assert guard.ssh  # noqa: S101
    return verb(SshShell(guard.address, guard.ssh), "apply", plan=plan)


def restore(guard: Finalizer) -> dict[str, Any]:
    """Restore a node: over SSH, by its agent, or by a Job where there is none.

    A node that needs no restore is a warning in the answer.
    """
    names = Names(guard.stack, guard.namespace)
    words = ("restore", "--owner", names.owner(guard.node))
    if guard.id:
        api = connect(guard.kubeconfig, guard)
        if other := ownership.foreign(api, names, guard.id):
            return _not_restored(guard, f"namespace {other.name} belongs to another stack")
    if not guard.ssh:
        if _is_gone(guard):
            return _not_restored(guard, GONE)
        return _by_agent(guard, words) or _by_job(guard, words)
    try:
        return verb(SshShell(guard.address, guard.ssh), *words)
    except PrerequisiteMissing:
        if _state_of(guard) is not None:
            raise
        return _not_restored(guard, GONE)


GONE = "it is no longer a node of the cluster; if it still runs, it restores itself at the end of its lease"


def _not_restored(guard: Finalizer, why: str) -> dict[str, Any]:
    warning = f"node {guard.node} was not restored: {why}"
    return {"restored": 0, "failed": [], "left": [], "warnings": [warning]}


def _is_gone(guard: Finalizer) -> bool:
    """Whether a node left the cluster. Raises `PrerequisiteMissing` where no Job can start on it."""
    state = _state_of(guard)
    if state not in (None, "True"):
        raise PrerequisiteMissing(
            f"node {guard.node} is not Ready and cannot be restored now: repeat the command when it "
            f"is; if it does not exist any more, first: kubectl delete node {quoted(guard.node)}"
        )
    return state is None


def _state_of(guard: Finalizer) -> str | None:
    """The status of the node's condition Ready; None where the cluster has no such node."""
    from kubernetes.client import CoreV1Api

    api = connect(guard.kubeconfig, guard)
    with explained(f"looking for node {guard.node}"):
        # with the right to list, which finding the nodes needs too
        listed = CoreV1Api(api).list_node(
            field_selector=f"metadata.name={guard.node}", _request_timeout=CALL_S
        )
    for node in listed.items:
        conditions = {one.type: one.status for one in node.status.conditions or []}
        return str(conditions.get("Ready", "Unknown"))
    return None


def _by_agent(guard: Finalizer, words: Sequence[str]) -> dict[str, Any] | None:
    """None where the agent does not run or fails."""
    with suppress(Refusal):
        names = Names(guard.stack, guard.namespace)
        return verb(agent_shell(guard.kubeconfig, guard, names, guard.node), *words)
    return None


def _by_job(guard: Finalizer, words: Sequence[str]) -> dict[str, Any]:
    from kubernetes.client import BatchV1Api, CoreV1Api, V1DeleteOptions

    names = Names(guard.stack, guard.namespace)
    api = connect(guard.kubeconfig, guard)
    core, batch = CoreV1Api(api), BatchV1Api(api)
    spec = pods.job_spec(names, restored(guard), guard.image, words, guard.pods)
    labels = {ownership.ID: guard.id} if guard.id else {}
    job = {
        "metadata": {"generateName": names.own(f"restore-{label(guard.node)}-"), "labels": labels},
        "spec": spec | {"ttlSecondsAfterFinished": 600},  # in case this process is killed
    }
    with explained(f"restoring node {guard.node}"):
        # the steering namespace may have been deleted
        owner = Owner(id=guard.id).model_dump()
        whole = ownership.metadata(names, names.steering, NODE_LEVEL, owner)
        created = not names.namespace and _created(core.create_namespace, {"metadata": whole})
        named = {"name": names.own(pods.ACCOUNT), "labels": labels}
        account = {"metadata": named, "automountServiceAccountToken": False}
        _created(core.create_namespaced_service_account, names.steering, account)
        if not names.namespace:
            with suppress(Refusal):  # where it is gone, an older copy or the node's image may do
                copy(api, names.steering, guard.pods.image_pull_secrets)
        made = batch.create_namespaced_job(names.steering, job, _request_timeout=CALL_S)
        name = made.metadata.name
        status, said = _ended(core, batch, names, name)
        foreground = V1DeleteOptions(propagation_policy="Foreground")
        batch.delete_namespaced_job(name, names.steering, body=foreground)
        if created:
            core.delete_namespace(names.steering)
    return read(of_log(status, said), "restore", f"node {guard.node}")


def _created(create: Callable[..., object], *what: object) -> bool:
    """Whether an object was created; False where it existed."""
    from kubernetes.client import ApiException

    try:
        create(*what, _request_timeout=CALL_S)
    except ApiException as error:
        if error.status != 409:
            raise
        return False
    return True


def of_log(status: int, log: str) -> Answer:
    """The agent's answer and messages in a container's log, which has both streams (pure)."""
    lines = log.splitlines()
    answer = "\n".join(line for line in lines if not line.startswith(SENTENCE))
    sentences = "\n".join(line for line in lines if line.startswith(SENTENCE))
    return Answer(status, answer, sentences or answer.strip().rpartition("\n")[2])


def _ended(core: Any, batch: Any, names: Names, name: str) -> tuple[int, str]:
    """Exit status and log of the Job's container."""
    end = time.monotonic() + RESTORE_S
    while time.monotonic() < end:
        status = batch.read_namespaced_job(name, names.steering).status
        if status.succeeded or status.failed:
            break
        time.sleep(0.2)
    listed = core.list_namespaced_pod(names.steering, label_selector=f"job-name={name}")
    for pod in listed.items:
        for container in pod.status.container_statuses or []:
            if ended := container.state.terminated:
                log = core.read_namespaced_pod_log(pod.metadata.name, names.steering)
                return int(ended.exit_code), str(log)
            if waiting := container.state.waiting:
                raise PrerequisiteMissing(
                    f"the Job {name} cannot start: {waiting.reason}: {waiting.message}"
                )
    raise PrerequisiteMissing(
        f"the Job {name} of {names.steering} did not end within {RESTORE_S:.0f} s"
    )
