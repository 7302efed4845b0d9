"""The embedded engine where a command fails, hangs or is killed, or the file is damaged."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from embedded_project import Project, done

from experiments.engines.embedded import command, state
from infra.checkpoint import Damaged
from infra.errors import Refusal


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def wait_for(path: Path) -> str:
    """The text of a file that a command is about to write."""
    for _ in range(400):
        with suppress(FileNotFoundError):
            if text := path.read_text().strip():
                return text
        time.sleep(0.025)
    raise AssertionError(f"{path} did not appear")


def is_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.025)
    return False


def test_failure_names_resource_status_and_last_lines(project):
    message = project.fails("""
        thing("a", create="pwd; seq 100 >&2; exit 3")
    """)
    assert "command:local:Command a: create failed: exit status 3" in message
    assert message.splitlines()[-1].strip() == "100"
    assert "  81\n" in message
    assert "  80\n" not in message
    assert str(project.root) not in message


def test_stdout_is_shown_where_stderr_is_empty(project):
    assert "  why\n" in project.fails('thing("a", create="echo why; kill -9 $$")') + "\n"
    assert "SIGKILL" in project.fails()


def test_dependents_are_skipped_and_the_others_finish(project):
    program = """
        bad = thing("bad", create=%r)
        reads = thing("reads", stdin=bad.stdout)
        thing("waits", opts=Options(depends_on=[bad]))
        thing("below", opts=Options(parent=reads))
        good = thing("good", create="sleep 0.2; " + note("create good"))
        thing("after", stdin=good.stdout)
        pulumi.export("good", good.stdout)
        pulumi.export("reads", reads.stdout)
    """
    message = project.fails(program % "exit 1")
    assert message.count("failed") == 1
    assert project.names == ["good", "after"]
    phases = {s.name: s.phase for s in project.steps}
    assert [phases[n] for n in ("bad", "reads", "waits", "below")] == ["failed"] + ["skipped"] * 3
    assert project.latest.get("pending_operations") is None
    assert project.engine.outputs(project.stack) == {"good": ""}

    outcome = project.up(program % "true")
    assert done(outcome) == dict.fromkeys(["bad", "reads", "waits", "below"], "create")
    assert outcome.same == 3


def test_nothing_is_deleted_after_a_failure(project):
    project.up('thing("old")\na = thing("a", triggers=["1"])\npulumi.export("a", "first")')
    project.fails("""
        thing("a", triggers=["2"])
        thing("bad", create="false")
    """)
    assert project.diary == ["create a"]
    assert sorted(project.names) == ["a", "a", "old"]
    assert [r.get("delete", False) for r in project.commands if "::a" in r["urn"]] == [False, True]
    assert project.engine.outputs(project.stack) == {"a": "first"}
    outcome = project.up('thing("a", triggers=["2"])')
    assert sorted(project.diary) == ["delete a", "delete old"]
    assert done(outcome) == {"old": "delete", "a": "delete"}
    assert project.names == ["a"]


def test_failed_update_is_tried_again(project):
    program = 'thing("a", update=%r, environment={"V": %r})'
    project.up(program % ("true", "1"))
    assert "a: update failed" in project.fails(program % ("false", "2"))
    assert project["a"]["inputs"]["environment"] == {"V": "1"}
    assert done(project.up(program % ("true", "2"))) == {"a": "update"}


def test_replacement_that_fails_half_way_resumes_there(project):
    program = """
        a = thing("a", triggers=[%r], create=note("create a") + "; " + %r,
                  opts=Options(delete_before_replace=True))
        thing("b", triggers=[a.id])
    """
    project.up(program % ("1", "true"))
    project.fails(program % ("2", "false"))
    assert project.diary == ["delete b", "delete a", "create a"]
    assert [r["pendingReplacement"] for r in project.commands] == [True, True]
    outcome = project.up(program % ("2", "true"))
    assert project.diary == ["create a", "create b"]
    assert done(outcome) == {"a": "replace", "b": "replace"}
    assert project.up().changes == ()


def test_replacement_stops_where_a_dependent_cannot_be_deleted(project):
    program = """
        a = thing("a", triggers=[%r], opts=Options(delete_before_replace=True))
        thing("b", triggers=[a.id], delete=%r)
    """
    project.up(program % ("1", "exit 7"))
    message = project.fails(program % ("2", "exit 7"))
    assert "::b " in message
    assert "exit status 7" in message
    assert project.diary == []
    assert project.names == ["a", "b"]


def test_what_a_failed_delete_builds_on_stays(project):
    project.up("""
        a = thing("a")
        b = thing("b", stdin=a.stdout, delete="exit 5")
        thing("c", stdin=b.stdout)
        thing("free")
    """)
    assert "b: delete failed: exit status 5" in project.fails(verb="destroy")
    assert sorted(project.diary) == ["delete c", "delete free"]
    assert project.names == ["a", "b"]


def test_unhandled_error_of_the_program_keeps_what_was_done(project):
    message = project.fails("""
        thing("a")
        thing("b")
        raise LookupError("no such node")
    """)
    assert "LookupError: no such node (__main__.py:" in message
    assert sorted(project.names) == ["a", "b"]


def test_refusal_of_the_program_is_passed_on_as_it_is(project):
    assert project.fails("raise pulumi.RunError('replicas must be 1 or more')") == (
        "replicas must be 1 or more"
    )
    assert "exited with 2" in project.fails("raise SystemExit(2)")


def test_error_in_an_apply_fails_the_run(project):
    message = project.fails("""
        a = thing("a")
        pulumi.export("x", a.stdout.apply(lambda _: 1 / 0))
    """)
    assert "ZeroDivisionError" in message
    assert project.names == ["a"]


def test_no_program_is_said(project):
    assert "__main__.py" in project.fails()


def interrupt(project, program):
    """Run a program and press Ctrl-C once its command has written `child`."""

    def press():
        wait_for(project.root / "child")
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=press)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        project.up(program)
    sender.join()


def test_deaf_command_is_killed(project, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 0.3)
    interrupt(
        project,
        """
        thing("a", create="trap '' TERM; sleep 60 & echo $! > child; wait; wait")
    """,
    )
    assert is_gone(int((project.root / "child").read_text()))


def test_process_that_left_the_group_does_not_hold_the_run(project, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 0.2)
    interrupt(
        project,
        """
        thing("a", create="setsid sleep 60 & echo $! > child; echo some; wait")
    """,
    )
    os.kill(int((project.root / "child").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["up", "destroy"])
def test_interrupt_ends_commands_saves_and_propagates(project, number, verb):
    hang = "sleep 60 & echo $! > child; wait"
    if verb == "up":
        project.write(f"""
            a = thing("a", create={hang!r})
            thing("b", stdin=a.stdout)
        """)
    else:
        project.up(f'thing("a", delete={hang!r})')

    def interrupt():
        wait_for(project.root / "child")
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        getattr(project.engine, verb)(project.stack)
    sender.join()
    assert is_gone(int((project.root / "child").read_text()))
    [pending] = project.latest["pending_operations"]
    assert pending["type"] == {"up": "creating", "destroy": "deleting"}[verb]
    assert ("a" in project.names) is (verb == "destroy")
    assert "b" not in project.names
    assert not list((project.stack.home / ".pulumi/locks").rglob("*.json"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def kill_while(project: Project, verb: str = "up") -> None:
    """Run in another process and kill it with SIGKILL once a command has written `child`."""
    child = project.root / "child"
    child.unlink(missing_ok=True)
    script = f"""
import sys
from pathlib import Path
from experiments.engines import StackRef
from experiments.engines.embedded import Embedded
root, home = map(Path, sys.argv[1:])
Embedded().{verb}(StackRef(root, home, {project.stack.name!r}, {{}}, {project.stack.project!r}))
"""
    args = [sys.executable, "-c", script, str(project.root), str(project.stack.home)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(args, env=env) as process:
        orphan = int(wait_for(child))
        process.kill()
    with suppress(ProcessLookupError):
        os.killpg(orphan, signal.SIGKILL)


HANG = "echo $$ > child; sleep 60"


def test_killed_create_is_done_again(project, caplog):
    program = """
        before = thing("before")
        thing("a", stdin=before.stdout, create=note("clear and create a") + "; " + %r)
    """
    project.write(program % HANG)
    kill_while(project)
    assert project.latest["pending_operations"][0]["type"] == "creating"
    with caplog.at_level(logging.WARNING):
        outcome = project.up(program % "true")
    assert "while creating" in caplog.text
    assert "removed the lock of pid" in caplog.text
    assert project.diary == ["clear and create a"]
    assert done(outcome) == {"a": "create"}
    assert project.latest.get("pending_operations") is None


def test_killed_create_of_what_is_no_longer_wanted_is_deleted(project):
    project.write(f'b = thing("b")\nthing("a", stdin=b.stdout, create={HANG!r})')
    kill_while(project)
    assert done(project.preview('thing("b")')) == {"a": "delete"}
    assert done(project.up()) == {"a": "delete"}
    assert project.diary == ["delete a"]
    assert project.latest.get("pending_operations") is None


def test_killed_create_can_be_destroyed(project):
    project.write(f'b = thing("b")\nthing("a", stdin=b.stdout, create={HANG!r})')
    kill_while(project)
    project.destroy()
    assert project.diary == ["delete a", "delete b"]
    assert project.latest.keys() == {"manifest", "metadata"}


def test_killed_update_is_done_again_even_where_the_inputs_went_back(project):
    program = 'thing("a", update=%r, environment={"V": "%s"})'
    project.up(program % ("true", 1))
    project.write(program % (HANG, 2))
    kill_while(project)
    assert project.latest["pending_operations"][0]["type"] == "updating"
    assert done(project.up(program % ("true", 1))) == {"a": "update"}
    assert project.up().changes == ()


def test_killed_delete_is_finished_before_a_create(project):
    program = 'thing("a", delete=note("delete a") + "; " + %r)'
    project.up(program % HANG)
    kill_while(project, "destroy")
    assert project.latest["pending_operations"][0]["type"] == "deleting"
    document = json.loads(project.checkpoint.read_text())
    [a] = [r for r in document["checkpoint"]["latest"]["resources"] if r["urn"].endswith("::a")]
    a["outputs"]["delete"] = a["outputs"]["delete"].replace(HANG, "true")
    project.checkpoint.write_text(json.dumps(document))
    assert done(project.up(program % "true")) == {"a": "replace"}
    assert project.diary == ["delete a", "create a"]
    assert project.latest.get("pending_operations") is None


def test_killed_delete_of_a_replaced_one_leaves_the_new_one_alone(project):
    program = 'thing("a", triggers=["%s"], delete=%r)'
    project.up(program % (1, HANG))
    project.write(program % (2, HANG))
    kill_while(project)
    document = json.loads(project.checkpoint.read_text())
    for resource in document["checkpoint"]["latest"]["resources"]:
        if resource.get("delete"):
            resource["outputs"]["delete"] = "touch deleted"
    project.checkpoint.write_text(json.dumps(document))
    outcome = project.up()
    assert done(outcome) == {"a": "delete"}
    assert outcome.same == 2
    assert (project.root / "deleted").exists()
    assert len(project.names) == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-100], "JSONDecodeError"),
        (lambda _: "", "empty"),
        (lambda _: "[]", "valid dictionary"),
        (lambda _: '{"version": 3}', "checkpoint"),
        (lambda _: "\udcff", "UnicodeDecodeError"),
        (lambda text: text.replace('"magic":"', '"magic":"0'), "magic"),
        (lambda text: text.replace("providers:command::default", "providers:command::x", 1),
         "depends on"),
        (lambda text: text.replace('"id":', '"di":'), "no type"),
    ],
)  # fmt: skip
def test_damaged_checkpoint_is_named_and_left_as_it_is(project, damage, said):
    project.up('thing("a")')
    project.up('thing("b")')
    text = damage(project.checkpoint.read_text())
    project.checkpoint.write_text(text, errors="surrogateescape")
    before = project.checkpoint.read_bytes()
    for verb in ("up", "destroy"):
        message = project.fails(verb=verb)
        assert str(project.checkpoint) in message
        assert said in message
        assert f"{project.checkpoint}.bak" in message
    with pytest.raises(Damaged):
        project.engine.outputs(project.stack)
    assert project.checkpoint.read_bytes() == before
    assert project.diary == []
    project.checkpoint.with_name("dev.json.bak").rename(project.checkpoint)
    project.destroy()


def test_checkpoint_of_a_newer_format_or_compressed_is_refused(project):
    project.up('thing("a")')
    document = json.loads(project.checkpoint.read_text())
    document |= {"version": 4, "features": ["taint"]}
    project.checkpoint.write_text(json.dumps(document))
    assert "needs the Pulumi CLI: taint" in project.fails()
    project.checkpoint.rename(f"{project.checkpoint}.gz")
    assert "dev.json.gz" in project.fails()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "aws:s3:Bucket"}, "aws:s3:Bucket"),
        ({"external": True}, "imported"),
        ({"inputs": {"create": {"4dabf18193072939515e22adb298388d":
         "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}}}, "secret value"),
    ],
)  # fmt: skip
def test_state_that_this_engine_could_not_handle_is_refused(project, change, said):
    project.up('thing("a")')
    resources = project.latest["resources"]
    resources[-1] |= change
    project.edit(resources=resources)
    for verb in ("up", "preview", "destroy"):
        assert said in project.fails(verb=verb)
    assert project.diary == []
    assert len(project.engine.resources(project.stack)) == 3


def test_full_disk_fails_the_run_before_the_command(project, monkeypatch):
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    project.up("")
    before = project.checkpoint.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    message = project.fails('thing("a")')
    assert "cannot write the checkpoint" in message
    assert "No space left" in message
    assert project.diary == []
    assert project.checkpoint.read_bytes() == before


def test_every_state_on_disk_is_whole_and_notes_what_runs(project, monkeypatch):
    """Each command finds itself pending in a sound file; nothing done is missing from the next."""
    faults = []
    original = state.save

    def checked(stack, text):
        original(stack, text)
        try:
            state.load(project.stack)
        except Refusal as error:
            faults.append(str(error))

    monkeypatch.setattr(state, "save", checked)
    look = (
        "import json, sys; latest = json.load(open('../.pulumi/stacks/tried/dev.json'))"
        "['checkpoint']['latest']; print([o['type'] for o in latest['pending_operations']"
        " if o['resource']['urn'].endswith('::' + sys.argv[1])],"
        " len(latest['resources']))"
    )
    (project.root / "look.py").write_text(look)
    program = """
        a = thing("a", create="python3 look.py a", triggers=["%s"],
                  opts=Options(delete_before_replace=True))
        for i in range(12):
            thing(f"c{i}", create=f"python3 look.py c{i}", stdin=a.id, triggers=[a.id])
    """
    project.up(program % 1)
    assert project["a"]["outputs"]["stdout"] == "['creating'] 2"
    for i in range(12):
        assert project[f"c{i}"]["outputs"]["stdout"].startswith("['creating']")
    project.up(program % 2)
    project.destroy()
    assert faults == []
