"""What the embedded engine does not do, it refuses by name and before anything runs."""

from __future__ import annotations

import pytest
from embedded_project import Project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('thing("a", opts=Options(import_="x"))', "does not support import"),
        ('thing("a", opts=Options(aliases=[pulumi.Alias(name="b")]))', "does not support alias"),
        ('thing("a", opts=Options(transforms=[lambda args: None]))', "transforms"),
        ('pulumi.runtime.register_resource_transform(lambda args: None)', "transforms"),
        ('hooks = pulumi.ResourceHookBinding(before_create=[lambda _: None])\n'
         'thing("a", opts=Options(hooks=hooks))', "resource hooks"),
        ('thing("a", opts=Options(additional_secret_outputs=["stdout"]))',
         "does not support additional_secret_outputs"),
        ('thing("a", environment={"A": pulumi.Output.secret("x")})', "no secret values"),
        ('thing("a")\npulumi.export("x", pulumi.Output.secret("y"))', "no secret values"),
        ('thing("a", stdin=pulumi.StringAsset("x"))', "assets"),
        ('thing("a", opts=Options(replace_with=[thing("b")]))', "ReplaceWith"),
        ('thing("a", opts=Options(ignore_changes=["environment.A"]))',
         "ignore_changes"),
        ('thing("a", opts=Options(replace_on_changes=["stdin"]))', "replace_on_changes"),
        ('thing("a", opts=Options(retain_on_delete=True))', "retain_on_delete"),
        ('thing("a", opts=Options(deleted_with=thing("b")))', "deleted_with"),
        ('thing("a", opts=Options(plugin_download_url="https://x"))', "plugin_download_url"),
        ('thing("a", opts=Options(custom_timeouts={"create": "5m"}))', "custom_timeouts"),
        ('thing("a", asset_paths=["*"])', "input assetPaths is not supported"),
        ('thing("a", archive_paths=["*"])', "input archivePaths is not supported"),
        ('thing("a", environment={"A": 1})', "input environment must be a map of strings"),
        ('thing("a", create=17)', "input create must be a string"),
        ('thing("a", interpreter="sh")', "input interpreter must be a list of strings"),
        ('thing("a", triggers="x")', "input triggers must be a list"),
        ('thing("a", add_previous_output_in_env="no")', "must be a boolean"),
        ('thing("a", logging="loud")', "logging must be one of"),
        ('import pulumi_command\npulumi_command.Provider("p")',
         "pulumi:providers:command"),
        ('from pulumi_command import remote\nremote.Command("a", create="x",\n'
         '    connection={"host": "h"})', "command:remote:Command"),
        ('from pulumi_command import local\nlocal.run(command="true")',
         "does not support Invoke command:local:run"),
        ('pulumi.StackReference("organization/other/dev")', "does not support"),
        ('Command.get("a", "id")', "does not support ReadResource command:local:Command"),
        ('thing("a")\nthing("a")', "declared twice"),
    ],
)  # fmt: skip
def test_refused_by_name(project, program, said):
    assert said in project.fails(program)
    assert "create a" not in project.diary or program.startswith('thing("a")\n')


def test_unknown_urn_to_replace_is_named(project):
    from experiments.engines import EngineError

    project.up('thing("a")')
    with pytest.raises(EngineError, match="no such resource"):
        project.up(replace=["urn:pulumi:dev::tried::command:local:Command::b"])
    assert project.diary == []


@pytest.mark.parametrize("logging", ["stdout", "stderr", "stdoutAndStderr", "none"])
def test_every_kind_of_logging_is_taken(project, logging):
    project.up(f'thing("a", logging="{logging}")')
    assert project["a"]["inputs"]["logging"] == logging


def test_what_the_program_logs_is_logged(project, caplog):
    project.up("""
        pulumi.log.warn("careful")
        a = thing("a")
        pulumi.log.error("attached", a)
        pulumi.log.debug("noise")
    """)
    assert [r.getMessage() for r in caplog.records] == ["careful", "attached"]
