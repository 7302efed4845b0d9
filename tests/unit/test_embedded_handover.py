"""A stack passes between the embedded engine and the real Pulumi CLI, both ways."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from embedded_project import Project, done

from experiments.engines.embedded import locks

TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-command")

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)), reason=f"not on PATH: {', '.join(TOOLS)}"
    ),
]

PROGRAM = """
    class Pair(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("tried:index:Pair", name, None, None)
            server = thing(f"{name}-server", opts=Options(parent=self), logging="none",
                           triggers=["boot", %(boot)r], interpreter=["/bin/sh", "-ec"],
                           environment={"V": "%(version)d"}, update=note(f"update {name}"))
            thing(f"{name}-client", opts=Options(parent=self, delete_before_replace=True),
                  stdin="Grüße 線\\n" * 3, create="cat", triggers=[server.id, 1.5, {"a": [True]}])
            self.register_outputs({"server": server.stdout})
    pairs = [Pair(f"pair{i}") for i in range(%(pairs)d)]
    last = thing("last", opts=Options(depends_on=pairs))
    pulumi.export("last", last.stdout)
    pulumi.export("count", len(pairs))
"""


def program(pairs=2, version=1, boot=1):
    return PROGRAM % {"pairs": pairs, "version": version, "boot": boot}


class Shared(Project):
    """A project that the CLI can work on too."""

    def __init__(self, folder):
        super().__init__(folder)
        (self.root / "Pulumi.yaml").write_text(
            json.dumps(
                {
                    "name": self.stack.project,
                    "runtime": {"name": "python", "options": {"virtualenv": sys.prefix}},
                }
            )
        )

    def pulumi(self, *args, ok=True):
        env = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{self.stack.home}",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_HOME": str(self.stack.home / "pulumi-home"),
        }
        self._diary.write_text("")
        command = ["pulumi", *args, "--non-interactive", "--stack", self.stack.name]
        run = subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)
        assert (run.returncode == 0) is ok, run.stdout + run.stderr
        return run.stdout + run.stderr


@pytest.fixture
def project(tmp_path):
    return Shared(tmp_path)


def comparable(resources):
    """Resources without what differs between two runs of one engine: ids, times, places."""
    text = json.dumps(resources)
    for resource in resources:
        if resource.get("id"):
            text = text.replace(resource["id"], "ID")
    found = []
    for resource in json.loads(text):
        for field in ("created", "modified", "sourcePosition", "stackTrace"):
            resource.pop(field, None)
        if resource["type"].startswith("pulumi:providers:"):  # a stamp of the provider's SDK
            for name in ("inputs", "outputs"):
                resource[name] = {k: v for k, v in resource[name].items() if k[:2] != "__"}
        lists = resource.get("propertyDependencies", {}).values()
        for urns in (resource.get("dependencies", []), *lists):
            urns.sort()
        found.append({k: v for k, v in resource.items() if v not in ("", {}, [])})
    return sorted(found, key=lambda resource: resource["urn"])


def test_embedded_then_cli_then_embedded_then_cli(project):
    project.up(program())
    assert "8 unchanged" in project.pulumi("preview", "--expect-no-changes")
    exported = json.loads(project.pulumi("stack", "export"))
    assert [r["urn"] for r in exported["deployment"]["resources"]] == [
        r["urn"] for r in project.latest["resources"]
    ]

    project.write(program(pairs=3, version=2))
    project.pulumi("up", "--yes", "--skip-preview")
    assert sorted(d for d in project.diary if "pair2" not in d) == ["update pair0", "update pair1"]
    assert done(project.preview()) == {}
    outcome = project.up()
    assert outcome.changes == ()
    assert outcome.outputs["count"] == 3
    assert project.latest["secrets_providers"]["type"] == "passphrase"

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert sorted(project.diary)[0] == "delete last"
    assert len(project.diary) == 7
    assert project.engine.resources(project.stack) == []


def test_cli_then_embedded_then_cli_then_embedded(project):
    project.write(program())
    project.pulumi("stack", "init")
    project.pulumi("up", "--yes", "--skip-preview")
    assert done(project.preview()) == {}
    outcome = project.up()
    assert (outcome.changes, outcome.same) == ((), 8)

    outcome = project.up(program(pairs=1, boot=2))
    assert done(outcome)["pair0-server"] == "replace"
    assert done(outcome)["pair1"] == "delete"
    project.pulumi("preview", "--expect-no-changes")
    assert "same" in project.pulumi("preview", "--diff")

    project.destroy()
    assert project.engine.resources(project.stack) == []
    project.pulumi("up", "--yes", "--skip-preview")
    project.pulumi("destroy", "--yes", "--skip-preview")
    project.pulumi("stack", "rm", "--yes")
    assert not project.checkpoint.exists()


def test_both_record_the_same(tmp_path):
    recorded = []
    for name in ("embedded", "pulumi"):
        (tmp_path / name).mkdir()
        project = Shared(tmp_path / name)
        for text in (program(), program(pairs=3, version=2, boot=2), program(pairs=1, boot=2)):
            project.write(text)
            if name == "embedded":
                project.up()
            else:
                if not project.checkpoint.exists():
                    project.pulumi("stack", "init")
                project.pulumi("up", "--yes", "--skip-preview")
        text = json.dumps(comparable(project.latest["resources"]))
        recorded.append(json.loads(text.replace(str(tmp_path / name), "/here")))
    assert recorded[0] == recorded[1]


def test_a_killed_run_is_acceptable_to_the_cli(project):
    """It warns, creates the resource and keeps the warning; the embedded engine clears it."""
    project.up(program())
    resources = project.latest["resources"]
    last = resources.pop()
    pending = {k: v for k, v in last.items() if k not in ("id", "outputs", "created", "modified")}
    project.edit(
        resources=resources, pending_operations=[{"resource": pending, "type": "creating"}]
    )
    assert "interrupted while creating" in project.pulumi("up", "--yes", "--skip-preview")
    assert project.diary == ["create last"]
    assert len(project.latest["pending_operations"]) == 1
    assert done(project.up()) == {"last": "update"}
    assert "pending_operations" not in project.latest
    project.pulumi("preview", "--expect-no-changes")


def test_what_is_exported_is_imported_again(project, tmp_path):
    project.up(program())
    (tmp_path / "state.json").write_text(project.pulumi("stack", "export"))
    project.pulumi("stack", "import", "--file", str(tmp_path / "state.json"))
    project.pulumi("preview", "--expect-no-changes")
    outcome = project.up()
    assert (outcome.changes, outcome.same) == ((), 8)
    assert project.diary == []


def test_each_respects_the_lock_of_the_other(project):
    project.up(program(pairs=1))
    with locks.hold(project.stack):
        assert f"pid {os.getpid()}" in project.pulumi("up", "--yes", "--skip-preview", ok=False)
    project.pulumi("up", "--yes", "--skip-preview")

    folder = project.stack.home / ".pulumi/locks/organization/tried/dev"
    # The command itself looks for the lock of the CLI that runs it.
    project.write(f'thing("look", create="cat {folder}/*.json")')
    project.pulumi("up", "--yes", "--skip-preview")
    holder = json.loads(project["look"]["outputs"]["stdout"])
    assert holder.keys() == {"pid", "username", "hostname", "timestamp"}
    (folder / "left-behind.json").write_text(json.dumps(holder))
    assert project.up().changes == ()
    assert list(folder.glob("*.json")) == []
