"""The wrapper ./steerlab: what it installs, whom it lets in, and that it runs no foreign file."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.synthetic import sweep
from experiments.host import privileges
from experiments.run import records

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("cat", "chmod", "chown", "dirname", "env", "flock", "ls", "mkdir", "readlink", "rm")
TOOLS += ("sha256sum", "sleep", "tail")
NOBODY = 65534
# Of another version where that is tried: 3.2 must do.
BASH = os.environ.get("STEERLAB_TEST_BASH", "/bin/bash")

# A python3 whose `venv` copies it and whose `pip` ends as it is told; a marked one is of another
# version than the packages beside it.
PYTHON = """#!/bin/bash
echo "$*" >> CALLS
case "$*" in
  *"import ensurepip"*) exit ENSUREPIP ;;
  *sys.prefix*) [ ! -e "${0%/*}/other" ] ;;
  *" -m venv "*)
    for folder in "$@"; do :; done
    case " $* " in *" --clear "*) rm -rf "$folder" ;; esac
    mkdir -p "$folder/bin"; cat "$0" > "$folder/bin/python"; chmod +x "$folder/bin/python" ;;
  *" -m pip "*) exit STATUS ;;
  *experiments/__main__.py*) echo "ran ${@:3}" ;;
esac
"""


# Of bash 4 and 5.
NEWER = re.compile(
    r"\b(mapfile|readarray|coproc|EPOCHSECONDS|BASHPID)\b|\b(declare|local|typeset) -[a-zA-Z]*[Aguln]"
    r"|&>>|\|&|;;?&|\$\{\w+(\[[^]]*\])?(\^|,|@)|\[-\d+\]|\bwait -n|\{\d+\.\.\d+\.\.|printf [^|;]*%\("
)


class Machine:
    """A machine with a Python and nothing of the lab, and the wrapper in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "bin"
        self.project = folder / "project"
        self.calls = folder / "calls"
        for made in (self.tools, self.project):
            made.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.tools / tool).symlink_to(found)
        for name in ("steerlab", "requirements.txt", "experiments/targets/lab/apt.sh"):
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.project / name)
        wrapper = self.project / "steerlab"
        wrapper.write_text(wrapper.read_text().replace("/bin/bash", BASH, 1))
        self.python()

    def python(self, *, ensurepip: int = 0, pip: int = 0) -> None:
        """Let its python3 have a working ensurepip (0) or none (1), and a pip that ends so."""
        text = PYTHON.replace("CALLS", str(self.calls))
        text = text.replace("ENSUREPIP", str(ensurepip)).replace("STATUS", str(pip))
        for place in (self.tools / "python3", self.project / ".venv/bin/python"):
            if place.parent.exists():
                place.write_text(text)
                place.chmod(0o755)
        self.calls.touch()
        self.calls.chmod(0o666)

    def run(self, *words: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        setpriv = shutil.which("setpriv")
        assert setpriv
        become = [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return subprocess.run(
            [*become, self.project / "steerlab", *words], cwd=self.folder,
            env={"PATH": str(self.tools)}, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def machine() -> Iterator[Machine]:
    """In a folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Machine(Path(folder))


def test_a_failed_installation_is_said_and_made_again(machine: Machine) -> None:
    machine.python(pip=1)
    failed = machine.run("report", "x")
    assert failed.returncode == 1
    assert failed.stderr
    assert not failed.stdout
    machine.python(pip=0)
    again = machine.run("report", "x")
    assert (again.returncode, again.stdout) == (0, "ran report x\n")
    machine.python(pip=1)
    third = machine.run("report", "--json", "x")
    assert (third.stdout, third.stderr) == ("ran report --json x\n", "")


def test_changed_requirements_are_installed(machine: Machine) -> None:
    machine.run("--help")
    with (machine.project / "requirements.txt").open("a") as file:
        file.write("# another\n")
    machine.calls.write_text("")
    machine.run("--help")
    assert " -m pip " in machine.calls.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["report", "x"],
        ["compare"],
        ["--help"],
        ["up", "--help"],
        ["up", "-s", "rps-4", "-c", "target=kubernetes"],
    ],
)
def test_python_alone_is_enough_without_apt_or_the_lab_s_tools(
    machine: Machine, words: list[str]
) -> None:
    done = machine.run(*words)
    assert (done.returncode, done.stdout) == (0, f"ran {' '.join(words)}\n")


def test_the_wrapper_has_nothing_that_bash_3_2_lacks() -> None:
    for name in ("steerlab", "experiments/targets/lab/apt.sh"):
        text = (ROOT / name).read_text()
        assert not NEWER.search(text), name


def test_pip_alone_makes_the_environment_where_there_is_no_ensurepip(machine: Machine) -> None:
    machine.python(ensurepip=1)
    assert machine.run("--help").returncode == 0
    calls = machine.calls.read_text()
    assert "--without-pip" in calls
    assert "-m pip --python" in calls


def test_no_python_ends_with_3(machine: Machine) -> None:
    (machine.tools / "python3").unlink()
    done = machine.run("--help")
    assert done.returncode == 3
    assert "Python 3.11" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_told_what_to_do_and_whose_it_is(machine: Machine) -> None:
    made = machine.run("--help", user=NOBODY)  # a checkout of root's without an environment
    assert made.returncode == 3
    assert f"{machine.project}/.venv" in made.stderr
    assert "root" in made.stderr
    assert machine.run("--help").returncode == 0
    assert machine.run("--help", user=NOBODY).returncode == 0  # as it is, others may use it
    (machine.project / ".venv/bin").chmod(0o700)
    closed = machine.run("report", user=NOBODY)
    assert closed.returncode == 3
    assert "Permission denied" not in closed.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_an_environment_that_root_makes_belongs_to_the_owner_of_the_checkout(
    machine: Machine,
) -> None:
    os.chown(machine.project, NOBODY, NOBODY)
    assert machine.run("--help").returncode == 0
    made = machine.project / ".venv"
    assert {path.stat().st_uid for path in (made, *made.rglob("*"))} == {NOBODY}


def test_an_environment_of_a_python_that_is_gone_is_made_again(machine: Machine) -> None:
    machine.run("--help")
    python = machine.project / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    python.unlink()
    assert machine.run("--help").returncode == 0
    assert "--clear" in machine.calls.read_text()


def test_an_environment_of_a_python_that_became_another_is_made_again(machine: Machine) -> None:
    machine.run("--help")
    (machine.project / ".venv/bin/other").touch()
    again = machine.run("report", "x")
    assert (again.returncode, again.stdout) == (0, "ran report x\n")
    assert not (machine.project / ".venv/bin/other").exists()


def test_packages_of_another_python_are_none(project: Path, tmp_path: Path) -> None:
    """Of a real Python, in an environment that was another minor version's."""
    copied = tmp_path / "copied"
    shutil.copytree(project, copied, symlinks=True, ignore=shutil.ignore_patterns("lib"))
    (copied / ".venv/lib/python3.9/site-packages").mkdir(parents=True)
    (copied / "requirements.txt").write_text("")
    stamp = hashlib.sha256(b"").hexdigest()
    (copied / ".venv/.steerlab").write_text(f"{stamp}  -")
    subprocess.run([copied / "steerlab", "--help"], capture_output=True, check=False)
    assert not (copied / ".venv/lib/python3.9").exists()
    assert list((copied / ".venv/lib").glob("python3.*/site-packages"))


# An apt-get that others lock so many times, and that is called so.
APT = """#!/bin/bash
echo "$*" >> FOLDER/apt
left=$(cat FOLDER/left)
if [ "$left" -gt 0 ]; then
  echo "$((left - 1))" > FOLDER/left
  echo "E: Could not get lock LOCK. It is held by process 7 (unattended-upgr)" >&2
  exit 100
fi
case $* in *install*) printf '#!/bin/bash\nexit 0\n' > FOLDER/bin/python3; chmod +x FOLDER/bin/python3 ;; esac
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="packages are installed by root")
@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_an_installation_waits_for_another_one(machine: Machine, lock: str) -> None:
    (machine.tools / "python3").unlink()
    (machine.folder / "left").write_text("1\n")
    apt = machine.tools / "apt-get"
    apt.write_text(APT.replace("FOLDER", str(machine.folder)).replace("LOCK", lock))
    apt.chmod(0o755)
    done = machine.run("--help")
    calls = (machine.folder / "apt").read_text().splitlines()
    assert ["update" in call for call in calls] == [True, True, False]
    assert "unattended-upgr" in done.stderr
    assert "could not install" not in done.stderr


# --- foreign directories ---

MODULES = (
    "typer", "yaml", "rich", "pydantic", "matplotlib", "json", "re", "venv", "pip", "ensurepip",
    "hashlib", "subprocess", "sitecustomize", "usercustomize", "pulumi", "kubernetes", "scipy",
)  # fmt: skip
PROGRAMS = (
    "bash", "python3", "dirname", "readlink", "ls", "cat", "flock", "sha256sum", "ip", "ethtool",
    "iperf3", "sudo", "apt-get", "pulumi", "sh", "env",
)  # fmt: skip


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory of somebody else's, where whatever is run or imported leaves a mark."""
    folder = tmp_path / "foreign"
    mark = tmp_path / "mark"
    folder.mkdir()
    python = f"open({str(mark)!r}, 'a').write(__name__ + chr(10))\n"
    packages = [Path(name, "__init__.py") for name in ("infra", "experiments", "analysis", "cli")]
    for path in (*(Path(f"{name}.py") for name in (*MODULES, "__main__")), *packages):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(python)
    for name in (*PROGRAMS, "bashrc"):
        (folder / name).write_text(f"#!/bin/bash\necho {name} >> {mark}\n")
        (folder / name).chmod(0o755)
    (folder / "matplotlibrc").write_text("axes.facecolor: red\ntext.usetex: True\n")
    (folder / "Pulumi.yaml").write_text("name: other\nruntime: python\n")
    return folder


def hostile(folder: Path) -> dict[str, str]:
    """The environment of somebody whose shell trusts the current directory."""
    return {
        **os.environ,
        "PATH": f".::{folder}x/../foreign/..:{os.environ['PATH']}:.",
        "PYTHONPATH": str(folder),
        "PYTHONSTARTUP": str(folder / "typer.py"),
        "PYTHONINSPECT": "",
        "PYTHONHOME": str(folder),
        "BASH_ENV": str(folder / "bashrc"),
        "ENV": str(folder / "bashrc"),
        "CDPATH": str(folder),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's program, with the packages that the tests run with."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("agent", "analysis", "docker", "experiments", "infra"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("__main__.py", "Pulumi.yaml", "requirements.txt", "steerlab"):
        shutil.copy2(ROOT / name, folder / name)
    environment = folder / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(Path(sys.executable).resolve())
    (environment / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copy2(Path(sys.prefix) / "pyvenv.cfg", environment)
    checksum = hashlib.sha256((folder / "requirements.txt").read_bytes()).hexdigest()
    (environment / ".steerlab").write_text(f"{checksum}  -")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for index, record in enumerate(sweep({"baseline": 1.0, "rps": 1.2}, replicas=(1,))):
        records.write(tmp_path / "results", f"{index:03d}", record, [])
    return tmp_path / "results"


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "up --help",
        "report RESULTS",
        "compare RESULTS baseline rps",
        "sweep --plan",
        "tune --plan",
        "doctor",
        "nodes show",
        "preview -s rps-4 -c runs=0 --engine embedded",
    ],
)
def test_nothing_of_the_current_directory_is_run(
    project: Path, foreign: Path, results: Path, line: str
) -> None:
    words = line.replace("RESULTS", str(results)).split()
    done = subprocess.run(
        [project / "steerlab", *words], cwd=foreign, env=hostile(foreign),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout
    assert not (foreign.parent / "mark").exists(), (foreign.parent / "mark").read_text()


def test_nothing_of_it_is_run_while_the_environment_is_made(
    project: Path, foreign: Path, tmp_path: Path
) -> None:
    """Of a real Python; it ends where an environment without packages starts the program."""
    copied = tmp_path / "copied"
    shutil.copytree(project, copied, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    (copied / "requirements.txt").write_text("")
    done = subprocess.run(
        [copied / "steerlab", "--help"], cwd=foreign, env=hostile(foreign),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (copied / ".venv/bin/python").exists(), done.stderr
    assert not (foreign.parent / "mark").exists(), (foreign.parent / "mark").read_text()


def test_a_foreign_matplotlibrc_changes_no_figure(
    project: Path, foreign: Path, results: Path, tmp_path: Path
) -> None:
    drawn = []
    for folder in (tmp_path, foreign):
        subprocess.run(
            [project / "steerlab", "report", results], cwd=folder, capture_output=True, check=True
        )
        drawn.append({path.name: path.read_bytes() for path in results.rglob("*.svg")})
    assert drawn[0]
    assert drawn[0] == drawn[1]


# --- root ---


def test_root_gets_no_variable_that_has_a_program_load_code() -> None:
    environment = {
        "TERM": "xterm", "PYTHONPATH": "/x", "PATH": ".", "LD_PRELOAD": "/x.so", "HOME": "/home/me",
        "BASH_ENV": "/x", "GIT_SSH_COMMAND": "x", "KUBECONFIG": "/x", "MPLCONFIGDIR": "/x",
        "PULUMI_HOME": "/x", "TMPDIR": "/x",
    }  # fmt: skip
    words = privileges.command(["/a=b/python", "-I", "/p/__main__.py", "up"], environment)
    assert [word for word in words if "=" in word] == ["TERM=xterm", "/a=b/python"]
    assert words.index("/a=b/python") > words.index("-c")  # not where env looks for variables


def test_a_program_that_only_calls_a_part_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*words: object) -> None:
        raise AssertionError(words)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "execv", started)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sudo")
    with pytest.raises(privileges.PrerequisiteMissing):
        privileges.become_root("here")
    monkeypatch.setattr(sys, "argv", [str(privileges.ENTRY), "up"])
    with pytest.raises(AssertionError):
        privileges.become_root("here")
