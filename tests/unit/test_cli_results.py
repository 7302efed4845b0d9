"""`report`, `compare`, `history`, `import` and `published` on the command line: exit codes and words."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from study_text import write_text
from typer.testing import CliRunner

from benchmarks.synthetic import mixed, sweep, valued, write
from experiments import cli
from experiments.cli import terminal
from experiments.run import options
from experiments.run import plan as plans
from infra import configurations

pytestmark = pytest.mark.usefixtures("sketched")

Cli = Callable[..., tuple[int, str, str]]
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
KERNEL = "6.1.0-synthetic"
SIX = ("baseline", "rps", "rfs", "rps-plus", "rfs-plus", "pipeline")


@pytest.fixture
def steerlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Runs one command line as `./steerlab` does: exit code, stdout, stderr."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["steerlab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out, said.err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def kept(directory: Path, kernel: str = KERNEL, seed: int = 0, **ratios: float) -> Path:
    """A results directory of a sweep of the lab whose truth is known."""
    (directory / "records").mkdir(parents=True)
    for record in sweep({"baseline": 1.0, **ratios}, blocks=12, spread=0.01, seed=seed):
        record = record.model_copy(
            update={"machine": record.machine.model_copy(update={"kernel": kernel})}
        )
        path = directory / "records" / f"run-{record.order:05d}.json"
        path.write_text(record.model_dump_json())
    return directory


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return kept(tmp_path / "results", slow=0.8, fast=1.2)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three runs of one pair for each of two configurations."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "baseline-1.txt").write_text(write_text([[801], [802], [803]], cores=2))
    (folder / "rps-1.txt").write_text(write_text([[901], [902], [903]], cores=2))
    return folder


def test_worse_ends_with_4_and_better_with_0(steerlab: Cli, results: Path) -> None:
    code, said, _ = steerlab("compare", results, "baseline", "slow")
    assert code == 4
    assert "slow" in said
    code, said, _ = steerlab("compare", results, "baseline", "fast", "--json")
    assert code == 0
    assert json.loads(said)["effect"]["estimate"] == pytest.approx(1.2, rel=0.05)


def test_what_cannot_be_told_ends_with_5(steerlab: Cli, results: Path) -> None:
    for path in sorted((results / "records").glob("*.json"))[9:]:
        path.unlink()  # three blocks of three stay
    code, said, _ = steerlab("compare", results, "baseline", "slow")
    assert (code, "inconclusive" in said) == (5, True)
    code, said, _ = steerlab("compare", results, "baseline", "slow", "--json")
    assert (code, json.loads(said)["exit_code"]) == (5, 5)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_report_shows_warnings_and_fits_the_terminal(
    steerlab: Cli, results: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    kinds = "abcdefgh"
    for number, path in enumerate(sorted((results / "records").glob("*.json"))):
        record = json.loads(path.read_text())
        record["warnings"] = [f"other programs used 0.{number} of 2 cores (x, y{number})"]
        record["warnings"] += [f"warning {kind * 500}" for kind in kinds[: number % 9]]
        path.write_text(json.dumps(record))
    code, said, words = steerlab("report", results)
    assert code == 0
    table = said.rpartition("\n\n")[2].splitlines()
    assert len(table) == 4
    assert max(map(len, table)) <= columns
    assert words.count("other programs used") == 1
    assert "36 runs" in words
    assert "further warnings" in words
    assert len(words) < 3000


def test_a_report_shows_every_reason_and_the_caveats(steerlab: Cli, tmp_path: Path) -> None:
    records = mixed(
        {"baseline": {}, "rfs": {"bitrate_mbps": 1.4, "squeezed": 2}}, blocks=10, seed=4
    )
    first = next(one for one in records if one.configuration == "rfs")
    costly = [valued(pair, retransmits=20_000) for pair in first.pairs[:-1]]
    pairs = {"pairs": [*costly, first.pairs[-1]]}
    records[records.index(first)] = first.model_copy(update=pairs)
    code, said, words = steerlab("report", write(records, tmp_path / "results"))
    assert code == 0
    assert "no server core was full" in said and "ran out of budget" in said
    assert "rfs at 4 pairs: retransmits" in words


@pytest.mark.parametrize(
    ("b", "limit", "code", "standing"),
    [
        ("slow", "bitrate=-30%", 0, "within"),  # worse, but not by more than is accepted
        ("slow", "bitrate=-20%", 5, "inconclusive"),
        ("slow", "bitrate=-10%", 4, "exceeded"),
        ("fast", "bitrate=+30%", 4, "exceeded"),
        ("fast", "bitrate=200", 0, "within"),
        ("fast", "p99_us=+10%", 5, "inconclusive"),
    ],
)
def test_with_limits_they_decide(
    steerlab: Cli, results: Path, b: str, limit: str, code: int, standing: str
) -> None:
    words = ("compare", results, "baseline", b, "--limit", limit)
    found, said, _ = steerlab(*words, "--json")
    (check,) = json.loads(said)["limits"]
    assert (found, check["standing"]) == (code, standing)
    found, said, _ = steerlab(*words)
    assert (found, standing in said) == (code, True)
    assert steerlab(*words, "--limit", "cpu=-90%")[0] == 4


def test_two_sweeps_with_limits(steerlab: Cli, results: Path, tmp_path: Path) -> None:
    after = kept(tmp_path / "after", slow=0.75, fast=1.2, seed=5)
    words = ("compare", results, "slow", "slow", "--to", after, "--limit")
    for limit, code in (("bitrate=-15%", 0), ("bitrate=-2%", 4), ("bitrate=100", 0)):
        assert steerlab(*words, limit)[0] == code, limit
    assert steerlab(*words, "retransmits=+5")[0] == 0
    for path in sorted((after / "records").glob("*.json")):
        record = json.loads(path.read_text())
        if record["configuration"] == "slow":
            for pair in record["pairs"]:
                pair["values"]["retransmits"] = 480
            path.write_text(json.dumps(record))
            break
    assert steerlab(*words, "retransmits=+200")[0] == 5
    assert steerlab(*words, "retransmits=+600")[0] == 0
    code, _, told = steerlab(*words, "bitrate=-100")
    assert (code, "bitrate_mbps=-100" in told) == (2, True)


def test_a_limit_excludes_and_is_data(steerlab: Cli, results: Path) -> None:
    code, said, _ = steerlab("report", results, "--limit", "bitrate=+30%", "--json")
    document = json.loads(said)
    assert code == 0
    assert document["tradeoff"]["limits"] == ["bitrate_mbps=+30%"]
    assert {row["standing"] for row in document["tradeoff"]["rows"]} == {"exceeded"}
    assert document["recommendation"]["configuration"] is None


@pytest.mark.parametrize(
    "limit", ["taste=+10%", "bitrate", "retransmits=+10%", "idle=-5%", "", ","]
)
def test_a_limit_that_cannot_be_read_is_bad_input(steerlab: Cli, results: Path, limit: str) -> None:
    for words in (("report", results), ("compare", results, "baseline", "slow")):
        code, _, said = steerlab(*words, "--limit", limit)
        assert (code, "limit: " in said) == (2, True)
    assert not (results / "report.html").exists()


def without(directory: Path, name: str, configuration: str = "") -> None:
    """Take a value out of the records, of one configuration or of all."""
    for path in (directory / "records").glob("*.json"):
        record = json.loads(path.read_text())
        if configuration in ("", record["configuration"]):
            for pair in record["pairs"]:
                pair["values"].pop(name, None)
        path.write_text(json.dumps(record))


def test_what_was_not_measured_is_refused_with_what_was(
    steerlab: Cli, results: Path, tmp_path: Path
) -> None:
    after = kept(tmp_path / "after", slow=0.8, fast=1.2, seed=5)
    for line in (
        ("report", results, "--metric", "p99_us"),
        ("report", results, "--limit", "bitrate=-5%", "--limit", "p99_us=+10%"),
        ("history", results, after, "--metric", "p99_us", "--out", tmp_path / "out"),
    ):
        code, _, words = steerlab(*line)
        assert code == 2, line
        for word in ("p99_us", str(results), "bitrate_mbps"):
            assert word in words, line
    assert not (results / "report.html").exists()
    assert not (tmp_path / "out").exists()


def test_a_limit_of_the_sweep_that_was_not_measured_does_not_prevent_its_report(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, _ = asked(tmp_path, str(own), limits="p99_us=+10%")
    assert steerlab("report", directory)[0] == 0


def test_a_configuration_without_the_metric_still_has_valid_runs(
    steerlab: Cli, tmp_path: Path
) -> None:
    made = mixed({"baseline": {}, "rfs": {}, "rps": {}}, blocks=10, seed=4)
    directory = write(made, tmp_path / "results")
    without(directory, "p99_us", "rfs")
    code, _, words = steerlab("report", directory, "--metric", "p99_us")
    assert code == 0
    (warning,) = (one for one in words.splitlines() if "no valid run of rfs" in one)
    assert "latency" in warning


def test_the_limits_of_a_sweep_hold_unless_others_are_given(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, _ = asked(tmp_path, str(own), limits="bitrate=+90%")
    for words, limits in (
        ((), ["bitrate_mbps=+90%"]),
        (("--limit", "cpu=+5%"), ["cpu_s_per_gbit=+5%"]),
    ):
        _, said, _ = steerlab("report", directory, "--json", *words)
        assert json.loads(said)["tradeoff"]["limits"] == limits


def test_the_terminal_shows_the_answer_on_one_screen(
    steerlab: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    truth = {name: {"bitrate_mbps": 1 + 0.05 * place} for place, name in enumerate(SIX)}
    truth["pipeline"]["p99_us"] = 1.5
    directory = write(mixed(truth, replicas=(1, 4), blocks=10), tmp_path / "results")
    code, said, _ = steerlab("report", directory)
    assert code == 0
    lines = [line for text in said.splitlines() for line in textwrap.wrap(text, 80) or [""]]
    assert len(lines) <= 25
    assert max(map(len, said.rpartition("\n\n")[2].splitlines())) <= 80


def test_a_report_opens_in_the_browser(
    steerlab: Cli, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it reads BROWSER once
    assert steerlab("report", results)[0] == 0
    assert not opened.exists()
    assert steerlab("report", results, "--open")[0] == 0
    assert opened.read_text() == f"{(results / 'report.html').as_uri()}\n"
    monkeypatch.setenv("BROWSER", "/bin/false %s")
    monkeypatch.setattr(webbrowser, "_tryorder", ["/bin/false %s"])
    monkeypatch.setattr(webbrowser, "_browsers", {})
    code, said, words = steerlab("report", results, "--open")
    assert (code, "report.html" in words) == (3, True)
    assert said


def test_what_is_not_there_is_bad_input(steerlab: Cli, results: Path, tmp_path: Path) -> None:
    code, _, words = steerlab("compare", results, "baseline", "nope")
    assert (code, "nope" in words, "slow" in words) == (2, True, True)
    assert steerlab("compare", tmp_path / "nowhere", "baseline", "slow")[0] == 2
    assert steerlab("compare", results, "baseline", "slow", "--at", "3")[0] == 2
    assert steerlab("compare", results, "baseline", "slow", "--metric", "taste")[0] == 2


def test_a_directory_without_records_is_bad_input_with_a_remedy(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, _ = asked(tmp_path, str(own))
    for path in (directory / "records").iterdir():
        path.unlink()
    for wrong in (directory, own, tmp_path / "nowhere"):
        code, _, words = steerlab("report", wrong)
        assert (code, str(wrong) in words, "sweep --out" in words) == (2, True, True)
        assert "plan.json" not in words


def test_the_report_s_options_are_repeated(steerlab: Cli, tmp_path: Path, own: Path) -> None:
    directory, _ = asked(tmp_path, str(own))
    line = ("--metric", "total_mbps", "--limit", "bitrate=-5%", "--limit", "cpu=+9%")
    assert steerlab("report", directory, *line)[0] == 0
    shown = (directory / "report.md").read_text().partition("## How to reproduce")[2]
    assert f"report {directory} {' '.join(line)}" in shown
    assert "steerlab sweep" in shown


def test_where_nothing_is_compared_the_remedy_is_told(steerlab: Cli, results: Path) -> None:
    for path in (results / "records").iterdir():
        if json.loads(path.read_text())["configuration"] == "baseline":
            path.unlink()
    code, said, _ = steerlab("report", results)
    assert (code, "--baseline" in said.replace("\n", " ")) == (0, True)


def test_another_kernel_needs_force(steerlab: Cli, results: Path, tmp_path: Path) -> None:
    after = kept(tmp_path / "after", kernel="6.2.0-synthetic", slow=0.8)
    line = ("compare", results, "slow", "slow", "--to", after)
    code, _, words = steerlab(*line)
    assert (code, "6.2.0-synthetic" in words) == (5, True)
    code, said, words = steerlab(*line, "--force")
    assert (code, "6.2.0-synthetic" in words, bool(said)) == (0, True, True)


def test_a_history_is_a_table_and_files(steerlab: Cli, results: Path, tmp_path: Path) -> None:
    after = kept(tmp_path / "after", kernel="6.2.0-synthetic", slow=0.8)
    line = ("history", results, after, "--out", tmp_path / "out")
    code, said, words = steerlab(*line)
    assert code == 0, words
    assert [line.split()[0] for line in said.splitlines()[1:3]] == ["2025-01-01"] * 2
    assert KERNEL in words
    assert "6.2.0-synthetic" in words
    assert (tmp_path / "out/history.svg").exists()
    data = json.loads(steerlab(*line, "--json")[1])
    assert [row["configuration"] for row in data["rows"]] == ["slow", "slow"]
    assert len(data["files"]) == 3
    assert steerlab(*line, "--configurations", "fast")[0] == 2
    blocked = steerlab(*line[:3], "--out", after / "records" / "run-00000.json")
    assert (blocked[0], blocked[1]) == (1, said)
    (after / "records" / "run-00003.json").write_text("{")
    code, said, words = steerlab(*line)
    assert (code, "run-00003.json" in words) == (1, True)


def test_a_damaged_record_is_named_and_the_rest_compared(steerlab: Cli, results: Path) -> None:
    (results / "records" / "run-00003.json").write_text('{"schema_version": 1')
    code, said, words = steerlab("compare", results, "baseline", "fast")
    assert (code, "run-00003.json" in words) == (1, True)
    assert "fast" in said


def test_the_study_s_text_becomes_records_and_a_report(
    steerlab: Cli, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "imported"
    code, said, words = steerlab("import", study, "--out", out)
    assert (code, said) == (0, f"6 records in {out}\n"), words
    assert steerlab("import", study, "--out", out)[0] == 2  # never over what is there
    code, said, _ = steerlab("report", out)
    assert code == 0
    assert (out / "report.html").exists()


def test_damaged_text_is_named_with_its_line(steerlab: Cli, study: Path, tmp_path: Path) -> None:
    path = study / "rps-1.txt"
    path.write_text(path.read_text().replace("902", "9o2"))
    code, said, words = steerlab("import", study, "--out", tmp_path / "out")
    assert (code, "rps-1.txt:6" in words) == (1, True), words
    assert said.startswith("3 records")


def test_the_study_is_analysed_again(steerlab: Cli, study: Path, tmp_path: Path) -> None:
    table = "Replicas,Baseline,RPS\n1 Replica,1,1.2\n"
    (study / "finalized_bitrate.csv").write_text(table)
    code, said, words = steerlab("published", study)
    assert code == 0, words
    assert "not reproduced" in said
    assert "1.1247" in said  # 902 / 802, what the table should say
    assert json.loads(steerlab("published", study, "--json")[1])["cells"]
    assert steerlab("published", tmp_path / "nowhere")[0] == 2


def test_every_results_command_teaches() -> None:
    for command in ("report", "compare", "history", "import", "published"):
        answer = CliRunner().invoke(cli.app, [command, "--help"])
        assert answer.exit_code == 0
        assert "DIR" in answer.output


def asked(tmp_path: Path, own: str, **more: object) -> tuple[Path, plans.SweepPlan]:
    """Results of a sweep of a user's configuration, as its plan orders them."""
    options_ = {
        "seed": 0, "blocks": 8, "configurations": ["baseline", "mine"], "replicas": [4],
        "duration": 5, "omit": 1, "own": own, **more,
    }  # fmt: skip
    known = configurations.load(own)
    plan = plans.make(options.read(options_), known=known, cpus=8)
    directory = tmp_path / "mine"
    (directory / "records").mkdir(parents=True)
    (directory / "plan.json").write_text(plans.to_json(plan))
    made = sweep({"baseline": 1, "mine": 1.4}, blocks=8)
    places = {(one.block, one.configuration): one for one in made}
    for run, start in zip(plan.runs, sorted(one.start for one in made if one.start), strict=True):
        record = places[run.block, run.configuration].model_copy(
            update={
                "plan": plan.digest, "seed": 0, "order": run.order, "start": start,
                "definition": known[run.configuration].definition,
            }
        )  # fmt: skip
        path = directory / "records" / f"run-{run.order:05d}.json"
        path.write_text(record.model_dump_json())
    return directory, plan


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text("mine:\n  nic: {cpus: all}\n")
    return path


def test_the_command_to_keep_applies_what_was_measured(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, _ = asked(tmp_path, str(own))
    code, _, words = steerlab("report", directory)
    assert code == 0, words
    report = (directory / "report.md").read_text()
    assert f"nodes apply mine --own {own} --persist" in report


@pytest.mark.parametrize("now", ["mine:\n  nic: {cpus: first}\n", "other: {}\n", ""])
def test_what_is_defined_otherwise_now_has_no_command_to_keep(
    steerlab: Cli, tmp_path: Path, own: Path, now: str
) -> None:
    directory, _ = asked(tmp_path, str(own))
    own.write_text(now)
    code, said, words = steerlab("report", directory)
    assert code == 0, words
    report = (directory / "report.md").read_text()
    assert "Recommended: mine" in said
    assert "nodes apply" not in report
    assert str(own) in report.partition("How to set it")[2].partition("## ")[0]


@pytest.mark.parametrize("name", ["rfs", "--all", "-x"])
def test_a_name_without_a_known_definition_has_no_command_to_keep(
    steerlab: Cli, tmp_path: Path, name: str
) -> None:
    directory = kept(tmp_path / "results", **{name: 1.4})
    assert steerlab("report", directory)[0] == 0
    assert "nodes apply" not in (directory / "report.md").read_text()


def test_a_plan_of_another_sweep_is_named_and_not_believed(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, plan = asked(tmp_path, str(own))
    path = directory / "plan.json"
    for field, value in (("baseline", "mine"), ("baseline", "zzz"), ("blocks", 9)):
        document = json.loads(plans.to_json(plan)) | {field: value}
        path.write_text(json.dumps(document))
        code, said, words = steerlab("report", directory)
        assert (code, "plan.json" in words) == (1, True)
        assert "Recommended: mine" in said
        assert "./steerlab sweep" not in (directory / "report.md").read_text()
    path.write_text("[]")
    code, _, words = steerlab("compare", directory, "baseline", "mine")
    assert (code, "plan.json" in words) == (1, True)


def test_a_record_at_another_place_than_the_plan_s_is_left_out(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    directory, _ = asked(tmp_path, str(own))
    first, second = (directory / "records" / f"run-{number:05d}.json" for number in (0, 1))
    one, other = (json.loads(path.read_text()) for path in (first, second))
    one["order"], other["order"] = 1, 0
    first.write_text(json.dumps(one))
    second.write_text(json.dumps(other))
    code, said, words = steerlab("compare", directory, "baseline", "mine")
    assert (code, words.count("left out")) == (1, 2)
    assert "7 against 7 runs" in said


def test_a_cluster_without_a_tunnel_has_its_report(
    steerlab: Cli, tmp_path: Path, own: Path
) -> None:
    """Its plan cannot know which path the measuring finds."""
    directory, _ = asked(tmp_path, str(own))
    for path in (directory / "records").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "path": "direct"}))
    code, said, words = steerlab("report", directory)
    assert (code, words.count("left out")) == (0, 0)
    assert "Recommended: mine" in said


def test_json_has_no_number_that_json_cannot_carry(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_json({"a": [float("inf"), (float("nan"), 1.5)]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, [None, 1.5]]
    }


def test_import_does_not_follow_a_link_out_of_the_directory(
    steerlab: Cli, study: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0\n")
    (study / "passwd-1.txt").symlink_to(secret)
    code, said, words = steerlab("import", study, "--out", tmp_path / "out")
    assert (code, said.startswith("6 records")) == (1, True)
    assert "passwd-1.txt" in words
    assert "root:x" not in words
