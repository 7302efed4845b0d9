"""What a cluster demands of pods: the keys, the templates that have them, taints, and Secrets of registries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import CORE
from test_cluster_graph import Listed, declared, state
from test_cluster_owners import PODS, STEERING, World, plain, world

from experiments.targets.kubernetes import standing, target
from infra.errors import InvalidInput, PrerequisiteMissing
from infra.kubernetes.finalizer import Finalizer
from infra.kubernetes.nodes import choose
from infra.settings import Kubernetes, PodOptions, StackSettings, Toleration

__all__ = ["plain", "world"]  # fixtures

TOLERATION = {"key": "dedicated", "value": "net", "effect": "NoSchedule"}
OPTIONS = {
    "tolerations": [TOLERATION],
    "imagePullSecrets": ["default/registry"],
    "labels": {"team": "net"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "priorityClass": "batch",
}


def templates(**pods: Any) -> dict[str, Any]:
    """The pods' templates of a stack, by the name of their Deployment or Job."""
    inputs = declared(state(**{"kubernetes.pods": json.dumps(pods)} if pods else {})).inputs
    return {
        name: one["spec"]["template"]
        for name, one in inputs.items()
        if "template" in one.get("spec", {})
    }


def test_all_pods_of_a_stack_have_the_options() -> None:
    plain, found = templates(), templates(**OPTIONS)
    assert {name.partition("-")[0] for name in found} == {"iperf", "agent", "steer"}
    for name, one in found.items():
        assert one["metadata"]["labels"] == {**plain[name]["metadata"]["labels"], "team": "net"}
        assert one["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        assert one["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert one["spec"]["priorityClassName"] == "batch"
        tolerates = [{**TOLERATION, "operator": "Equal"}]
        assert one["spec"]["tolerations"] == (
            tolerates if name.startswith("iperf") else [{"operator": "Exists"}]
        )


def test_a_stack_without_options_has_the_same_objects_and_digest() -> None:
    assert templates() == templates(runAsUser=65532)
    assert state().digest() == state(**{"kubernetes.pods": "{}"}).digest()
    assert "pods" not in json.loads(declared(state()).inputs["guard-s1"]["stdin"])["guard"]


@pytest.mark.parametrize(("user", "ids"), [(1000, {1000}), ("assigned", {None})])
def test_the_user_of_the_measured_pods(user: object, ids: set[object]) -> None:
    for name, one in templates(runAsUser=user).items():
        if name.startswith("iperf"):
            context = one["spec"]["securityContext"]
            assert {context.get("runAsUser"), context.get("runAsGroup")} == ids
            assert context["runAsNonRoot"] is True


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"runAsUser": 0}, "runAsUser"),
        ({"runAsUser": "root"}, "runAsUser"),
        ({"labels": {"steerlab/role": "server"}}, "labels"),
        ({"labels": {"app.kubernetes.io/name": "x"}}, "labels"),
        ({"labels": {"team": "two words"}}, "labels"),
        ({"annotations": {"steerlab/boot-id": "x"}}, "annotations"),
        ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
        ({"priorityClass": "A B"}, "priorityClass"),
        ({"tolerations": [{"operator": "Equal"}]}, "tolerations"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations"),
        ({"tolerations": [{"key": "a", "effect": "Never"}]}, "tolerations"),
        ({"user": 1}, "user"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput, match=rf"kubernetes\.pods\.{where}"):
        state(**{"kubernetes.pods": json.dumps(options)})


# --- taints ---


class Taint:
    def __init__(self, key: str, value: str | None, effect: str) -> None:
        self.key, self.value, self.effect = key, value, effect


def chosen(taint: Taint, *tolerations: dict[str, str]) -> None:
    choose(
        [Listed("a", taints=[taint])],
        "serverSelector",
        "x=y",
        [Toleration(**one) for one in tolerations],
    )


@pytest.mark.parametrize(
    ("taint", "toleration"),
    [
        (("dedicated", "net", "NoSchedule"), TOLERATION),
        (("dedicated", "net", "NoExecute"), {"key": "dedicated", "value": "net"}),
        (("dedicated", None, "NoSchedule"), {"key": "dedicated", "operator": "Exists"}),
        (("dedicated", "net", "NoSchedule"), {"operator": "Exists"}),
    ],
)
def test_a_taint_needs_a_toleration_and_the_message_has_it(
    taint: tuple[str, str | None, str], toleration: dict[str, str]
) -> None:
    chosen(Taint(*taint), toleration)
    others = ({"key": "other", "operator": "Exists"}, {**toleration, "effect": "PreferNoSchedule"})
    for few in ((), others):
        with pytest.raises(PrerequisiteMissing, match="node a has the taint dedicated") as error:
            chosen(Taint(*taint), *few)
        setting = str(error.value).split("kubernetes.pods.tolerations=")[1].rpartition("',")[0]
        chosen(Taint(*taint), *json.loads(setting))


def test_taints_that_keep_no_pod_away_and_cordoned_nodes() -> None:
    chosen(Taint("busy", None, "PreferNoSchedule"))
    cordoned = Listed("a")
    cordoned.spec.unschedulable = True  # type: ignore[attr-defined]
    with pytest.raises(PrerequisiteMissing, match="node a is cordoned: kubectl uncordon a"):
        choose([cordoned], "serverSelector", "x=y")


# --- on a cluster ---


def settings(of: World, options: dict[str, str]) -> StackSettings:
    return state("baseline-1", **{"kubernetes.kubeconfig": str(of.kubeconfig), **options})


def add_secret(of: World, token: str) -> None:
    where = f"{CORE}/namespaces/default/secrets/registry"
    if where not in of.cluster.objects:
        of.cluster.add_namespace("default")
    of.cluster.objects[where] = {
        "metadata": {"name": "registry"}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": token},
    }  # fmt: skip


def test_secrets_are_copied_and_no_state_has_them(world: World, tmp_path: Path) -> None:
    options = {"kubernetes.pods": json.dumps(OPTIONS)}
    with pytest.raises(PrerequisiteMissing, match="default/registry"):
        target.require_for(settings(world, options))
    assert PODS not in world.cluster.named("namespaces")
    add_secret(world, "dG9rZW4=")
    target.require_for(settings(world, options))
    world.up("alice", **options)
    for room in (PODS, STEERING):
        copied = world.cluster.objects[f"{CORE}/namespaces/{room}/secrets/registry"]
        assert copied["data"] == {".dockerconfigjson": "dG9rZW4="}
    assert not any(b"dG9rZW4=" in file.read_bytes() for file in tmp_path.rglob("*.json*"))


def test_nodes_are_restored_with_the_options_of_their_agents(world: World) -> None:
    add_secret(world, "dG9rZW4=")
    world.up("alice", **{"kubernetes.pods": json.dumps(OPTIONS)})
    (stands,) = standing.stacks(world.api).values()
    (guard,) = standing.steered(world.api, stands, Kubernetes(kubeconfig=str(world.kubeconfig)))
    assert guard.pods == PodOptions.model_validate(
        {**OPTIONS, "tolerations": [], "imagePullSecrets": [f"{STEERING}/registry"]}
    )
    assert Finalizer.model_validate_json(guard.model_dump_json()) == guard
    standing.take_away(stands, Kubernetes(kubeconfig=str(world.kubeconfig)))
    assert not world.cluster.named("namespaces") & {PODS, STEERING}
