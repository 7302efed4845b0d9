"""The command line without a lab: exit codes, words, signals, and that nothing was touched."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from analysis.schema import Machine, Pair, Record
from experiments import cli
from experiments.engines import EngineError, Outcome, choice, stacks
from experiments.host import calls, lock, machine
from experiments.run import measure
from experiments.targets.lab import requirements
from infra import checkpoint
from infra.cores import online
from infra.lab import claim

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Cli = Callable[..., int]


@pytest.fixture
def steerlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs one command line as `./steerlab` does; its exit code."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["steerlab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project on a machine that could run the lab."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stacks, "ROOT", folder)
    monkeypatch.setattr(lock, "machine", functools.partial(lock.machine, path=tmp_path / "busy"))
    monkeypatch.setattr(claim, "OWNER", str(tmp_path / "owner"))
    monkeypatch.setattr(requirements, "missing", lambda *_, **__: [])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def touched(*words: object, **_: object) -> NoReturn:
    raise AssertionError(f"bad input came as far as this: {words}")


@pytest.fixture
def untouched(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No engine, no agent, no lock, and no file."""
    monkeypatch.setattr(choice, "choose", touched)
    monkeypatch.setattr(calls, "call", touched)
    monkeypatch.setattr(lock, "machine", touched)
    before = sorted(project.rglob("*"))
    yield
    assert sorted(project.rglob("*")) == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("up -s nope-4", ["nope-4", "rfs-plus"]),
        ("preview -s nope-4", ["nope-4", "rfs-plus"]),
        ("up -s rps-4 -c configuration=nope", ["configuration", "nope", "rfs-plus"]),
        ("sweep --configurations baseline,nope", ["configurations", "nope", "rfs-plus"]),
        ("nodes apply nope", ["configuration", "nope", "rfs-plus"]),
        ("up -s rps-7", ["rps at 7 pairs", "configuration rps-7"]),
        ("up -s ../rps-4", ["stack: '../rps-4'"]),
        ("up -s rps -c replicas=abc", ["replicas", "abc"]),
        ("up -s rps-0", ["replicas", "0"]),
        ("up -s rps -c replicas=0", ["replicas", "0"]),
        ("sweep --replicas abc", ["replicas", "abc"]),
        ("sweep --replicas 4,0", ["replicas", "0"]),
        ("sweep --replicas ,", ["replicas", "one or more"]),
        ("sweep --configurations ,", ["configurations", "one or more"]),
        ("up -s rps-4 -c duration=2 -c omit=2", ["duration", "2", "omit"]),
        ("sweep --duration 1 --omit 1", ["duration", "1", "omit"]),
        ("sweep --runs 0", ["runs", "1 to 10000"]),
        ("sweep --path moon", ["path", "moon", "overlay"]),
        ("sweep --own none.yaml", ["configurations", "none.yaml"]),
        ("sweep --pod-cpu-limit much", ["podCpuLimit", "much", "200m"]),
        ("sweep --target moon", ["target", "moon", "kubernetes"]),
        ("sweep -c replicas=8", ["replicas", "--replicas"]),
        ("sweep -c kubeconf=x", ["kubeconf", "did you mean kubernetes.kubeconfig"]),
        ("sweep --target kubernetes --path host", ["path", "host", "overlay"]),
        ("nodes apply", ["configuration", "rfs-plus"]),
        ("sweep --max-time soon", ["max-time", "soon", "30m"]),
        ("sweep --max-time 2s", ["max-time", "one episode takes", "2s"]),
        ("sweep --method isolated --max-time 2s", ["max-time", "one run takes", "2s"]),
        ("sweep --method isolated --window 0.4", ["--window", "--method switchback"]),
        ("sweep --method switchback --traffic udp", ["udp", "--method isolated"]),
        ("sweep --resume", ["resume", "--out"]),
        ("sweep --resume --out nowhere", ["resume", "nowhere"]),
        ("up -s rps-4 -c replica=8", ["replica", "did you mean replicas"]),
        ("up -s rps-4 -c replicas", ["replicas", "key=value"]),
        ("up", ["--stack"]),
        ("up -s rps-4 --jsno", ["--jsno", "--json"]),
        ("upp", ["upp"]),
        ("measure", ["--stack"]),
        ("destroy", ["--stack", "--lab"]),
        ("destroy -s rps-1 --lab", ["--stack", "--lab"]),
        ("destroy --cluster --lab", ["--stack", "--cluster", "--lab"]),
        ("destroy -s rps-1 -c kubernetes.context=x", ["-c", "--cluster"]),
        ("destroy --cluster -c replicas=2", ["replicas"]),
        ("report nowhere", ["nowhere"]),
        ("report .", ["no run record"]),
    ],
)  # fmt: skip
def test_bad_input_ends_with_2_and_says_what(
    steerlab: Cli, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    assert steerlab(*line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for word in words:
        assert word in said.err


@pytest.mark.parametrize(
    "line",
    [
        "up -s wide-1 -c configurations={own}",
        "preview -s wide-1 -c configurations={own}",
        "sweep --own {own} --configurations wide",
    ],
)
def test_a_mask_beyond_this_machine_asked_for_by_itself(
    steerlab: Cli, tmp_path: Path, request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str], line: str,
) -> None:  # fmt: skip
    needed = max(online()) + 3
    own = tmp_path / "own.yaml"
    own.write_text(f'wide: {{nic: {{cpus: "{1 << (needed - 1):x}"}}}}\n')
    request.getfixturevalue("untouched")
    assert steerlab(*line.format(own=own).split()) == 2
    assert f"needs {needed} CPUs" in capsys.readouterr().err


def test_beside_others_it_is_left_out_of_the_plan(
    steerlab: Cli, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = f"{1 << (max(online()) + 2):x}"
    (project / "own.yaml").write_text(f'wide: {{nic: {{cpus: "{mask}"}}}}\n')
    line = "sweep --own own.yaml --configurations baseline,wide --replicas 1 --runs 2 --plan --json"
    assert steerlab(*line.split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["left_out"] == [["wide", f"needs {max(online()) + 3} CPUs"]]
    assert [run["configuration"] for run in plan["runs"]] == ["baseline", "baseline"]
    # named from here, read from the project's folder
    assert plan["settings"] == [["configurations", str(project / "own.yaml")]]
    assert [path.name for path in project.iterdir()] == ["own.yaml"]


def test_an_engine_that_is_not_there(
    steerlab: Cli,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(project))
    for line in ("up -s rps-1", "preview -s rps-1", "destroy -s rps-1", "sweep --out out"):
        assert steerlab(*line.split(), "--engine", "pulumi") == 3
        assert "no `pulumi` on PATH" in capsys.readouterr().err
        assert steerlab(*line.split(), "--engine", "terraform") == 2
        assert "'terraform' is none of auto, pulumi, embedded" in capsys.readouterr().err
    assert list(project.iterdir()) == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "line",
    [
        "up -s rps-1",
        "preview -s rps-1",
        "destroy -s rps-1",
        "measure -s rps-1",
        "sweep --quick",
    ],
)
def test_a_machine_that_cannot_ends_with_3_and_the_cure(
    steerlab: Cli,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setattr(stacks, "ROOT", project)
    monkeypatch.setattr(choice, "choose", touched)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(project))
    assert steerlab(*line.split()) == 3
    said = capsys.readouterr().err
    assert "root is needed" in said
    assert "apt-get install ethtool iperf3 iproute2 util-linux" in said


def test_steering_needs_root(
    steerlab: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(calls, "call", touched)
    for line in ("nodes apply rps", "nodes restore"):
        assert steerlab(*line.split()) == 3
        assert "root is needed" in capsys.readouterr().err


def test_a_lab_of_another_stack_is_in_the_way(
    steerlab: Cli, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "owner").write_text("rfs-4 in /elsewhere\n")
    monkeypatch.setattr(choice, "choose", lambda _: Engine())
    for line in ("up -s rps-1 -c runs=0", "sweep --quick --out out"):
        assert steerlab(*line.split()) == 1
        assert "stack rfs-4 in /elsewhere" in capsys.readouterr().err
    assert list(project.iterdir()) == []


def test_a_lab_whose_stack_has_no_state_here_is_not_called_destroyed(
    steerlab: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "owner").write_text("sweep-0123 in /elsewhere\n")
    monkeypatch.setattr(choice, "choose", touched)
    assert steerlab(*["destroy", "-s", "sweep-0123"]) == 1
    said = capsys.readouterr().err
    assert "sweep-0123 in /elsewhere" in said
    assert "destroy --lab" in said


def test_no_lab_is_nothing_to_take_away(
    steerlab: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calls, "call", touched)
    assert steerlab("destroy", "--lab") == 0
    assert "no lab" in capsys.readouterr().out
    assert steerlab("destroy", "--lab", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"stack": None}


class Engine:
    """Converges in no time, and counts."""

    name = "embedded"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def up(self, *_: Any, **__: Any) -> Outcome:
        self.asked.append("up")
        return Outcome((), 0, {})

    def destroy(self, *_: Any, **__: Any) -> Outcome:
        self.asked.append("destroy")
        return Outcome((), 0, {})

    def resources(self, _: Any) -> list[dict[str, Any]]:
        return []


class Sweeping:
    """`sweep` of four runs with that engine; `on` is called before each."""

    line = "--configurations baseline,rps --replicas 1 --runs 2 --duration 1 --omit 0 --seed 7"

    def __init__(self, steerlab: Cli) -> None:
        self.steerlab = steerlab
        self.engine = Engine()
        self.on: Callable[[int], None] = lambda _: None

    def measure(self, what: Any, *, replicas: int, place: Any, on: Any) -> Any:
        self.on(place.order)
        record = Record(
            target="lab", configuration=what.configuration, replicas=replicas, valid=True,
            pairs=[Pair(index=1, values={"bitrate_mbps": 100})], duration=1, machine=on,
            block=place.block, order=place.order, seed=place.seed, plan=place.plan,
        )  # fmt: skip
        return record, [b"{}"]

    def __call__(self, line: str) -> int:
        self.engine.asked.clear()
        return self.steerlab("sweep", *line.split(), "--out", "out")

    @property
    def orders(self) -> list[int]:
        return sorted(int(path.name[4:9]) for path in Path("out/records").glob("run-*.json"))


@pytest.fixture
def sweeping(steerlab: Cli, monkeypatch: pytest.MonkeyPatch) -> Sweeping:
    sweeping = Sweeping(steerlab)
    monkeypatch.setattr(choice, "choose", lambda _: sweeping.engine)
    monkeypatch.setattr(measure, "run", sweeping.measure)
    monkeypatch.setattr(machine, "describe", lambda _: Machine(kernel="6", cpu="x", cores=2))
    monkeypatch.setattr("experiments.cli.sweep.conclude", lambda *_, **__: None)
    return sweeping


def test_a_sweep_is_resumed_by_its_directory_alone(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping(sweeping.line) == 0
    assert sweeping.orders == [0, 1, 2, 3]
    assert "4/4 block 1 overlay" in capsys.readouterr().err
    next(Path("out/records").glob("run-00002-*.json")).unlink()
    assert sweeping("--resume") == 0
    assert sweeping.orders == [0, 1, 2, 3]
    assert sweeping.engine.asked == ["up", "destroy"]


@pytest.mark.parametrize("other", ["--runs 3", "--seed 8", "--quick", "--path host"])
def test_a_resumed_sweep_takes_no_other_options(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    assert sweeping(sweeping.line) == 0
    assert sweeping(f"--resume {other}") == 2
    assert "has plan" in capsys.readouterr().err
    assert sweeping(sweeping.line) == 2
    assert "--resume" in capsys.readouterr().err
    assert sweeping.engine.asked == []


def test_a_plan_that_is_none_is_named(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "{", "[]", "{}", '{"runs": [{"order": "x"}]}', "\x00"):
        Path("out").mkdir(exist_ok=True)
        Path("out/plan.json").write_text(text)
        assert sweeping("--resume") == 2
        assert "out/plan.json is not a plan" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, *SIGNALS])
def test_a_signal_ends_a_sweep_as_ctrl_c_does(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    sweeping.on = lambda order: os.kill(os.getpid(), number) if order == 2 else None
    assert sweeping(sweeping.line) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "/steerlab sweep --resume --out out" in said
    assert sweeping.orders == [0, 1]
    assert sweeping.engine.asked[-1] == "destroy"


def test_what_nohup_ignores_stays_ignored(sweeping: Sweeping) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sweeping.on = lambda _: os.kill(os.getpid(), signal.SIGHUP)
    assert sweeping(sweeping.line) == 0


@pytest.mark.parametrize("error", [EngineError("pods-1: EINVAL"), OSError(28, "No space", "/out")])
def test_a_failure_ends_a_sweep_with_1_its_words_and_the_way_on(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(order: int) -> None:
        if order == 2:
            raise error

    sweeping.on = fail
    assert sweeping(sweeping.line) == 1
    said = capsys.readouterr().err
    assert ("pods-1: EINVAL" if isinstance(error, EngineError) else "/out: No space") in said
    assert "/steerlab sweep --resume --out out" in said
    assert "Traceback" not in said
    assert sweeping.engine.asked[-1] == "destroy"


def test_one_cause_of_many_failures_fits_a_screen_and_keeps_its_exit_code(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [f"Deployment iperf-server-{index}: create failed: no image" for index in range(32)]

    def fail(_: int) -> None:
        raise EngineError("\n".join([*many, "steer-server: create failed"]), exit_code=3)

    sweeping.on = fail
    assert sweeping(sweeping.line) == 3
    said = capsys.readouterr().err
    assert many[11] in said
    assert many[12] not in said
    assert "21 more" in said


def test_a_second_command_is_told_who_works_here(
    sweeping: Sweeping, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The holder is a process of its own: to whom an ancestor gave way, it would be let in."""
    code = (
        "import sys; from pathlib import Path; from experiments.host.lock import machine\n"
        "with machine('up of rps-4', Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project.parent / "busy")],
        cwd=Path(cli.__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert sweeping(sweeping.line) == 1
        holder.kill()
    assert f"busy with up of rps-4 (pid {holder.pid} on" in capsys.readouterr().err
    assert list(project.iterdir()) == []


def test_help_needs_none_of_the_heavy_modules() -> None:
    code = "import sys, experiments.cli; print(' '.join(sys.modules))"
    root = Path(cli.__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "experiments.cli.sweep" in loaded
    assert not {"pulumi", "pydantic", "yaml", "scipy", "pandas", "numpy"} & set(loaded)


@pytest.mark.parametrize("left", ["", "{", '{"version": 3}', "[]", '{"checkpoint": 4}', None])
@pytest.mark.parametrize(
    "line", ["destroy -s rps-4", "outputs -s rps-4", "up -s rps-4", "preview -s rps-4"]
)
def test_a_damaged_or_lost_checkpoint_is_one_sentence_with_its_backup(
    steerlab: Cli, project: Path, capsys: pytest.CaptureFixture[str], line: str, left: str | None
) -> None:  # fmt: skip
    path = checkpoint.path_of(project, "steerlab", "rps-4")
    path.parent.mkdir(parents=True)
    resource = {"urn": "urn:pulumi:rps-4::steerlab::t::n", "type": "t", "custom": False}
    sound = json.dumps({"version": 3, "checkpoint": {"latest": {"resources": [resource]}}})
    checkpoint.backup_of(path).write_text(sound)
    if left is not None:
        path.write_text(left)
    for engine in ("embedded", "pulumi") if shutil.which("pulumi") else ("embedded",):
        assert steerlab(*line.split(), "--engine", engine) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "Traceback" not in said
        (cure,) = re.findall(r"cp -- \S+ \S+\b", said)
    subprocess.run(["bash", "-c", cure], check=True)
    assert checkpoint.resources(path) == [resource]


def failing(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("error", [KeyError("eth1"), RecursionError(), TypeError("a\nb")])
def test_an_unexpected_error_is_one_line_and_its_traceback_is_kept_back(
    steerlab: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    monkeypatch.setattr(choice, "choose", failing(error))
    assert steerlab("outputs", "-s", "rps-4") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert type(error).__name__ in said
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr(sys, "argv", ["steerlab", "outputs", "-s", "rps-4"])
    with pytest.raises(type(error)):
        cli.main()


def test_a_file_of_another_user_is_named_with_its_owner(
    steerlab: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed = tmp_path / "closed/.owner"
    denied = PermissionError(errno.EACCES, "Permission denied", str(closed))
    monkeypatch.setattr(choice, "choose", failing(denied))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert steerlab("outputs", "-s", "rps-4") == 3
    said = capsys.readouterr().err
    assert str(closed) in said
    assert tmp_path.owner() in said
    assert "Permission denied" not in said
