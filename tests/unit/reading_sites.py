"""Where the code reads text that something else wrote, found in its syntax, and what runs there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agent", "analysis", "infra", "experiments", "docker")

# Calls that take foreign text, or bytes, or make a number of it.
METHODS = {
    "communicate", "compose", "content", "decode", "decompress", "fromisoformat", "loads",
    "model_validate", "model_validate_json", "parsed", "pread", "read", "read_bytes", "read_text",
    "reader", "readline", "readlines", "readline_stdout", "read_stdout", "safe_load",
    "validate_json", "validate_python", "whole", "words",
}  # fmt: skip
MODULES = {"json": {"load"}, "yaml": {"load"}, "gzip": {"open"}, "os": {"open"}}
NUMBERS = {"int", "float"}


def sites() -> Iterator[tuple[str, str]]:
    """Each function that has such a call: its file and its qualified name."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for where in _in(ast.parse(path.read_text()), ""):
                yield name, where


def _in(node: ast.AST, within: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{within}.{child.name}" if within else child.name
            yield from dict.fromkeys(_in(child, inside))
        elif isinstance(child, ast.Call) and _reads(child):
            yield within or "<module>"
            yield from _in(child, within)
        else:
            yield from _in(child, within)


def _reads(call: ast.Call) -> bool:
    called = call.func
    if isinstance(called, ast.Name):
        constant = bool(call.args) and isinstance(call.args[0], ast.Constant)
        return called.id in NUMBERS and not constant
    if not isinstance(called, ast.Attribute):
        return False
    of = called.value.id if isinstance(called.value, ast.Name) else ""
    return called.attr in METHODS or called.attr in MODULES.get(of, ())


@contextmanager
def traced(found: set[tuple[str, str]]) -> Iterator[None]:
    """Add each function of this repository that the block runs."""

    def seen(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT)):
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            found.add((str(Path(file).relative_to(ROOT)), name))

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        yield
    finally:
        sys.setprofile(before)


COMPUTES = "numbers of records that were read already"
KERNEL = "a line of a fixed form that the kernel prints of this very process or boot"
OWN = "what this project wrote itself, a moment ago or in this repository"
PASSED_ON = "bytes that are passed on: whoever takes them is a reader"
TYPED = "a number that a library has checked already"
# Whole files, or functions, that need no fuzzing.
REASONS: dict[str | tuple[str, str], str] = {
    **dict.fromkeys(
        (f"analysis/{name}.py" for name in (
            "carryover", "caveats", "compare", "dependence", "pairing", "plots/effects", "plots/cores",
            "plots/style", "plots/tradeoffs", "race", "statistics", "study/check", "summary", "tradeoff", "tuning",
        )),
        COMPUTES,
    ),
    ("analysis/files.py", "caller"): "sudo's own variables, in digits or not taken",
    ("analysis/limits.py", "parse"): "digits, by its own condition",
    ("analysis/plots/library.py", "_beside_its_own_style"): "opens a folder and reads nothing",
    ("analysis/report/pages.py", "inlined"): OWN,
    ("analysis/report/pages.py", "_script"): OWN,
    ("analysis/tables.py", "configuration_order.key"): "digits, by its own condition",
    ("agent/namespaces.py", "Namespace.number"): "anything but a number is 0",
    ("agent/namespaces.py", "Namespace.is_up"): "anything but a number is up",
    ("agent/watchdog.py", "detach"): KERNEL,
    ("agent/restore.py", "empty"): "reads back through Setting.read",
    ("agent/archive.py", "archive"): OWN,
    ("agent/audit.py", "Audit._add"): OWN,
    ("experiments/rollout/manifest.py", "files"): OWN,
    ("agent/starting.py", "Driver.wait"): "drops what it reads",
    ("experiments/cli/hook.py", "_secrets"): "what the stack declared, checked by its model",
    ("infra/kubernetes/outputs.py", "_applied"): "what a hook of the stack printed",
    ("infra/kubernetes/outputs.py", "lease_end"): "times of the API server and of a hook of the stack",
    ("infra/settings.py", "_user"): "a number within bounds, or refused",
    ("agent/session.py", "_called"): "a request of the project's driver, which is told of any error",
    ("agent/goodput.py", "pids_of_pod"): "digits, by its own condition, and cgroups through pods_of",
    ("agent/kernel.py", "open_namespace"): "opens a namespace and reads nothing",
    ("agent/transaction.py", "roll_back"): "reads back through Setting.read",
    ("agent/transaction.py", "Intent.refuse_dependent"): "reads back through Setting.read",
    ("agent/namespaces.py", "Namespace._facts.value"): "through Setting.read",
    ("agent/changes.py", "refused"): "anything but zeros is steering",
    "agent/routes.py": "structures of a fixed form, of the kernel",
    "agent/ethtool.py": "structures of a fixed form, of the kernel",
    ("agent/watchdog.py", "start_watchdog"): OWN,
    ("experiments/host/calls.py", "_ended"): PASSED_ON,
    ("experiments/host/calls.py", "episode"): "compares a line with the one that it must be",
    ("experiments/cli/__init__.py", "_written"): "opens /dev/null to write",
    ("experiments/cli/results.py", "_reproduce"): "options of a plan that was read",
    ("experiments/cli/tune.py", "tune"): "through tune_state.read",
    ("experiments/cli/tuned.py", "conclude_tuning"): "through Tuned.read",
    ("experiments/run/tune_plan.py", "_asked"): "through options.read",
    "infra/traffic/pingpong.py": "takes arguments of this project, and replies without what is in them",
    ("infra/traffic/rr.py", "<module>"): OWN,
    "agent/procstat.py": "runs on nodes and passes the kernel's files on",
    ("experiments/targets/kubernetes/shell.py", "<module>"): OWN,
    ("experiments/targets/kubernetes/shell.py", "PodSession.await_line"): PASSED_ON,
    ("experiments/targets/kubernetes/shell.py", "PodSession.finish"): PASSED_ON,
    ("experiments/targets/kubernetes/shell.py", "SshSession.await_line"): PASSED_ON,
    ("experiments/targets/kubernetes/shell.py", "SshSession.finish"): PASSED_ON,
    ("experiments/targets/kubernetes/agents.py", "_ended"): TYPED,
    ("experiments/host/daemonset.py", "manifest"): OWN,
    ("experiments/host/persist.py", "template"): OWN,
    ("experiments/host/reference.py", "<module>"): OWN,
    ("agent/machine.py", "Machine._sysctls"): "opens a file and reads nothing",
    ("agent/machine.py", "Machine._kept_by_sockets"): KERNEL,
    ("experiments/targets/lab/episode.py", "run"): "through CounterSample",
    ("experiments/targets/lab/doctor.py", "_read"): PASSED_ON,
    ("experiments/targets/lab/doctor.py", "examine"): "through cpu_model",
    ("experiments/engines/embedded/command.py", "Commands._attend"): PASSED_ON,
    ("experiments/engines/embedded/command.py", "_text"): PASSED_ON,
    ("infra/kubernetes/access.py", "request"): "through answered",
    ("experiments/engines/embedded/kubernetes.py", "Objects._end_of"): TYPED,
    ("experiments/engines/embedded/kubernetes.py", "Objects._stands"): "the program's own annotation",
    ("experiments/engines/embedded/monitor.py", "_plain"): TYPED,
    ("experiments/engines/embedded/program.py", "_run.program"): OWN,
    ("experiments/targets/lab/clients.py", "Client.await_end"): "drops what a client prints",
    ("experiments/targets/lab/clients.py", "Client.finish"): PASSED_ON,
    ("experiments/targets/lab/clients.py", "Client.read"): PASSED_ON,
    ("experiments/targets/lab/episode.py", "_probe"): PASSED_ON,
    ("experiments/targets/lab/clients.py", "_await_ready"): PASSED_ON,
    ("experiments/targets/lab/backend.py", "LabBackend._server"): "a pid file that verify.alive has read",
    ("experiments/targets/lab/backend.py", "LabBackend.throttled"): "through throttled",
    ("experiments/targets/lab/backend.py", "_quota"): KERNEL,
    ("experiments/host/machine.py", "describe"): "through seen",
    ("experiments/host/nodes.py", "_held"): TYPED,
    ("experiments/host/nodes.py", "_queues"): "queues of an answer that agent.read has checked",
    ("experiments/host/persist.py", "printable"): OWN,
    ("experiments/host/persist.py", "judged"): "digits, by its own condition",
    ("experiments/host/persist.py", "install"): "bytes that are put back as they are",
    ("experiments/run/single.py", "_interval"): COMPUTES,
    ("experiments/engines/remeasured.py", "keep"): "a checkpoint that state.load has read",
    ("experiments/targets/lab/standing.py", "take_away"): PASSED_ON,
    ("experiments/signals.py", "_ended_before_its_program"): "whether there is a command line, not what is in it",
    ("experiments/targets/lab/drift.py", "_visit"): "opens a namespace and reads nothing",
    ("infra/lab/__init__.py", "Lab.__init__"): KERNEL,
    ("experiments/run/plan.py", "SweepPlan.asked"): "options that were read",
    ("infra/lease.py", "words"): TYPED,
    ("infra/measured.py", "_parsed"): OWN,
    ("infra/reference.py", "program"): OWN,
    ("infra/errors.py", "_first_code"): OWN,
    ("infra/errors.py", "collected"): OWN,
    ("infra/errors.py", "_append"): "opens a file to write",
    ("infra/errors.py", "noted"): "lines of text that are shown",
}  # fmt: skip
