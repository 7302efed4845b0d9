"""Whose a stack of a cluster is: claims, two users with one name, others' namespaces, removal by labels."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any
from unittest.mock import patch

import pytest
from fake_cluster import FakeCluster, serving

from experiments.cli import hook, removal
from experiments.engines import EngineError, Outcome, StackRef, stacks
from experiments.engines.embedded import Embedded
from experiments.engines.embedded.command import Commands
from experiments.engines.embedded.provider import OperationFailed
from experiments.host.calls import AgentFailed
from experiments.rollout import manifest
from experiments.rollout.audit import AuditLog
from experiments.rollout.kubernetes import KubernetesFleet, Where
from experiments.targets.kubernetes import agents, drift, probes, standing, target
from infra import checkpoint, config
from infra.errors import InvalidInput, PrerequisiteMissing, Refusal, leave
from infra.kubernetes import ownership, pinned
from infra.kubernetes.access import connect
from infra.kubernetes.names import NODE_LEVEL, OVERLAY_LEVEL, Names
from infra.kubernetes.ownership import Holder, Namespace

IMAGES = json.dumps({"iperf3": "registry.example/iperf3:1", "steering": "registry.example/agent:1"})
STACK = "baseline-1"
PODS, STEERING = f"steerlab-{STACK}", f"steerlab-{STACK}-steering"
ALICE, BOB = Holder(user="alice@a", folder="/a"), Holder(user="bob@b", folder="/b")
V1 = {"app.kubernetes.io/name": "steerlab"}


class World:
    """A cluster, and the stacks that users have on it, each in a folder of their own."""

    def __init__(self, cluster: FakeCluster, kubeconfig: Path, folder: Path) -> None:
        self.cluster, self.kubeconfig, self._folder = cluster, kubeconfig, folder
        self.api = connect(str(kubeconfig), "")

    def stack(self, user: str, **more: str) -> StackRef:
        values = {
            "target": "kubernetes", "kubernetes.images": IMAGES, "runs": "0",
            "kubernetes.kubeconfig": str(self.kubeconfig), **more,
        }  # fmt: skip
        folder = self._folder / user
        folder.mkdir(exist_ok=True)
        return stacks.own(folder, STACK, values)[0]

    def up(self, user: str, **more: str) -> Outcome:
        return Embedded().up(self.stack(user, **more))

    def destroy(self, user: str) -> Outcome:
        return Embedded().destroy(self.stack(user))

    def resources(self, user: str) -> list[dict[str, Any]]:
        return checkpoint.resources(self.stack(user).checkpoint)

    def first_version(self, user: str) -> None:
        """Make of a user's stack one that the first version has made: without ids and a claim."""
        for one in self.cluster.objects.values():
            for part in ("labels", "annotations"):
                for key in (ownership.ID, ownership.USER, ownership.FOLDER):
                    (one["metadata"].get(part) or {}).pop(key, None)
            if one.get("kind") == "Namespace":
                for part in ("labels", "annotations"):
                    one["metadata"][part].pop(ownership.STACK, None)
        path = self.stack(user).checkpoint
        document = json.loads(path.read_text())
        latest = document["checkpoint"]["latest"]
        latest["resources"] = [
            without_id(one)
            for one in latest["resources"]
            if not one["urn"].endswith(("::claim", "::ownership"))
        ]
        path.write_text(json.dumps(document))


def without_id(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource as the first version has recorded it."""
    claim = "Command::claim"
    resource = copy.deepcopy(resource)
    for of in ("inputs", "outputs"):
        said = resource.get(of, {})
        for part in ("labels", "annotations"):
            (said.get("metadata", {}).get(part) or {}).pop(ownership.ID, None)
        if '{"guard"' in said.get("stdin", ""):
            guard = json.loads(said["stdin"])
            del guard["guard"]["id"]
            said["stdin"] = json.dumps(guard)
    if "dependencies" in resource:
        resource["dependencies"] = [
            urn for urn in resource["dependencies"] if not urn.endswith(claim)
        ]
    for urns in resource.get("propertyDependencies", {}).values():
        urns[:] = [urn for urn in urns if not urn.endswith(claim)]
    return resource


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    with serving(tmp_path) as (cluster, kubeconfig):
        yield World(cluster, kubeconfig, tmp_path)


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands of stacks in this process, which takes less time."""
    one_at_a_time = Lock()  # in whose environment a command runs

    def called(
        commands: Commands, script: str, said: dict[str, Any], before: dict[str, str]
    ) -> Any:
        if script == "true":
            return before
        try:
            given = {"PULUMI_COMMAND_STDOUT": before["stdout"], **commands._backend}
            with one_at_a_time, patch.dict(os.environ, given):
                answer = hook.HOOKS[script.split()[-1]](json.loads(said["stdin"]))
        except Refusal as refusal:
            leave(refusal.exit_code)
            raise OperationFailed(str(refusal)) from None
        return {"stdout": json.dumps(answer), "stderr": ""}

    monkeypatch.setattr(Commands, "_run", called)


@pytest.fixture
def world(plain: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, with its commands in this process."""
    in_this_process(monkeypatch)
    return plain


def claimed(world: World) -> str:
    """The id of alice's stack; empty for one of the first version."""
    owner = ownership.of_checkpoint(world.resources("alice"))
    return owner.id if owner else ""


def stands(world: World) -> dict[str, Any]:
    return copy.deepcopy(world.cluster.objects)


# --- two users ---


def test_outputs_name_the_place_of_a_stack_and_the_end_of_its_lease(world: World) -> None:
    found = world.up("alice").outputs
    assert found["cluster"] == {"context": "c", "server": world.api.configuration.host}
    assert found["nodes"] == {"server": ["s1"], "client": ["c1"]}
    assert found["namespaces"] == [PODS, STEERING]
    assert found["lease_end"] == "2026-01-02T05:04:05+00:00"
    assert world.up("alice").outputs == found


def test_a_stack_has_one_id_on_all_that_it_makes_and_leaves_nothing(plain: World) -> None:
    before = stands(plain)
    plain.up("alice")
    id_ = claimed(plain)
    assert id_
    made = [one for key, one in plain.cluster.objects.items() if key not in before]
    own = [one for one in made if one.get("kind") not in ("Pod", None)]  # endpoints have no kind
    assert {one["kind"] for one in own} == {
        "Namespace", "ServiceAccount", "Deployment", "Service", "Job",
    }  # fmt: skip
    assert {one["metadata"]["labels"][ownership.ID] for one in own} == {id_}
    said = plain.cluster[PODS]["metadata"]["annotations"]
    assert said[ownership.FOLDER] == str(plain.stack("alice").home)
    assert "@" in said[ownership.USER]

    assert plain.up("alice").changes == ()
    plain.destroy("alice")
    assert stands(plain) == before


def test_a_second_user_of_a_name_is_refused_with_who_and_where(plain: World) -> None:
    plain.up("alice")
    before, written = stands(plain), list(plain.cluster.writes)
    with pytest.raises(EngineError) as refused:
        plain.up("bob")
    assert refused.value.exit_code == 3
    holder = ownership.holder(plain.stack("alice").home.as_uri())
    for words in (PODS, holder.user, holder.folder, f"destroy --cluster -s {STACK}"):
        assert words in str(refused.value)
    assert stands(plain) == before
    # one request to create the namespace, which is there
    claim = ("POST", f"/api/v1/namespaces/{PODS}")
    assert [one for one in plain.cluster.writes if one not in written] in ([], [claim])
    plain.destroy("bob")
    assert stands(plain) == before
    assert plain.up("alice").changes == ()


def test_a_state_whose_stack_was_replaced_changes_nothing(world: World) -> None:
    world.up("alice")
    for name in (PODS, STEERING):
        world.cluster._delete(f"/api/v1/namespaces/{name}", {})
    world.up("bob")
    before = stands(world)
    for refuse in (target.refuse_foreign, target.refuse_replaced):
        with pytest.raises(Refusal, match="does not exist any more") as refused:
            refuse(world.stack("alice"))
        assert str(world.stack("bob").home) in str(refused.value)
    with pytest.raises(EngineError, match="belongs to stack") as told:
        world.up("alice")
    assert told.value.exit_code == 3
    assert stands(world) == before
    # by the engine alone
    with pytest.raises(EngineError, match="belongs to stack"):
        world.destroy("alice")
    assert stands(world) == before
    target.refuse_replaced(world.stack("bob"))
    world.destroy("bob")


def test_a_claim_that_was_interrupted_is_taken_up_again(world: World) -> None:
    mine = ownership.holder(world.stack("alice").home.as_uri())
    owner = ownership.claim(world.api, Names(STACK), mine)
    world.up("alice")
    assert claimed(world) == owner.id
    # the same stack with another path of its kubeconfig
    assert ownership.claim(world.api, Names(STACK), BOB, owner.id) == owner


def test_of_claims_at_one_time_one_is_granted_and_named_to_the_others(world: World) -> None:
    def claim(number: int) -> str:
        holder = Holder(user=f"user{number}@host", folder="/x")
        try:
            return "got by " + ownership.claim(world.api, Names(STACK), holder).user
        except PrerequisiteMissing as refused:
            return str(refused)

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(claim, range(8)))
    (winner,) = (words.removeprefix("got by ") for words in said if words.startswith("got by"))
    assert sum(winner in words for words in said) == 8


def test_an_interrupted_claim_is_released(world: World) -> None:
    before = stands(world)
    ownership.claim(world.api, Names(STACK), ALICE)
    for holder, known in ((BOB, ""), (ALICE, "another"), (BOB, "another")):
        ownership.release(world.api, Names(STACK), holder, known)
        assert PODS in world.cluster.named("namespaces")
    ownership.release(world.api, Names(STACK), ALICE, "")
    assert stands(world) == before


def test_a_stack_that_failed_after_its_claim_leaves_nothing(world: World) -> None:
    before = stands(world)
    world.cluster.add_namespace(STEERING)
    with pytest.raises(EngineError, match="was not created by steerlab"):
        world.up("alice")
    assert PODS in world.cluster.named("namespaces")
    world.destroy("alice")
    assert world.cluster.named("namespaces") == {STEERING}
    world.cluster._delete(f"/api/v1/namespaces/{STEERING}", {})
    assert stands(world) == before


@pytest.mark.parametrize(
    ("labels", "words"),
    [({}, "not created by steerlab"), (V1, "earlier version"), ({"a": "b"}, "not created")],
)
def test_a_namespace_that_others_made_is_neither_used_nor_deleted(
    world: World, labels: dict[str, str], words: str
) -> None:
    world.cluster.add_namespace(PODS, **labels)
    before = stands(world)
    with pytest.raises(EngineError, match=words):
        world.up("alice")
    world.destroy("alice")
    assert stands(world) == before


def test_a_namespace_that_was_deleted_by_hand_is_created_again(world: World) -> None:
    world.up("alice")
    world.cluster._delete(f"/api/v1/namespaces/{STEERING}", {})
    ref = world.stack("alice")
    target.refuse_foreign(ref)
    found = [one.urn for one in target.drifted(world.resources("alice"))]
    Embedded().up(ref, replace=found)
    assert world.cluster[STEERING]["metadata"]["labels"][ownership.ID] == claimed(world)


# --- the first version ---


def test_a_stack_of_the_first_version_is_destroyed(world: World) -> None:
    before = stands(world)
    world.up("alice")
    world.first_version("alice")
    target.refuse_replaced(world.stack("alice"))
    world.destroy("alice")
    assert stands(world) == before


def test_a_stack_of_the_first_version_gets_an_owner_by_up(world: World) -> None:
    before = stands(world)
    world.up("alice")
    world.first_version("alice")
    assert not claimed(world)
    with pytest.raises(EngineError, match="earlier version"):
        world.up("bob")
    target.refuse_foreign(world.stack("alice"))
    world.up("alice")
    id_ = claimed(world)
    for name in (PODS, STEERING):
        assert world.cluster[name]["metadata"]["labels"][ownership.ID] == id_
    assert world.up("alice").changes == ()
    world.destroy("alice")
    assert stands(world) == before


# --- without the state ---


def remove(world: World, stack: str = STACK, force: bool = True, **more: str) -> None:
    changes = {"kubernetes.kubeconfig": str(world.kubeconfig), **more}
    removal.of_cluster(stack, changes, force=force, json=True)


def test_a_stack_is_removed_by_its_labels(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "busy", lambda *_: pytest.MonkeyPatch.context())
    before = stands(world)
    world.cluster.add_namespace("steerlab-mine")
    world.cluster.add_namespace("steerlab-other", **V1)
    world.up("alice")
    for stack, words in (("", "add --stack"), ("rfs-2", "no stack rfs-2")):
        with pytest.raises(InvalidInput, match=words) as refused:
            remove(world, stack)
        assert f"{STACK} of {ownership.holder(world.stack('alice').home.as_uri())}" in str(
            refused.value
        )
        assert "other" in str(refused.value)
        assert "mine" not in str(refused.value)
    with pytest.raises(InvalidInput, match="this checkout did not create"):
        remove(world, force=False)
    capsys.readouterr()
    remove(world)
    said = json.loads(capsys.readouterr().out)
    assert (said["stack"], said["nodes"], said["restored"]) == (STACK, ["s1"], 3)
    assert world.cluster.named("namespaces") == {"steerlab-mine", "steerlab-other"}
    # the owner's state is of use all the same
    world.destroy("alice")
    for name in ("steerlab-mine", "steerlab-other"):
        world.cluster._delete(f"/api/v1/namespaces/{name}", {})
    assert stands(world) == before


def test_the_namespace_of_rollouts_is_no_stack_and_no_stack_s_is_that_of_rollouts(
    world: World,
) -> None:
    log = AuditLog(world.kubeconfig.with_name("audit.jsonl"))
    fleet = KubernetesFleet(Where(str(world.kubeconfig), "", ""), None, log, "me")
    world.cluster.add_namespace(manifest.NAME, **manifest.NAMESPACE["metadata"]["labels"])
    before = stands(world)
    with pytest.raises(InvalidInput, match="no stack rollout"):
        remove(world, "rollout")
    names = Names("rollout")
    with pytest.raises(PrerequisiteMissing, match="not created by steerlab for a stack"):
        ownership.claim(world.api, names, ALICE)
    assert stands(world) == before

    fleet.stop([])  # no node has an agent any more
    assert manifest.NAME not in world.cluster.named("namespaces")
    ownership.claim(world.api, names, ALICE)
    assert names.pods == manifest.NAME
    with pytest.raises(PrerequisiteMissing, match="not made by a rollout"):
        fleet.stop([])
    assert manifest.NAME in world.cluster.named("namespaces")


def test_the_command_that_undoes_a_rollout_names_its_cluster(world: World) -> None:
    """Another context may be current by then, with nodes of the same labels."""
    log = AuditLog(world.kubeconfig.with_name("audit.jsonl"))
    fleet = KubernetesFleet(Where(str(world.kubeconfig), "", "a=b"), None, log, "me")
    of_cluster = ["--kubeconfig", str(world.kubeconfig), "--context", "c"]
    assert fleet.where.options == [*of_cluster, "--selector", "a=b"]


def test_an_interrupted_removal_names_the_cluster_in_its_command(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "busy", lambda *_: pytest.MonkeyPatch.context())
    world.up("alice")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(standing, "take_away", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove(world)
    said = capsys.readouterr().err
    assert f"-s {STACK} -c kubernetes.kubeconfig={world.kubeconfig} -c kubernetes.context=c" in said


def test_what_a_killed_doctor_leaves_is_found_and_removed(world: World) -> None:
    before, names = stands(world), Names("doctor-0a1b2c")
    of = config.cluster({"kubernetes.kubeconfig": str(world.kubeconfig)})
    with (
        pytest.raises(
            PrerequisiteMissing, match="not found"
        ),  # it is not killed, and looks for them
        probes.namespace(world.api, names.pods, OVERLAY_LEVEL),
        probes.namespace(world.api, names.steering, NODE_LEVEL),
    ):
        standing.take_away(standing.stacks(world.api)[names.stack], of)
        after = stands(world)
    assert after == before


@pytest.mark.parametrize("first", [False, True])
def test_nothing_is_deleted_before_all_nodes_are_restored(world: World, first: bool) -> None:
    world.up("alice")
    if first:
        world.first_version("alice")
    found = standing.stacks(world.api)[STACK]
    of = config.cluster({"kubernetes.kubeconfig": str(world.kubeconfig)})
    (guard,) = standing.steered(world.api, found, of)
    (own,) = drift.guards(world.resources("alice"))
    alike = {
        "address": own.address,
        "kubeconfig": of.kubeconfig,
        **pinned.look(of.kubeconfig, "")[1].model_dump(),
    }
    assert guard.model_copy(update=alike) == own
    world.cluster.log = "steer: the disk is full\n"
    before = {path for path in stands(world) if "restore-" not in path}
    with pytest.raises(AgentFailed):
        standing.take_away(found, of)
    assert before <= world.cluster.objects.keys()


def test_a_stack_over_ssh_needs_the_way_to_its_nodes(world: World) -> None:
    world.up("alice")
    world.cluster._delete(f"/api/v1/namespaces/{STEERING}", {})
    found = standing.stacks(world.api)[STACK]
    where = {"kubernetes.kubeconfig": str(world.kubeconfig)}
    with pytest.raises(PrerequisiteMissing, match="nodeAccess=ssh"):
        standing.take_away(found, config.cluster(where))
    over = {"kubernetes.nodeAccess": "ssh", "kubernetes.ssh": '{"port": 2222}'}
    guards = standing.steered(world.api, found, config.cluster(where | over))
    assert {(one.node, one.ssh and one.ssh.port) for one in guards} == {("c1", 2222), ("s1", 2222)}


@pytest.mark.parametrize(
    "values", [{"replicas": "2"}, {"kubernetes.ssh": "[]"}, {"kubeconfi": "x"}]
)
def test_only_settings_of_the_cluster_are_taken(values: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        config.cluster(values)


# --- nodes ---


def test_a_stack_goes_with_a_node_that_left_the_cluster(world: World) -> None:
    before = stands(world)
    world.up("alice")
    del world.cluster.objects["/api/v1/nodes/s1"]
    world.cluster.log = "steer: a Job on that node\n"
    world.destroy("alice")
    del before["/api/v1/nodes/s1"]
    assert stands(world) == before


def test_a_node_of_another_stack_is_not_restored(world: World) -> None:
    world.up("alice")
    (guard,) = drift.guards(world.resources("alice"))
    before = stands(world)
    answer = agents.restore(guard.model_copy(update={"id": "another"}))
    assert PODS in answer["warnings"][0]
    assert stands(world) == before


# --- decisions ---


def namespace(name: str = PODS, **more: Any) -> Namespace:
    known = {
        "uid": "u", "made": True, "id": "1", "stack": STACK, "holder": ALICE, "since": "", "ending": False,
    }  # fmt: skip
    return Namespace(name=name, **{**known, **more})


@pytest.mark.parametrize(
    ("found", "holder", "known", "yes"),
    [
        (namespace(), ALICE, "", True),
        (namespace(), BOB, "", False),
        (namespace(), BOB, "1", True),
        (namespace(), ALICE, "2", False),
        (namespace(id=""), ALICE, "", False),
        (namespace(id=""), ALICE, "1", False),
        (namespace(stack="other"), ALICE, "", False),
    ],
)
def test_a_namespace_is_that_of_its_id_or_of_an_interrupted_claim(
    found: Namespace, holder: Holder, known: str, yes: bool
) -> None:
    assert ownership.claims(found, Names(STACK), holder, known) is yes


def test_namespaces_of_one_stack_are_one() -> None:
    first = {"id": "", "stack": "", "holder": Holder()}
    found = [
        namespace(STEERING), namespace(PODS), namespace("steerlab-a-b", stack="A.b"),
        namespace("steerlab-x-steering", **first), namespace("steerlab-x", **first),
    ]  # fmt: skip
    grouped = standing.grouped(found)
    assert {name: len(one.namespaces) for name, one in grouped.items()} == {
        "A.b": 1, STACK: 2, "x": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("file:///home/al%20ice/x", "/home/al ice/x"),
        ("s3://bucket/path?region=x", "s3://bucket/path"),
        ("postgres://me:secret@db.example/x", "postgres://db.example/x"),
        ("https://api.pulumi.com", "https://api.pulumi.com"),
    ],
)
def test_the_place_of_a_state_has_no_credential(url: str, where: str) -> None:
    assert ownership.place(url) == where


def test_a_state_without_a_backend_is_in_the_folder_of_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ownership.place("file://.") == str(tmp_path)


def test_an_output_that_is_no_claim_is_named() -> None:
    assert ownership.recorded("") is None
    assert ownership.recorded('{"id": "1", "user": "a", "folder": "/"}') == ownership.Owner(
        id="1", user="a", folder="/"
    )
    for text in ("x", "[]", '{"id": 1}'):
        with pytest.raises(PrerequisiteMissing, match="claim"):
            ownership.recorded(text)
