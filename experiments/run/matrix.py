"""Options of a sweep -> its plan: named matrices, files and options, later ones first.

wanted = matrix.named("quick") | {"replicas": "4", "seed": 7}
plan = matrix.plan(wanted)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.run import episodes, options
from experiments.run import plan as plans
from experiments.run.options import Options
from experiments.run.plan import SweepPlan
from experiments.targets import TARGETS
from infra import config, traffic, yaml_files
from infra import configurations as definitions
from infra.errors import InvalidInput
from infra.traffic.stream import Stream

_FILE = Path(__file__).with_name("matrices.yaml")

# The value of --baseline with which nothing is compared.
NO_BASELINE = "none"


def named(name: str) -> dict[str, Any]:
    """The options of a named matrix, or of a file of one.

    Raises `InvalidInput` for an unknown name, a missing file, and invalid options.
    """
    known = _read(_FILE)
    usual = _checked(known["usual"], {}, "matrices.yaml: usual")
    if name in known:
        return usual | _checked(known[name], usual, f"matrices.yaml: {name}")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise InvalidInput(
            f"matrix: {name!r} is unknown (known: {', '.join(known)}, or a file NAME.yaml)"
        )
    return usual | _checked(_read(path), usual, f"matrix: {name}")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml_files.read(path, "matrix")
    except FileNotFoundError:
        raise InvalidInput(f"matrix: there is no file {path}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"matrix: {path} must map options to values")
    return document


def _checked(document: Any, usual: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a document, validated together with the usual ones."""
    if not isinstance(document, dict):
        raise InvalidInput(f"{where} must map options to values")
    own = {key: value for key, value in document.items() if key != "summary" and value is not None}
    try:
        found = options.layer(own)
        options.read({"seed": 0, **usual, **found})
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    return found


def plan(wanted: Mapping[str, Any]) -> SweepPlan:
    """The plan of these options, validated as `up` would validate its stacks.

    Raises `InvalidInput` naming the option, and `PrerequisiteMissing` where the target does not answer.
    """
    asked = _with_congestion(options.read(options.layer(wanted)))
    if asked.own:
        asked = asked.model_copy(update={"own": str(Path(asked.own).resolve())})
    path = "host" if "host" in asked.paths else "overlay"
    # Invalid settings of the target must be reported before a cluster is contacted.
    state = config.state("sweep", asked.stack("baseline", 1, path))
    cpus = TARGETS[state.target].cpus(state)
    made = plans.make(asked, known=definitions.load(asked.own or None), cpus=cpus)
    episodes.refuse(made, len(made.configurations), state)
    if made.until_ci is not None and made.baseline not in made.configurations:
        raise InvalidInput("until_ci: the baseline must be among the configurations")
    config.state("sweep", asked.stack(made.configurations[0], max(made.replicas), path))
    return made


def _with_congestion(asked: Options) -> Options:
    """Under switchback the default traffic has CUBIC, which short windows need."""
    if asked.method == "switchback" and asked.traffic == traffic.DEFAULT:
        return asked.model_copy(update={"traffic": str(Stream(congestion="cubic"))})
    return asked


def refuse_without_baseline(asked: Options) -> None:
    """Raise `InvalidInput` for a sweep without its baseline, unless that is wanted."""
    if asked.baseline not in (*asked.configurations, NO_BASELINE):
        raise InvalidInput(
            f"configurations: {asked.baseline} is not among {', '.join(asked.configurations)}, so "
            f"nothing could be compared: add it, compare with another (--baseline NAME), or "
            f"compare nothing (--baseline {NO_BASELINE})"
        )
