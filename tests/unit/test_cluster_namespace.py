"""A stack in an existing namespace: its Lease, its objects among others', and its removal without a state."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_cluster_owners import IMAGES, STACK, World, plain, world

from experiments.engines import EngineError
from experiments.engines.embedded.kubernetes import Objects
from experiments.engines.embedded.provider import OperationFailed
from experiments.targets.kubernetes import agents, doctor, drift, probes, standing, target
from infra import config
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes import admission, measurement, nodes, ownership
from infra.kubernetes.names import Names
from infra.kubernetes.plan import by_node

__all__ = ["plain", "world"]

TEAM = "team"
WITHIN = {"kubernetes.namespace": TEAM}


@pytest.fixture
def team(world: World) -> World:
    """A namespace with a Service and a pod of others."""
    world.cluster.add_namespace(TEAM)
    place = f"/api/v1/namespaces/{TEAM}"
    world.cluster._create(
        f"{place}/services", {"metadata": {"name": "iperf-service-1"}}, note=False
    )
    pod = {
        "metadata": {"name": "theirs", "labels": {"app": "x"}},
        "spec": {"nodeName": "s1", "containers": []},
        "status": {"phase": "Running"},
    }
    world.cluster._create(f"{place}/pods", pod, note=False)
    return world


def objects(world: World) -> dict[str, Any]:
    return copy.deepcopy(world.cluster.objects)


def test_nothing_but_the_stack_s_own_objects_comes_and_goes(team: World) -> None:
    before = objects(team)
    team.up("alice", **WITHIN)
    made = {path: one for path, one in objects(team).items() if path not in before}
    assert {path.partition("/namespaces/")[2].partition("/")[0] for path in made} == {TEAM}
    assert all(path.rpartition("/")[2].startswith("steerlab") for path in made)
    assert team.cluster.named("namespaces") == {TEAM}
    (lease,) = (one for one in made.values() if one.get("kind") == "Lease")
    owner = ownership.of_checkpoint(team.resources("alice"))
    assert owner
    assert lease["metadata"]["labels"][ownership.ID] == owner.id
    assert lease["metadata"]["annotations"][ownership.FOLDER] == owner.folder
    assert owner.namespace == TEAM
    assert team.up("alice", **WITHIN).changes == ()
    target.refuse_replaced(team.stack("alice"))

    # of the namespace's pods only those of the stack are measured
    state = config.state(STACK, _values(team))
    what = measurement.of(state, nodes.of_state(state))
    backend = target.backend(what)
    assert {pod.metadata.name for pod in backend._listed()} == {
        f"steerlab-{name}-1-pod" for name in ("iperf-server", "iperf-client")
    } | {"steerlab-agent-s1-pod"}
    assert "steerlab-agent-s1-pod" not in by_node(backend._listed())["s1"].uids

    team.destroy("alice")
    assert objects(team) == before


def _values(world: World) -> dict[str, str]:
    where = {"kubernetes.kubeconfig": str(world.kubeconfig), "kubernetes.images": IMAGES}
    return {"target": "kubernetes", **where, **WITHIN}


def test_a_namespace_has_one_stack(team: World) -> None:
    team.up("alice", **WITHIN)
    before = objects(team)
    with pytest.raises(EngineError, match=f"namespace {TEAM} has stack {STACK} of") as refused:
        team.up("bob", **WITHIN)
    assert refused.value.exit_code == 3
    assert str(team.stack("alice").home) in str(refused.value)
    team.destroy("bob")
    assert objects(team) == before
    # nor does a stack move
    with pytest.raises(EngineError, match="destroy it before") as refused:
        team.up("alice")
    assert refused.value.exit_code == 2
    assert objects(team) == before
    team.destroy("alice")
    team.up("bob", **WITHIN)


def test_it_is_removed_from_elsewhere_by_its_labels(team: World) -> None:
    before = objects(team)
    team.up("alice", **WITHIN)
    of = config.cluster({"kubernetes.kubeconfig": str(team.kubeconfig), **WITHIN})
    assert standing.stacks(team.api) == {}
    (found,) = standing.stacks(team.api, TEAM).values()
    (guard,) = standing.steered(team.api, found, of)
    (own,) = drift.guards(team.resources("alice"))
    assert (guard.node, guard.id, guard.image) == (own.node, own.id, own.image)
    # the fake's pods of a Deployment go with it by their names, as those of a Job do
    answer = standing.take_away(found, of)
    assert (answer["nodes"], answer["restored"]) == (["s1"], 3)
    assert objects(team) == before
    team.destroy("alice")


def test_a_lease_that_was_deleted_is_made_again(team: World) -> None:
    team.up("alice", **WITHIN)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{TEAM}/leases/{ownership.LEASE}"
    kept = team.cluster.objects.pop(lease)
    team.up("alice", **WITHIN)
    assert team.cluster.objects[lease]["metadata"]["labels"] == kept["metadata"]["labels"]
    team.cluster.objects.pop(lease)
    shutil.rmtree(Path(team.stack("bob").home), ignore_errors=True)
    team.up("bob", **WITHIN)
    with pytest.raises(EngineError, match="has stack"):
        team.up("alice", **WITHIN)
    (guard,) = drift.guards(team.resources("alice"))
    assert TEAM in agents.restore(guard)["warnings"][0]


def test_a_lease_of_somebody_else_is_no_stack(team: World) -> None:
    lease = {"metadata": {"name": ownership.LEASE}, "spec": {"holderIdentity": "x"}}
    team.cluster._create(f"/apis/coordination.k8s.io/v1/namespaces/{TEAM}/leases", lease)
    assert standing.stacks(team.api, TEAM) == {}


def test_secrets_of_images_must_be_in_it(team: World) -> None:
    with pytest.raises(PrerequisiteMissing, match="create it there"):
        admission.require(team.api, ("default/registry",), TEAM)


def test_nothing_copies_secrets_to_it(team: World) -> None:
    """Not even over a Secret of the same name: the namespace is not the stack's."""
    team.cluster.add_namespace("default")
    for room, data in (("default", "bmV3"), (TEAM, "b3du")):
        secret = {"metadata": {"name": "registry"}, "data": {"x": data}}
        team.cluster._create(f"/api/v1/namespaces/{room}/secrets", secret)
    before = objects(team)
    options = {"kubernetes.pods": '{"imagePullSecrets": ["default/registry"]}'}
    state = config.state(STACK, _values(team) | options)
    with pytest.raises(PrerequisiteMissing, match="create it there"):
        doctor._probe(team.api, state, nodes.of_state(state), {})
    assert objects(team) == before

    team.up("alice", **WITHIN, **options)  # as the Pulumi CLI alone does, which does not ask before
    (guard,) = drift.guards(team.resources("alice"))
    assert agents.restore(guard)["restored"] == 3
    assert team.cluster.named("secrets", TEAM) == {"registry"}
    kept = f"/api/v1/namespaces/{TEAM}/secrets/registry"
    assert team.cluster.objects[kept] == before[kept]


def test_what_doctor_cannot_delete_in_it_is_named(
    team: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OperationFailed("forbidden")

    names = Names("doctor-1", TEAM)
    with (
        pytest.raises(PrerequisiteMissing, match=f"namespace {TEAM}: steerlab-steering: forbidden"),
        probes.Probes(config.state(STACK, _values(team)), names) as made,
    ):
        made.account(team.api)
        monkeypatch.setattr(Objects, "delete", refused)


@pytest.mark.parametrize("name", ["Team", "-team", "a.b", "x" * 64])
def test_a_name_that_no_namespace_has_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="must be a namespace's name"):
        config.cluster({"kubernetes.namespace": name})


def test_objects_in_a_shared_namespace_have_a_prefix() -> None:
    assert (Names("a").pods, Names("a").own("x")) == ("steerlab-a", "x")
    within = Names("a", TEAM)
    assert (within.pods, within.steering, within.own("x")) == (TEAM, TEAM, "steerlab-x")
