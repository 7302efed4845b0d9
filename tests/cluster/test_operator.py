"""Who operates a stack: an ordinary user without root, with the documented rights alone, or with one namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import images
import pytest
import yaml
from fake_cluster import FakeCluster, serving
from lab_project import SOURCE, Answer, Project, copy
from rig import certificates
from rig.cluster import Cluster
from rig.command import wait_until
from rig.layout import API
from test_stack import values

USER = 61234
STACK = "rfs-1"
TEAM = "team"
TARGET = ("-c", "target=kubernetes", "-c", images.KEY)
# Names of objects by kind; others are of the cluster.
KINDS = "deployments,services,jobs,serviceaccounts,pods,leases,configmaps"

# Makes folders visible to all that are within those of another user, then becomes the user.
BECOME = """
stage=$(mktemp -d) && mount -t tmpfs none "$stage"
number=0
for path in $VISIBLE; do
  number=$((number + 1)) && mkdir "$stage/$number" && mount --bind "$path" "$stage/$number"
done
for path in $HIDDEN; do mount -t tmpfs -o mode=755 none "$path"; done
number=0
for path in $VISIBLE; do
  number=$((number + 1)) && mkdir -p "$path" && mount --bind "$stage/$number" "$path"
done
umount -R "$stage" && rmdir "$stage"
unset VISIBLE HIDDEN
[ -z "$ACCOUNT" ] || {
  mount -t tmpfs -o mode=755 none /run && mkdir -p /run/secrets/kubernetes.io &&
  cp -r "$ACCOUNT" /run/secrets/kubernetes.io/serviceaccount
}
exec setpriv --reuid=$BECOME --regid=$BECOME --clear-groups "$@"
"""


def roles() -> Iterator[dict[str, Any]]:
    """The roles in the docs."""
    text = (SOURCE / "docs/kubernetes.md").read_text()
    for block in re.findall(r"```yaml\n(apiVersion: rbac.*?)```", text, re.DOTALL):
        yield from yaml.safe_load_all(block)


def grant(cluster: Cluster, who: str, *wanted: str) -> None:
    """Bind roles of the docs (KIND/NAME), as printed, to `--user=NAME` or `--serviceaccount=NAME`."""
    for role in roles():
        kind, name = role["kind"], role["metadata"]["name"]
        if f"{kind}/{name}" not in wanted:
            continue
        cluster.kubectl("apply", "-f", "-", text=json.dumps(role))
        place = ("-n", TEAM) if kind == "Role" else ()
        words = (f"{kind.lower()}binding", bound(name, who), f"--{kind.lower()}={name}", who)
        cluster.kubectl("create", *words, *place)


def bound(name: str, who: str) -> str:
    return f"{name}-{re.sub('[^a-z]+', '-', who).strip('-')}"


def deny(cluster: Cluster, who: str, *names: str) -> None:
    """Take cluster-wide roles away again."""
    cluster.kubectl("delete", "clusterrolebinding", *(bound(name, who) for name in names))


def kubeconfig(name: str) -> dict[str, Any]:
    certificates.certificate(name, f"/CN={name}")
    document: dict[str, Any] = json.loads(certificates.kubeconfig(name))
    return document


@dataclass
class Ordinary:
    """A user without root and sudo, with the project in a folder of their own."""

    project: Project
    home: Path
    document: dict[str, Any]

    def use(self, context: str) -> None:
        self.document["current-context"] = context
        (self.home / "kubeconfig").write_text(json.dumps(self.document))

    def within(self, account: Path | None = None, path: str = os.defpath) -> tuple[str, ...]:
        """What a command runs in; the embedded engine is used where `path` has no Pulumi CLI."""
        wanted = [Path(sys.base_prefix), Path(sys.prefix)]
        hidden = [
            path
            for path in {parent for one in wanted for parent in one.parents}
            if not path.stat().st_mode & 1
        ]
        outermost = [one for one in hidden if not set(one.parents) & set(hidden)]
        visible = [one for one in wanted if set(one.parents) & set(outermost)]
        return (
            "env", f"VISIBLE={' '.join(map(str, visible))}", f"HIDDEN={' '.join(map(str, outermost))}",
            f"BECOME={USER}", f"HOME={self.home}", f"ACCOUNT={account or ''}",
            f"PATH={path}:/usr/sbin:/sbin",
            *([] if account else [f"KUBECONFIG={self.home / 'kubeconfig'}"]),
            "unshare", "--mount", "bash", "-euc", BECOME, "bash",
        )  # fmt: skip

    def run(self, *words: str, code: int = 0) -> Answer:
        return self.project.run(*words, code=code, within=self.within())


@pytest.fixture
def ordinary(cluster: Cluster) -> Iterator[Ordinary]:
    with tempfile.TemporaryDirectory(prefix="steerlab-user-", dir="/tmp") as room:
        project = Project(copy(Path(room) / "project"))
        made = Ordinary(project, Path(room), kubeconfig("operator"))
        made.use("rig")
        for path in (Path(room), *Path(room).rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        grant(cluster, "--user=operator", "ClusterRole/steerlab")
        try:
            yield made
        finally:
            for process in project.started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            deny(cluster, "--user=operator", "steerlab")


@pytest.fixture
def other(ordinary: Ordinary, tmp_path: Path) -> Iterator[FakeCluster]:
    """Another cluster, in the context `other` of the user."""
    with serving(tmp_path) as (cluster, path):
        cluster.add_namespace("kube-system")
        there = json.loads(path.read_text())
        for part in ("clusters", "users", "contexts"):
            (one,) = there[part]
            ordinary.document[part].append(
                {**one, "name": "other" if part == "contexts" else one["name"]}
            )
        ordinary.use("rig")
        cluster.writes.clear()
        yield cluster


def test_an_ordinary_user_with_the_documented_rights(
    ordinary: Ordinary, other: FakeCluster, cluster: Cluster
) -> None:
    before = values(cluster)
    found = ordinary.run("doctor", "--target", "kubernetes", "-c", images.KEY, "--json").json
    assert found["missing"] == []

    embedded = ("--engine", "embedded")
    ordinary.run("up", "-s", STACK, *TARGET, "-c", "runs=0", *embedded)
    assert values(cluster) != before
    ordinary.use("other")
    said = ordinary.run("up", "-s", STACK, *embedded, code=3).err
    assert "context other is the cluster at" in said
    # what undoes it goes to the stack's own cluster
    ordinary.run("destroy", "-s", STACK, *embedded)
    assert values(cluster) == before

    # switched in the middle of a sweep
    ordinary.use("rig")
    sweep = ordinary.project.start(
        "sweep", "--target", "kubernetes", "-c", images.KEY, "--method", "isolated",
        "--configurations", "baseline,rps", "--replicas", "1", "--runs", "2", "--duration", "1", "--omit", "0",
        "--seed", "7", "--out", "out", *embedded, within=ordinary.within(),
    )  # fmt: skip
    wait_until("a first record", lambda: bool(ordinary.project.records()), 300)
    ordinary.use("other")
    _, err = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, err
    assert len({record["order"] for record in ordinary.project.records()}) == 4
    assert (
        json.loads((ordinary.project.folder / "out/cluster.json").read_text())["context"] == "rig"
    )
    assert values(cluster) == before
    assert "steerlab" not in cluster.kubectl("get", "namespaces")
    assert other.writes == []

    ordinary.run("report", "out")
    assert "baseline" in ordinary.run("compare", "out", "baseline", "rps", "--force", code=5).out
    assert {path.stat().st_uid for path in ordinary.project.folder.rglob("out/*")} == {USER}


def test_the_account_of_a_pod_is_used(ordinary: Ordinary, cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", "operator")
    account = "--serviceaccount=default:operator"
    grant(cluster, account, "ClusterRole/steerlab")
    (tmp_path / "token").write_text(cluster.kubectl("create", "token", "operator"))
    shutil.copy(certificates.PKI / "ca.crt", tmp_path)
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o755)
    host, port = API.removeprefix("https://").split(":")
    service = ("env", f"KUBERNETES_SERVICE_HOST={host}", f"KUBERNETES_SERVICE_PORT={port}")
    try:
        found = ordinary.project.run(
            "doctor", "--target", "kubernetes", "-c", images.KEY, "--json",
            within=(*service, "env", "-u", "KUBECONFIG", *ordinary.within(tmp_path)),
        ).json  # fmt: skip
    finally:
        cluster.kubectl("delete", "serviceaccount", "operator")
        deny(cluster, account, "steerlab")
    assert found["missing"] == []


# --- one namespace ---


@pytest.fixture
def tenant(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of a user who has one namespace alone, which has an object of their own."""
    cluster.kubectl("create", "namespace", TEAM)
    level = "pod-security.kubernetes.io/enforce=privileged"
    cluster.kubectl("label", "namespace", TEAM, level)
    cluster.kubectl("create", "configmap", "mine", "-n", TEAM)
    path = tmp_path / "tenant.conf"
    path.write_text(json.dumps(kubeconfig("tenant")))
    grant(
        cluster,
        "--user=tenant",
        "ClusterRole/steerlab-nodes",
        "Role/steerlab",
        "Role/steerlab-pulumi",
    )
    yield path
    deny(cluster, "--user=tenant", "steerlab-nodes")
    cluster.kubectl("delete", "namespace", TEAM)


def objects(cluster: Cluster) -> set[str]:
    return set(cluster.kubectl("get", KINDS, "-n", TEAM, "-o", "name").split())


@pytest.mark.parametrize("engine", ["embedded", pytest.param("pulumi", marks=pytest.mark.cli)])
def test_a_user_of_one_namespace(
    project: Project, cluster: Cluster, tenant: Path, tmp_path: Path, engine: str
) -> None:
    project = Project(project.folder, engine, project.started)
    before, theirs = values(cluster), objects(cluster)
    where = (images.KEY, f"kubernetes.kubeconfig={tenant}", f"kubernetes.namespace={TEAM}")
    config = [word for one in where for word in ("-c", one)]
    if engine == "embedded":
        found = project.run("doctor", "--target", "kubernetes", *config, "--json").json
        assert found["missing"] == []
        assert objects(cluster) == theirs

    project.up(STACK, "target=kubernetes", *where, "duration=1", "omit=0")
    assert project.last(STACK)["valid"]
    assert project.up(STACK).json["changes"] == []
    lease = json.loads(cluster.kubectl("get", "lease", "steerlab", "-n", TEAM, "-o", "json"))
    assert str(project.folder) in lease["spec"]["holderIdentity"]
    colleague = Project(copy(tmp_path / "colleague"), engine)
    there = objects(cluster)
    said = colleague.up("baseline-1", "target=kubernetes", *where, code=3).err
    assert f"namespace {TEAM} has stack {STACK}" in said
    assert str(project.folder) in said
    colleague.destroy("baseline-1")
    assert objects(cluster) == there
    project.destroy(STACK)
    assert (objects(cluster), values(cluster)) == (theirs, before)

    project.up(STACK, "runs=0")
    words = ("destroy", "--cluster", "-s", STACK, *config[2:], "--force", "--json")
    answer = colleague.run(*words).json
    assert (answer["nodes"], answer["restored"] > 0) == (["worker1"], True)
    wait_until("the namespace as it was", lambda: objects(cluster) == theirs, 60)
    assert values(cluster) == before
    project.destroy(STACK)


# --- plain Pulumi ---


@pytest.mark.cli
def test_plain_pulumi_needs_the_documented_rights_alone(
    ordinary: Ordinary, cluster: Cluster
) -> None:
    grant(cluster, "--user=operator", "ClusterRole/steerlab-pulumi")
    before = values(cluster)
    given = {
        "PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_SKIP_UPDATE_CHECK": "true", "USER": "operator",
        "PULUMI_HOME": str(ordinary.home / "pulumi"),
    }  # fmt: skip
    (ordinary.project.folder / ".pulumi").mkdir()
    os.chown(ordinary.project.folder / ".pulumi", USER, USER)
    pulumi = _plain(ordinary, given)
    try:
        pulumi("stack", "select", "--create", STACK)
        for key, value in {"target": "kubernetes", "runs": "0"}.items():
            pulumi("config", "set", key, value)
        for name, image in images.IMAGES.items():
            pulumi("config", "set", "--path", f"kubernetes.images.{name}", image)
        pulumi("up", "--yes")
        assert values(cluster) != before
        assert "unchanged" in pulumi("up", "--yes")
        pulumi("destroy", "--yes")
    finally:
        deny(cluster, "--user=operator", "steerlab-pulumi")
    assert values(cluster) == before
    assert "steerlab" not in cluster.kubectl("get", "namespaces")


def _plain(ordinary: Ordinary, given: Mapping[str, str]) -> Callable[..., str]:
    """The CLI as the user types it in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [*ordinary.within(path=os.environ["PATH"]), "pulumi", *words, "--non-interactive"],
            cwd=ordinary.project.folder, env={**environment, **given}, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
