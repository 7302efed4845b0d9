"""The cluster of a stack is recorded: another one under the same kubeconfig is refused, and not changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cluster import FakeCluster, serving
from test_cluster_owners import World, in_this_process

from experiments.engines import EngineError
from experiments.targets.kubernetes import agents, drift, standing, target
from infra import config
from infra.errors import PrerequisiteMissing
from infra.kubernetes import access, ownership, pinned
from infra.kubernetes.pinned import Pin


class Two:
    """Two clusters with alike nodes and one kubeconfig, in which either can be current."""

    def __init__(self, here: tuple[FakeCluster, Path], there: tuple[FakeCluster, Path]) -> None:
        self.here, self.there, self.kubeconfig = here[0], there[0], here[1]
        for cluster in (self.here, self.there):
            cluster.add_namespace(pinned.SYSTEM)
        self._document = json.loads(here[1].read_text())
        for part in ("clusters", "contexts"):
            (other,) = json.loads(there[1].read_text())[part]
            self._document[part].append({**other, "name": "other"})
        self._document["contexts"][1]["context"]["cluster"] = "other"

    def use(self, context: str) -> None:
        self._document["current-context"] = context
        self.kubeconfig.write_text(json.dumps(self._document))

    def move(self) -> None:
        """Let both contexts be the second cluster, as after a new kubeconfig of the same name."""
        self._document["clusters"][0]["cluster"] = self._document["clusters"][1]["cluster"]
        self.use("c")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with serving(tmp_path / "here") as here, serving(tmp_path / "there") as there:
        made = Two(here, there)
        made.use("c")
        yield made


@pytest.fixture
def world(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    in_this_process(monkeypatch)
    return World(two.here, two.kubeconfig, tmp_path)


def test_a_stack_keeps_to_its_cluster_whatever_is_current(two: Two, world: World) -> None:
    world.up("alice")
    owner = ownership.of_checkpoint(world.resources("alice"))
    assert owner
    assert (owner.context, owner.cluster) == ("c", two.here[pinned.SYSTEM]["metadata"]["uid"])
    before, foreign = dict(two.here.objects), list(two.there.writes)
    two.use("other")
    # what is looked up is looked up there, where pods run no programs
    (found,) = target.drifted(world.resources("alice"))
    assert "pods/agent-s1-pod/exec not found" in found.why
    target.refuse_foreign(world.stack("alice"))
    # what would be declared is refused
    with pytest.raises(EngineError, match="context other is the cluster at") as told:
        world.up("alice")
    assert told.value.exit_code == 3
    assert "use-context c" in str(told.value)
    assert two.here.objects == before
    world.destroy("alice")
    assert world.cluster.named("namespaces") == {pinned.SYSTEM}
    assert two.there.writes == foreign


def test_a_context_that_is_another_cluster_by_now_is_refused_by_all(two: Two, world: World) -> None:
    world.up("alice")
    resources = world.resources("alice")
    before, foreign = dict(two.here.objects), list(two.there.writes)
    (guard,) = drift.guards(resources)
    two.move()
    calls = (
        lambda: agents.restore(guard),
        lambda: target.drifted(resources),
        lambda: target.refuse_replaced(world.stack("alice")),
    )
    for call in calls:
        with pytest.raises(PrerequisiteMissing, match="created on another one"):
            call()
    for ask in (world.up, world.destroy):
        with pytest.raises(EngineError, match="created on another one"):
            ask("alice")
    assert (two.here.objects, two.there.writes) == (before, foreign)


def test_a_command_is_refused_before_its_engine(
    two: Two, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.up("alice")
    monkeypatch.setattr(standing.recorded, "recorded", lambda _: world.resources("alice"))
    values = {"target": "kubernetes", "kubernetes.kubeconfig": str(two.kubeconfig)}
    images = '{"iperf3": "r/iperf3:1", "steering": "r/agent:1"}'
    state = config.state("baseline-1", values | {"kubernetes.images": images})
    target.require_for(state)
    two.use("other")
    with pytest.raises(PrerequisiteMissing, match="nothing was changed"):
        target.require_for(state)
    # an experiment has the cluster that it started with
    assert target.pinned(state, world.stack("bob").home) == {"kubernetes.context": "other"}
    two.use("c")
    assert target.pinned(state, world.stack("bob").home) == {"kubernetes.context": "other"}
    two._document["clusters"].reverse()
    for one, name in zip(two._document["clusters"], ("c", "other"), strict=True):
        one["name"] = name
    two.use("c")
    with pytest.raises(PrerequisiteMissing, match="created on another one"):
        target.pinned(state, world.stack("bob").home)


@pytest.mark.parametrize(
    ("now", "then", "refused"),
    [
        (Pin(server="a", cluster="1"), Pin(), False),
        (Pin(server="b", cluster="1"), Pin(server="a", cluster="1"), False),
        (Pin(server="a", cluster="2"), Pin(server="a", cluster="1"), True),
        (Pin(server="a"), Pin(server="a", cluster="1"), False),
        (Pin(server="b"), Pin(server="a", cluster="1"), True),
    ],
)
def test_a_uid_decides_and_else_a_server(now: Pin, then: Pin, refused: bool) -> None:
    try:
        pinned.refuse_other(now, then)
    except PrerequisiteMissing:
        assert refused
    else:
        assert not refused


# --- in a pod ---


def test_a_pod_has_its_account(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere/x")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    account = tmp_path / "account"
    account.mkdir()
    monkeypatch.setattr(access, "POD_ACCOUNT", account)
    with pytest.raises(PrerequisiteMissing, match="kubeconfig"):
        access.connect("", "")
    for name, text in {"token": "t", "ca.crt": "c"}.items():
        (account / name).write_text(text)
    loader = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{loader}.SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(f"{loader}.SERVICE_CERT_FILENAME", str(account / "ca.crt"))
    with pytest.raises(PrerequisiteMissing, match="Service host/port is not set"):
        access.connect("", "")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert access.current_context("") == ""
    assert access.connect("", "").configuration.host == "https://192.0.2.1:443"
    # a kubeconfig that is named is used
    assert "127.0.0.1" in access.connect(str(two.kubeconfig), "").configuration.host
    with pytest.raises(PrerequisiteMissing, match="context x"):
        access.connect("", "x")
