"""The words of a matrix -> a plan: named matrices, files, options, each over the one before.

options = matrix.named("quick") | {"replicas": "4", "seed": 7}
plan = matrix.plan(options)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from experiments import plan as plans
from experiments.plan import Plan
from infra import config, documents
from infra import configurations as definitions
from infra.complaints import complaint, whole
from infra.refusals import BadInput

# The options of a plan, in the words of the command line.
Options = dict[str, Any]

_FILE = Path(__file__).with_name("matrices.yaml")

# What no matrix says.
_NEITHER: Options = {
    "streams": 1,
    "path": "overlay",
    "isolation": "incremental",
    "own": "",
    "pod_cpu_limit": "",
    "until_ci": None,
    "config": {},
}
# Keys of a stack that the plan itself says, by the option that does.
PLANNED = {
    "configuration": "--configurations",
    "replicas": "--replicas",
    "runs": "--runs",
    "duration": "--duration",
    "omit": "--omit",
    "streams": "--streams",
    "path": "--path",
    "configurations": "--own",
    "podCpuLimit": "--pod-cpu-limit",
}


class Matrix(BaseModel):
    """One matrix as YAML says it; what it leaves out is as usual."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str = ""
    configurations: list[str] | None = None
    replicas: list[Annotated[int, whole(1, 1024)]] | None = None
    runs: Annotated[int, whole(1, 10_000)] | None = None
    duration: Annotated[int, whole(1, 86_400)] | None = None
    omit: Annotated[int, whole(0, 60)] | None = None
    streams: Annotated[int, whole(1, 128)] | None = None
    path: list[Literal["overlay", "host"]] | None = None
    isolation: Literal["incremental", "fresh"] | None = None
    own: str | None = None
    podCpuLimit: str | None = None  # noqa: N815 a stack's key
    config: dict[str, str] | None = None

    @field_validator("config")
    @classmethod
    def _other_keys(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for key in value or {}:
            if key in PLANNED:
                raise ValueError(f"{key} is a key of the matrix itself")
        return value

    def options(self) -> Options:
        """As the command line has them."""
        said = self.model_dump(exclude={"summary"}, exclude_none=True)
        if "podCpuLimit" in said:
            said["pod_cpu_limit"] = said.pop("podCpuLimit")
        for name in ("configurations", "replicas", "path"):
            if name in said:
                said[name] = ",".join(map(str, said[name]))
        return said


def names() -> dict[str, str]:
    """The named matrices and what each is for."""
    return {name: Matrix.model_validate(one).summary for name, one in _read(_FILE).items()}


def named(name: str) -> Options:
    """The options of a named matrix, or of a file of one.

    Raises `BadInput` for a name or a file that is not there, and for one that is not valid.
    """
    known = _read(_FILE)
    usual = _NEITHER | _checked(known["usual"], "matrices.yaml: usual").options()
    if name in known:
        return usual | _checked(known[name], f"matrices.yaml: {name}").options()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise BadInput(
            f"matrix: {name!r} is unknown (known: {', '.join(known)}, or a file NAME.yaml)"
        )
    return usual | _checked(_read(path), f"matrix: {name}").options()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = documents.read(path, "matrix")
    except FileNotFoundError:
        raise BadInput(f"matrix: there is no file {path}") from None
    if not isinstance(document, dict):
        raise BadInput(f"matrix: {path} must map {', '.join(Matrix.model_fields)}")
    return document


def _checked(document: Any, where: str) -> Matrix:
    try:
        return Matrix.model_validate(document)
    except ValidationError as error:
        raise BadInput(f"{where}: {complaint(error, Matrix)}") from None


def plan(options: Options) -> Plan:
    """The plan of these options, validated as `up` would a state of it.

    Raises `BadInput` naming the option, and `Cannot` where the target does not answer.
    """
    paths = _words(options["path"])
    if not paths or set(paths) - {"overlay", "host"} or len(set(paths)) != len(paths):
        raise BadInput(f"path: {options['path']!r} must be overlay, host, or overlay,host")
    if options["isolation"] not in plans.ISOLATIONS:
        known = " or ".join(plans.ISOLATIONS)
        raise BadInput(f"isolation: {options['isolation']!r} must be {known}")
    own = str(Path(options["own"]).resolve()) if options["own"] else ""
    keys = {"configurations": own, "podCpuLimit": options["pod_cpu_limit"]}
    settings = {key: value for key, value in keys.items() if value} | options["config"]
    timing = {key: str(options[key]) for key in ("duration", "omit", "streams")}
    # What is wrong with the target shows before a cluster is asked for its nodes.
    path = max(paths, key=("overlay", "host").index)
    usual = {"configuration": "baseline", "replicas": "1", "path": path, **settings, **timing}
    made = plans.make(
        seed=options["seed"],
        blocks=options["runs"],
        configurations=_words(options["configurations"]),
        replicas=[_count(word) for word in _words(options["replicas"])],
        paths=paths,
        duration=options["duration"],
        omit=options["omit"],
        streams=options["streams"],
        known=definitions.load(settings.get("configurations")),
        cpus=_cpus(usual),
        settings=settings,
        until_ci=options["until_ci"],
        isolation=options["isolation"],
    )
    if made.until_ci is not None and "baseline" not in made.configurations:
        raise BadInput("until-ci: the baseline must be among the configurations")
    # One state of the plan, validated as `up` would: what is wrong with the rest shows here.
    values = {
        **settings,
        "configuration": made.configurations[0],
        "replicas": str(max(made.replicas)),
    }
    config.state("sweep", {**values, **timing, "path": path})
    return made


def options_of(kept: Plan) -> Options:
    """The options that make a plan again; what was left out is asked for again, too."""
    settings = dict(kept.settings)
    all_names = (*kept.configurations, *(name for name, _ in kept.left_out))
    return {
        "configurations": ",".join(all_names),
        "replicas": ",".join(map(str, kept.replicas)),
        "runs": kept.blocks,
        "duration": kept.duration,
        "omit": kept.omit,
        "streams": kept.streams,
        "path": ",".join(kept.paths),
        "isolation": kept.isolation,
        "own": settings.get("configurations", ""),
        "pod_cpu_limit": settings.get("podCpuLimit", ""),
        "until_ci": kept.until_ci,
        "seed": kept.seed,
        "config": {key: value for key, value in kept.settings if key not in PLANNED},
    }


def _cpus(values: dict[str, str]) -> int:
    """How many CPUs a mask may name: this machine's, or those of the smallest server node."""
    from infra.kubernetes.nodes import of_state

    state = config.state("sweep", values)
    if state.target == "lab":
        return max(config.online_cores()) + 1
    return min(node.cpus for node in of_state(state).servers)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise BadInput(f"replicas: {word!r} must be a whole number from 1")
    return int(word)
