"""What `up`, `preview` and `destroy` of the embedded engine do to commands, outputs and state."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest
from embedded_project import Project, done

from experiments.engines.embedded.deployment import Deployment


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_creates_in_order_and_exports(project):
    outcome = project.up("""
        a = thing("a", create=note("create a") + "; echo one; echo two >&2")
        b = thing("b", stdin=a.stdout, create=f"cat; {note('create b')}")
        pulumi.export("b", b.stdout)
        pulumi.export("list", [1, 2.5, True, {"k": a.stderr}])
    """)
    assert project.diary == ["create a", "create b"]
    assert done(outcome) == {"a": "create", "b": "create"}
    assert outcome.same == 0
    assert outcome.outputs == {"b": "one", "list": [1, 2.5, True, {"k": "two"}]}
    assert project.engine.outputs(project.stack) == outcome.outputs
    assert project["b"]["dependencies"] == [project.urn("a")]
    assert project["b"]["propertyDependencies"]["stdin"] == [project.urn("a")]
    assert project["a"]["outputs"]["stderr"] == "two"


def test_second_run_leaves_all_alone_and_writes_nothing(project):
    project.up('a = thing("a", environment={"A": "1"}, triggers=[1, None, {"x": [True]}])')
    before = project.checkpoint.stat()
    outcome = project.up()
    assert (outcome.changes, outcome.same, project.diary) == ((), 2, [])
    assert project.checkpoint.stat().st_mtime_ns == before.st_mtime_ns


def test_changed_input_runs_update_or_else_create(project):
    project.up("""
        thing("with", update=note("update with"), environment={"A": "1"})
        thing("without", environment={"A": "1"})
    """)
    ids = project["with"]["id"], project["without"]["id"]
    outcome = project.up("""
        thing("with", update=note("update with"), environment={"A": "2"})
        thing("without", environment={"A": "2"})
    """)
    assert sorted(project.diary) == ["create without", "update with"]
    assert done(outcome) == {"with": "update", "without": "update"}
    assert {step.detail for step in outcome.changes} == {"A: 1 -> 2"}
    assert ids == (project["with"]["id"], project["without"]["id"])


def test_a_change_of_delete_alone_runs_the_command_again(project):
    project.up('thing("a")')
    project.up('thing("a", delete="true")')
    assert project.diary == ["create a"]


def test_update_sees_the_previous_output_and_delete_the_last(project):
    program = """
        seen = 'echo "$PULUMI_COMMAND_STDOUT,$PULUMI_COMMAND_STDERR"'
        diary = note("").split(">>")[1]
        thing("a", create="echo out; echo err >&2", update=seen, delete=seen + ">>" + diary,
              environment={"V": %r})
    """
    project.up(program % "1")
    assert project["a"]["outputs"]["stdout"] == "out"
    project.up(program % "2")
    assert project["a"]["outputs"]["stdout"] == "out,err"
    project.destroy()
    assert project.diary == ["out,err,"]


def test_previous_output_can_be_left_out(project):
    program = """
        thing("a", create="echo out", update="echo [$PULUMI_COMMAND_STDOUT]",
              add_previous_output_in_env=False, environment={"V": %r})
    """
    project.up(program % "1")
    project.up(program % "2")
    assert project["a"]["outputs"]["stdout"] == "[]"


def test_triggers_replace_and_the_old_one_is_deleted_last(project):
    program = """
        a = thing("a", triggers=[%r])
        thing("b", stdin=a.id)
    """
    project.up(program % "1")
    outcome = project.up(program % "2")
    assert project.diary == ["create a", "create b", "delete a"]
    assert done(outcome) == {"a": "replace", "b": "update"}


def test_delete_before_replace_takes_forced_dependents_along(project):
    program = """
        a = thing("a", triggers=[%r], opts=Options(delete_before_replace=True))
        b = thing("b", triggers=[a.id])
        c = thing("c", triggers=[b.id])
        thing("reads", stdin=a.stdout)
        thing("waits", opts=Options(depends_on=[a]))
    """
    project.up(program % "1")
    outcome = project.up(program % "2")
    assert project.diary == [
        f"{verb} {n}" for verb, n in zip(["delete"] * 3 + ["create"] * 3, "cbaabc", strict=True)
    ]
    assert done(outcome) == {"a": "replace", "b": "replace", "c": "replace"}
    assert outcome.same == 3


def test_dependent_deleted_for_a_replacement_may_be_gone_from_the_program(project):
    program = """
        a = thing("a", triggers=[%r], opts=Options(delete_before_replace=True))
    """
    project.up(program % "1" + '    b = thing("b", triggers=[a.id])\n')
    outcome = project.up(program % "2")
    assert project.diary == ["delete b", "delete a", "create a"]
    assert done(outcome) == {"a": "replace", "b": "delete"}
    assert project.names == ["a"]


def test_replace_by_urn_once(project):
    program = """
        a = thing("a", opts=Options(delete_before_replace=True))
        thing("b", triggers=[a.id])
        thing("c")
    """
    project.up(program)
    urn = project.urn("a")
    assert done(project.preview(replace=[urn])) == {"a": "replace", "b": "replace"}
    outcome = project.up(replace=[urn])
    assert project.diary == ["delete b", "delete a", "create a", "create b"]
    assert done(outcome) == {"a": "replace", "b": "replace"}
    assert done(project.up()) == {}


def test_removed_resources_are_deleted_dependents_first(project):
    project.up("""
        a = thing("a")
        b = thing("b", stdin=a.stdout)
        c = thing("c", opts=Options(depends_on=[b]))
        thing("stays")
    """)
    outcome = project.up('thing("stays")')
    assert project.diary == ["delete c", "delete b", "delete a"]
    assert done(outcome) == {"c": "delete", "b": "delete", "a": "delete"}
    assert project.names == ["stays"]


def test_renamed_resource_is_created_before_the_old_one_goes(project):
    project.up('thing("old")')
    assert done(project.up('thing("new")')) == {"new": "create", "old": "delete"}
    assert project.diary == ["create new", "delete old"]


def test_update_without_delete_is_removed_silently(project):
    project.up('Command("a", create="true")')
    assert done(project.up("")) == {"a": "delete"}
    assert project.names == []


def test_options_pass_from_a_component_to_its_children(project):
    project.up("""
        class Group(pulumi.ComponentResource):
            def __init__(self, name, opts):
                super().__init__("tried:index:Group", name, None, opts)
                thing("child", opts=Options(parent=self))
                self.register_outputs({})
        Group("group", Options(protect=True))
    """)
    assert project["child"]["protect"] is True


def test_nested_components(project):
    program = """
        class Part(pulumi.ComponentResource):
            def __init__(self, kind, name, opts=None):
                super().__init__(f"tried:index:{kind}", name, None, opts)

        outer = Part("Outer", "outer")
        inner = Part("Inner", "inner", Options(parent=outer))
        leaf = thing("leaf", create="echo green", opts=Options(parent=inner))
        inner.register_outputs({"colour": leaf.stdout})
        outer.register_outputs({})
        thing("after", opts=Options(depends_on=[outer]))
    """
    outcome = project.up(program)
    assert sorted(done(outcome)) == ["after", "inner", "leaf", "outer"]
    types = project.urn("leaf").split("::")[2]
    assert types == "tried:index:Outer$tried:index:Inner$command:local:Command"
    assert project["leaf"]["parent"] == project.urn("inner")
    assert project["after"]["dependencies"] == [project.urn("leaf")]
    assert project["inner"]["outputs"] == {"colour": "green"}
    assert "id" not in project["inner"]
    assert project.up().same == 5
    project.destroy()
    assert project.latest.get("resources", []) == []


def test_protected_resources_stay(project):
    program = 'thing("a", triggers=[%r], opts=Options(protect=True))\nthing("b")'
    project.up(program % "1")
    assert "a: replace failed: it is protected" in project.fails(program % "2")
    assert "a: delete failed: it is protected" in project.fails(verb="destroy")
    assert project.names == ["a"]
    project.up('thing("a", triggers=["2"])')
    project.destroy()
    assert project.names == []


def test_destroy_needs_no_program_and_keeps_the_stack(project):
    project.up('a = thing("a")\nthing("b", stdin=a.stdout)')
    (project.root / "__main__.py").unlink()
    assert done(project.destroy()) == {"b": "delete", "a": "delete"}
    assert project.diary == ["delete b", "delete a"]
    assert project.engine.outputs(project.stack) == {}
    assert project.destroy().changes == ()


def test_unknown_stack_is_empty_and_destroy_leaves_no_trace(project, tmp_path):
    assert project.engine.outputs(project.stack) == {}
    assert project.engine.resources(project.stack) == []
    assert project.destroy().changes == ()
    assert not (tmp_path / ".pulumi").exists()


def test_preview_runs_nothing_and_knows_what_is_unknown(project, tmp_path):
    program = """
        a = thing("a", environment={"V": %r})
        b = thing("b", stdin=a.stdout)
        pulumi.export("a", a.stdout)
        pulumi.export("create", a.create)
        seen = []
        a.stdout.apply(seen.append)
    """
    outcome = project.preview(program % "1")
    assert done(outcome) == {"a": "create", "b": "create"}
    assert outcome.outputs["a"] == "[unknown]"
    assert outcome.outputs["create"].startswith("echo")
    assert project.diary == []
    assert not (tmp_path / ".pulumi").exists()
    assert {step.phase for step in project.steps} == {"done"}

    project.up()
    assert project.preview().changes == ()
    outcome = project.preview(program % "2")
    assert done(outcome) == {"a": "update", "b": "update"}
    assert outcome.outputs["a"] == "[unknown]"
    assert done(project.preview("")) == {"a": "delete", "b": "delete"}
    assert project.diary == []
    assert project.names == ["a", "b"]


def test_preview_of_an_added_input_keeps_known_outputs(project):
    """pulumi-command calls an output unknown only where a recorded input changes."""
    project.up('a = thing("a", create="echo x")\npulumi.export("a", a.stdout)')
    outcome = project.preview(
        'a = thing("a", create="echo x", stdin="new")\npulumi.export("a", a.stdout)'
    )
    assert done(outcome) == {"a": "update"}
    assert outcome.outputs == {"a": "x"}


def test_environment_stdin_interpreter_and_folder(project, monkeypatch):
    monkeypatch.setenv("OUTER", "outer")
    (project.root / "sub").mkdir()
    project.up("""
        thing("env", create='echo "$OUTER $INNER"', environment={"INNER": "in 'quotes'"})
        thing("over", create='echo "$OUTER"', environment={"OUTER": "mine"})
        thing("python", create="print(6 * 7)", interpreter=["python3", "-c"])
        thing("here", create="pwd")
        thing("there", create="pwd", dir="sub")
        thing("none", create="cat; echo end")
    """)
    stdout = {r["urn"].rsplit("::", 1)[-1]: r["outputs"]["stdout"] for r in project.commands}
    root = os.path.realpath(project.root)
    assert stdout == {
        "env": "outer in 'quotes'",
        "over": "mine",
        "python": "42",
        "here": root,
        "there": f"{root}/sub",
        "none": "end",
    }


def test_one_trailing_newline_is_cut_and_bytes_survive_as_text(project):
    project.up(r"""
        thing("lines", create="printf 'a\\n\\n'")
        thing("text", create="cat", stdin="Grüße 線\n😀")
        thing("bytes", create=r"printf '\377ok'")
    """)
    assert project["lines"]["outputs"]["stdout"] == "a\n"
    assert project["text"]["outputs"]["stdout"] == "Grüße 線\n😀"
    assert project["bytes"]["outputs"]["stdout"] == "\ufffdok"


def test_a_megabyte_passes_through(project):
    project.up("""
        big = thing("big", create="head -c 1000000 /dev/zero | tr '\\\\0' x",
                    add_previous_output_in_env=False)
        thing("count", create="wc -c", stdin=big.stdout)
    """)
    assert project["count"]["outputs"]["stdout"].strip() == "1000000"
    assert project.up().changes == ()


def test_too_much_text_for_the_environment_is_said(project):
    project.up("""thing("a", create="head -c 200000 /dev/zero | tr '\\\\0' x")""")
    assert "Argument list too long" in project.fails('thing("a", create="true")')


def test_a_background_process_with_closed_output_may_stay(project):
    project.up("""thing("a", create="setsid sleep 30 >/dev/null 2>&1 & echo $!")""")
    os.kill(int(project["a"]["outputs"]["stdout"]), 9)


def test_independent_commands_run_at_once(project):
    """Each waits for the other: one after the other they would never end."""
    os.mkfifo(project.root / "left")
    os.mkfifo(project.root / "right")
    project.up("""
        delete = lambda own, other: f"echo x > {own} & cat {other}; wait"
        thing("a", create="echo x > left & cat right; wait", delete=delete("left", "right"))
        thing("b", create="echo x > right & cat left; wait", delete=delete("right", "left"))
    """)
    assert project["a"]["outputs"]["stdout"] == "x"
    assert len(done(project.destroy())) == 2


def test_at_most_so_many_commands_run_at_once(tmp_path):
    project = Project(tmp_path, parallel=2)
    create = "mkdir -p on; touch on/$$; ls on | wc -l; sleep 0.1; rm on/$$"
    project.up(f"""
        for i in range(8):
            thing(f"c{{i}}", create={create!r}, delete={create!r})
    """)
    counts = [int(r["outputs"]["stdout"]) for r in project.commands]
    assert len(counts) == 8
    assert max(counts) == 2


def test_listener_hears_one_step_at_a_time(tmp_path):
    project = Project(tmp_path)
    busy = threading.Lock()
    heard = []

    def listen(step):
        assert busy.acquire(blocking=False)
        heard.append(step)
        busy.release()

    project.write('for i in range(20):\n    thing(f"c{i}")')
    outcome = project.engine.up(project.stack, on_step=listen)
    started = [s.name for s in heard if s.phase == "start"]
    ended = [s.name for s in heard if s.phase == "done"]
    assert sorted(started) == sorted(ended)
    assert [s.name for s in outcome.changes] == ended
    assert all(
        heard.index(s) < heard.index(e)
        for s in heard
        for e in heard
        if s.name == e.name and (s.phase, e.phase) == ("start", "done")
    )


def test_configuration_and_names_reach_the_program(tmp_path):
    project = Project(tmp_path, stack="rfs-plus-16")
    project.stack.config["tried:replicas"] = "16"
    outcome = project.up("""
        config = pulumi.Config()
        pulumi.export("replicas", config.require_int("replicas"))
        pulumi.export("project", pulumi.get_project())
        pulumi.export("names", [pulumi.get_stack(), pulumi.get_organization()])
        pulumi.export("absent", config.get("absent"))
    """)
    assert outcome.outputs == {
        "replicas": 16,
        "project": "tried",
        "names": ["rfs-plus-16", "organization"],
    }


def test_many_runs_in_one_process_leave_nothing_behind(project):
    def left():
        gc.collect()
        deployments = sum(isinstance(o, Deployment) for o in gc.get_objects())
        files = len(list(Path("/proc/self/fd").iterdir()))
        return threading.active_count(), files, Path.cwd(), deployments, list(sys.path)

    program = """
        class Group(pulumi.ComponentResource):
            def __init__(self, name):
                super().__init__("tried:index:Group", name)
                self.a = thing("a", environment={"V": "%d"}, opts=Options(parent=self))
        pulumi.export("a", Group("group").a.stdout)
    """
    project.up(program % 0)
    before = left()
    for number in range(30):
        assert done(project.up(program % (number + 1))) == {"a": "update"}
        assert done(project.preview(program % number)) == {"a": "update"}
    project.fails("raise ValueError('no')")
    project.destroy()
    assert left() == before


def test_the_checkpoint_is_what_pulumi_expects(project):
    project.up('thing("a")')
    latest = project.latest
    manifest = latest["manifest"]
    assert manifest["magic"] == hashlib.sha256(manifest["version"].encode()).hexdigest()
    stack, provider, command = latest["resources"]
    assert stack["urn"] == "urn:pulumi:dev::tried::pulumi:pulumi:Stack::tried-dev"
    assert "id" not in stack
    assert provider["type"] == "pulumi:providers:command"
    version = provider["inputs"]["version"]
    assert provider["urn"].endswith(f"::default_{version.replace('.', '_')}")
    assert command["provider"] == f"{provider['urn']}::{provider['id']}"
    assert command["replaceOnChanges"] == ["triggers[*]"]
    assert (project.stack.home / ".pulumi/meta.yaml").read_text() == "version: 1\n"


def test_a_newer_provider_takes_over_without_a_change(project):
    project.up('thing("a")')
    text = project.checkpoint.read_text()
    version = project.latest["resources"][1]["inputs"]["version"]
    older = text.replace(f"default_{version.replace('.', '_')}", "default_0_9_0")
    project.checkpoint.write_text(older)
    assert project.up().changes == ()
    assert project.up().changes == ()
    assert project.diary == []
    assert project.checkpoint.read_text().count("0_9_0") == 0
    assert [r["type"] for r in project.latest["resources"]].count("pulumi:providers:command") == 1


def test_secrets_providers_are_kept(project):
    project.up('thing("a")')
    provider = {"type": "passphrase", "state": {"salt": "v1:xyz"}}
    project.edit(secrets_providers=provider)
    project.up('thing("b")')
    project.destroy()
    assert project.latest["secrets_providers"] == provider
