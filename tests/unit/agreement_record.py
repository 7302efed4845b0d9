"""One program's run under either engine in normalised form; as a script, records the CLI's runs.

`PYTHONPATH=.:tests/unit python tests/unit/agreement_record.py [PROGRAM ...]` needs the Pulumi CLI,
its Python language host and the command provider on PATH, and replaces what it has run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any
from unittest.mock import patch

import yaml
from agreement_programs import PRELUDE, PROGRAMS, Program, Step

from experiments.engines import EngineError, StackRef
from experiments.engines import Step as Done
from experiments.engines.embedded import Embedded
from experiments.engines.embedded.command import TYPE

RECORDING = Path(__file__).parent / "data" / "agreement.json"
TOOLS = ("pulumi", "pulumi-language-python", "pulumi-resource-command")
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Result = dict[str, Any]
Resource = dict[str, Any]

_NOISE = ("created", "modified", "sourcePosition", "stackTrace")
_NOTED = re.compile(r"echo '([^']*)' >> \$DIARY")
_LABEL = re.compile(r"""echo ['"](?:create|update|delete) ([^\s'"]+)""")
_PROVIDER = "pulumi:providers:"
_LONG = 400
_RULES = ["triggers[*]"]  # what the SDK gives every command


@dataclass
class Report:
    """What an engine says that it did: pairs of operation and URN, and what failed."""

    ok: bool
    done: set[tuple[str, str]] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    same: int = 0
    # Those of a preview; otherwise the checkpoint has them.
    outputs: dict[str, Any] = field(default_factory=dict)
    # Not compared: helps where an engine fails unexpectedly.
    words: str = ""


class Place:
    """A project in a folder of its own, with its diary and its state."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir(parents=True)
        (self.root / "sub").mkdir()
        self.diary = folder / "diary"
        self.stack = StackRef(self.root, folder, "dev", {}, "tried")

    def prepare(self, step: Step) -> None:
        if step.program is not None:
            (self.root / "__main__.py").write_text(PRELUDE + dedent(step.program))
        self.diary.write_text("")

    @property
    def checkpoint(self) -> Path:
        return self.stack.home / ".pulumi/stacks/tried/dev.json"

    @property
    def latest(self) -> dict[str, Any]:
        if not self.checkpoint.exists():
            return {}
        return json.loads(self.checkpoint.read_text())["checkpoint"].get("latest") or {}

    @property
    def resources(self) -> list[Resource]:
        return self.latest.get("resources") or []

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the checkpoint by hand."""
        document = json.loads(self.checkpoint.read_text())
        change(document["checkpoint"]["latest"])
        self.checkpoint.write_text(json.dumps(document))

    def urns(self, names: Iterable[str]) -> list[str]:
        by_name = {short(r["urn"]): r["urn"] for r in self.resources}
        return [by_name[name] for name in names]


# --- The two engines ---


def by_embedded(place: Place, step: Step, config: dict[str, str]) -> Report:
    steps: list[Done] = []
    stack = StackRef(place.root, place.stack.home, "dev", config, "tried")
    options: dict[str, Any] = {"replace": place.urns(step.replace)} if step.replace else {}
    report = Report(ok=True)
    with patch.dict(os.environ, {"DIARY": str(place.diary)}):
        try:
            outcome = getattr(Embedded(), step.verb)(stack, on_step=steps.append, **options)
            report.same = outcome.same
            report.outputs = outcome.outputs
        except EngineError as error:
            report.ok, report.words = False, str(error)
    report.done = {(s.operation, s.urn) for s in steps if s.phase == "done"}
    report.failed = {s.urn for s in steps if s.phase == "failed"}
    report.done -= {("delete", urn) for operation, urn in report.done if operation == "replace"}
    return report


def by_cli(place: Place, step: Step, config: dict[str, str]) -> Report:
    """One process; the engine's events tell what it did, as the Automation API has it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")} | {
        "DIARY": str(place.diary),
        "PULUMI_BACKEND_URL": f"file://{place.stack.home}",
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_DEBUG_COMMANDS": "true",  # for --event-log
        "PULUMI_HOME": str(place.stack.home / "pulumi-home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi(*args: str) -> subprocess.CompletedProcess[str]:
        command = ["pulumi", *args, "--non-interactive"]
        return subprocess.run(
            command, cwd=place.root, env=env, capture_output=True, text=True, timeout=300
        )

    if not (place.root / "Pulumi.yaml").exists():
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (place.root / "Pulumi.yaml").write_text(
            yaml.safe_dump({"name": "tried", "runtime": runtime})
        )
        pulumi("stack", "init", "dev").check_returncode()
    settings = place.root / "Pulumi.dev.yaml"
    kept = yaml.safe_load(settings.read_text()) if settings.exists() else {}
    settings.write_text(yaml.safe_dump({**(kept or {}), "config": config}))

    events = place.stack.home / "events"
    events.unlink(missing_ok=True)
    args = [step.verb, "--stack", "dev", "--event-log", str(events)]
    args += [] if step.verb == "preview" else ["--yes", "--skip-preview"]
    args += [f"--replace={urn}" for urn in place.urns(step.replace)]
    args += ["--continue-on-error"] if step.continue_on_error else []
    run = pulumi(*args)
    report = Report(run.returncode == 0, words=run.stdout + run.stderr)
    for line in events.read_text().splitlines():
        _hear(report, json.loads(line))
    return _in_one_word(report)


_WORDS = {
    **{operation: operation for operation in ("create", "update", "delete", "same")},
    "create-replacement": "replace",
    "delete-replaced": "delete",
    "remove-pending-replace": "delete",
}


def _hear(report: Report, event: dict[str, Any]) -> None:
    """What an event says: done is what has its outputs, and a component that was begun."""
    if found := event.get("resourcePreEvent") or event.get("resOutputsEvent"):
        metadata = found["metadata"]
        urn, kind = metadata["urn"], metadata["type"]
        begun = "resourcePreEvent" in event
        component = kind != TYPE and not kind.startswith(_PROVIDER)
        if component or (kind == TYPE and not begun):
            report.done.add((metadata["op"], urn))
        if kind == "pulumi:pulumi:Stack" and not begun:
            report.outputs = (metadata.get("new") or {}).get("outputs") or {}
    elif found := event.get("resOpFailedEvent"):
        report.failed.add(found["metadata"]["urn"])
    elif event.get("diagnosticEvent", {}).get("severity") == "error":
        # What is refused before its step has no other event.
        report.failed |= {event["diagnosticEvent"].get("urn")} - {None, ""}


def _in_one_word(report: Report) -> Report:
    """A replacement has parts for the CLI; the embedded engine tells it when it is complete."""
    told: dict[str, set[str]] = {}
    for operation, urn in report.done:
        told.setdefault(urn, set()).add(operation)
    report.done = set()
    for urn, parts in told.items():
        done = {_WORDS[part] for part in parts if part in _WORDS}
        if "replace" in parts:
            done.discard("delete")
        report.same += report.ok and "same" in done
        report.done |= {(operation, urn) for operation in done - {"same"}}
    report.failed = {u for u in report.failed if short(u) != "stack"}
    return report


# --- What is compared ---


def short(urn: str) -> str:
    """`a`, or with the types of what is around it: `Outer$Inner$Command a`."""
    types, name = urn.split("::")[2:4]
    if types == "pulumi:pulumi:Stack":
        return "stack"
    if types.startswith(_PROVIDER):
        return "provider"
    chain = "$".join(kind.rsplit(":", 1)[-1] for kind in types.split("$"))
    return name if chain == "Command" else f"{chain} {name}"


def urn_type(urn: str) -> str:
    return urn.split("::")[2].rsplit("$", 1)[-1]


class Names:
    """Tells ids apart by the resource and the count of those it has had: `a#2`."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._counts: dict[str, Iterator[int]] = {}

    def learn(self, resources: Iterable[Resource]) -> None:
        # Those to be deleted are older, wherever they stand in the file.
        for resource in sorted(resources, key=lambda r: not r.get("delete")):
            id_, name = resource.get("id"), short(resource["urn"])
            if id_ and id_ not in self._known:
                number = next(self._counts.setdefault(name, count(1)))
                self._known[id_] = f"{name}#{number}"

    def in_text(self, text: str) -> str:
        for id_, name in self._known.items():
            text = text.replace(id_, f"<{name}>")
        return text


def normalised(place: Place, report: Report, names: Names, related: set[tuple[str, str]]) -> Result:
    """What came of one step, without what may differ between two runs of one engine."""
    resources = place.resources
    names.learn(resources)
    diary = place.diary.read_text().splitlines()

    def plain(value: Any) -> Any:
        text = names.in_text(json.dumps(value, ensure_ascii=False))
        for place_, name in ((place.root, "<project>"), (place.stack.home, "<home>")):
            text = text.replace(str(place_.resolve()), name)
        return _abbreviated(json.loads(text))

    result: Result = {
        "result": "ok" if report.ok else "failed",
        "done": sorted(f"{operation} {short(urn)}" for operation, urn in report.done),
        "diary": plain(sorted(diary)),
        "order": plain(order(diary, related)),
        "resources": sorted(
            (_record(plain(r), plain(_provider(r, resources))) for r in resources),
            key=lambda record: json.dumps(record, sort_keys=True),
        ),
        "outputs": plain(_stack_outputs(resources)),
    }
    if report.failed:
        result["failed"] = sorted(map(short, report.failed))
    if report.same:
        result["same"] = report.same
    if pending := place.latest.get("pending_operations"):
        result["pending"] = sorted(f"{p['type']} {short(p['resource']['urn'])}" for p in pending)
    return result


def _stack_outputs(resources: list[Resource]) -> dict[str, Any]:
    stacks = [r for r in resources if r["type"] == "pulumi:pulumi:Stack"]
    return stacks[0].get("outputs", {}) if stacks else {}


def _provider(resource: Resource, resources: list[Resource]) -> str:
    """What names the provider that a resource should have: the only one there is."""
    [*providers] = (f"{r['urn']}::{r['id']}" for r in resources if short(r["urn"]) == "provider")
    return providers[0] if len(providers) == 1 and resource.get("provider") else ""


def _record(resource: Resource, provider: str) -> Resource | str:
    """A checkpoint's resource without what its URN or its inputs say already."""
    urn = resource["urn"]
    found = {k: v for k, v in resource.items() if v not in ("", {}, [], None, False)}
    for field_ in _NOISE:
        found.pop(field_, None)
    if found["type"] == urn_type(urn):
        del found["type"]
    if found.get("custom", False) is ("id" in found):
        found.pop("custom", None)
    if short(urn) == "provider":  # whose stamp is the SDK's version
        return "provider"
    if provider and found["provider"] == provider:
        del found["provider"]
    if short(urn) == "stack":
        found.pop("outputs", None)  # which stand by themselves
    if "outputs" in found and "inputs" in found:
        # A command's outputs are its inputs and more.
        inputs, outputs = found["inputs"], found["outputs"]
        found["outputs"] = {k: v for k, v in outputs.items() if inputs.get(k) != v}
        if absent := sorted(inputs.keys() - outputs.keys()):
            found["not in outputs"] = absent
    for field_ in ("urn", "parent"):
        if field_ in found:
            found[field_] = short(found[field_])
    if found.get("parent") == "stack":
        del found["parent"]
    if "dependencies" in found:
        found["dependencies"] = sorted(map(short, found["dependencies"]))
    if urn_type(urn) == TYPE and found.pop("replaceOnChanges", None) != _RULES:
        found["replaceOnChanges"] = resource.get("replaceOnChanges")
    if depends := found.pop("propertyDependencies", None):
        of = {k: sorted(map(short, urns)) for k, urns in depends.items() if urns}
        found |= {"propertyDependencies": of} if of else {}
    return found


def _abbreviated(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _abbreviated(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_abbreviated(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        value = _NOTED.sub(r"note(\1)", value)
        if len(value) > _LONG:
            digest = hashlib.sha256(value.encode()).hexdigest()[:12]
            return f"<{len(value)} characters, {digest}>"
    return value


def order(diary: list[str], related: set[tuple[str, str]]) -> list[str]:
    """The order of those entries whose resources depend on each other, as few pairs as say it.

    Everything else may run at once, and its order says nothing.
    """
    entries: list[tuple[str, str]] = []
    for text in diary:
        label = text.split()[1] if len(text.split()) > 1 else ""
        times = sum(text == other.split(" (")[0] for other, _ in entries) + 1
        entries.append((text if times == 1 else f"{text} ({times})", label))
    bound = [
        (i, j)
        for i, (_, one) in enumerate(entries)
        for j, (_, other) in enumerate(entries)
        if i < j and (one == other or (one, other) in related)
    ]
    after: dict[int, set[int]] = {}
    for i, j in sorted(bound, reverse=True):  # what comes after j is complete when i asks
        after.setdefault(i, set()).update({j}, after.get(j, set()))
    pairs = []
    for i, later in after.items():
        implied = set().union(*(after.get(j, set()) for j in later))
        pairs += [f"{entries[i][0]} < {entries[j][0]}" for j in later - implied]
    return sorted(pairs)


def _related(program: Program, resources: list[Resource]) -> set[tuple[str, str]]:
    """The pairs of labels of which one builds on the other, however indirectly."""
    labels: dict[str, set[str]] = {}
    above: dict[str, set[str]] = {}
    for resource in resources:
        urn = resource["urn"]
        scripts = [resource.get("inputs", {}).get(v) for v in ("create", "update", "delete")]
        labels.setdefault(urn, set()).update(
            label
            for script in scripts
            if isinstance(script, str)
            for label in _LABEL.findall(script)
        )
        lists = [v or () for v in resource.get("propertyDependencies", {}).values()]
        above.setdefault(urn, set()).update(
            resource.get("dependencies", ()), *lists, [resource.get("parent", "")]
        )
    stacks = {urn for urn in above if short(urn) == "stack"}
    found = set(permutations(program.ordered, 2))
    for urn in above:
        reached, frontier = set(), {urn}
        while frontier:
            reached |= frontier
            frontier = set().union(*(above.get(u, set()) for u in frontier)) - reached - stacks
        for other in reached - {urn}:
            for one in labels[urn]:
                found |= {pair for o in labels.get(other, ()) for pair in ((one, o), (o, one))}
    return found


def expanded(results: Iterable[Result]) -> list[Result]:
    """Each step with its resources, where the recording says that they are as before."""
    found: list[Result] = []
    for result in results:
        if result.get("resources") == "as before":
            result = {**result, "resources": found[-1]["resources"]}
        found.append(result)
    return found


Engine = Callable[[Place, Step, dict[str, str]], Report]


def run(program: Program, engine: Engine) -> list[Result]:
    """The normalised result of each of a program's steps."""
    results: list[Result] = []
    with TemporaryDirectory(prefix="agreement-") as folder:
        place, names = Place(Path(folder).resolve()), Names()
        last: Any = []
        for number, step in enumerate(program.steps):
            place.prepare(step)
            if step.edit:
                place.edit(step.edit)
            before = place.resources
            report = engine(place, step, dict(program.config))
            result = normalised(
                place, report, names, _related(program, [*before, *place.resources])
            )
            if step.verb == "preview":
                result["outputs"] = _foreseen(report, names)
            fails = step.fails is True or step.fails == engine.__name__
            if report.ok is fails:
                why = f"{program.name}, step {number}: {result['result']}\n{report.words}"
                raise AssertionError(why)
            last, result["resources"] = (
                result["resources"],
                "as before" if last and result["resources"] == last else result["resources"],
            )
            results.append({k: v for k, v in result.items() if v not in ([], {})})
    return results


def _foreseen(report: Report, names: Names) -> Any:
    """A preview's outputs, as the CLI shows them; the embedded engine says it so already."""
    text = json.dumps(report.outputs if report.ok else {}).replace(UNKNOWN, "[unknown]")
    # An id that the provider makes up for a preview.
    text = re.sub(r'"([a-z])[0-9a-f]{8}"', r'"<\1, made up>"', names.in_text(text))
    return _abbreviated(json.loads(text))


# --- The recording ---


def digest(program: Program) -> str:
    """Tells whether a recording is of this program."""
    said: list[Any] = [PRELUDE, sorted(program.config.items()), program.ordered]
    said += [
        (s.verb, s.program, s.replace, s.continue_on_error, bool(s.edit)) for s in program.steps
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    provider = shutil.which("pulumi-resource-command") or ""
    schema = json.loads(said("pulumi", "package", "get-schema", provider))
    return {
        "pulumi": said("pulumi", "version"),
        "pulumi-resource-command": schema["version"],
        "pulumi (SDK)": importlib.metadata.version("pulumi"),
        "pulumi-command (SDK)": importlib.metadata.version("pulumi-command"),
    }


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDING.read_text())
    return found


def dumped(recording: dict[str, Any]) -> str:
    """JSON with a line for each thing that one may want to look at."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)

    def listed(values: Iterable[str], indent: str, ends: str) -> str:
        inner = ",\n".join(f"{indent} {value}" for value in values)
        return f"{ends[0]}\n{inner}\n{indent}{ends[1]}"

    def step(result: Result) -> str:
        fields = []
        for name, value in sorted(result.items()):
            text = line(value)
            if name == "resources" and isinstance(value, list):
                text = listed(map(line, value), "     ", "[]")
            fields.append(f"{line(name)}: {text}")
        return listed(fields, "    ", "{}")

    programs = []
    for name, found in sorted(recording["programs"].items()):
        steps = listed(map(step, found["steps"]), "   ", "[]")
        programs.append(
            f"{line(name)}: "
            + listed([f'"digest": {line(found["digest"])}', f'"steps": {steps}'], "  ", "{}")
        )
    fields = [
        f'"programs": {listed(programs, " ", "{}")}',
        f'"versions": {listed((f"{line(k)}: {line(v)}" for k, v in sorted(recording["versions"].items())), " ", "{}")}',
    ]
    return listed(fields, "", "{}") + "\n"


@contextmanager
def cli_runs(programs: Iterable[Program], at_once: int = 3) -> Iterator[dict[str, Any]]:
    """Futures of the CLI's results by the program's name, some at once."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = {p.name: pool.submit(run, p, by_cli) for p in programs}
        try:
            yield futures
        finally:
            for future in futures.values():
                future.cancel()


def main(args: list[str]) -> int:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"not on PATH: {', '.join(missing)}\n")
        return 2
    wanted = [p for p in PROGRAMS if not args or p.name in args]
    recording = recorded() if args and RECORDING.exists() else {"programs": {}}
    recording["versions"] = versions()
    began, failed = time.monotonic(), 0
    with cli_runs(wanted) as futures:
        for program in wanted:
            try:
                steps = futures[program.name].result()
            except AssertionError as error:
                failed += 1
                sys.stderr.write(f"{error}\n")
                continue
            recording["programs"][program.name] = {"digest": digest(program), "steps": steps}
    names = {p.name for p in PROGRAMS}
    recording["programs"] = {k: v for k, v in recording["programs"].items() if k in names}
    RECORDING.write_text(dumped(recording))
    sys.stdout.write(f"{len(wanted)} programs in {time.monotonic() - began:.0f} s\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
