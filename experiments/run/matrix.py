"""Options of a sweep -> its plan: named matrices, files and options, later ones first.

wanted = matrix.named("quick") | {"replicas": "4", "seed": 7}
plan = matrix.plan(wanted)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from analysis.limits import parse as parse_limit
from analysis.metrics import BITRATE, Metric
from experiments.run import episodes, options
from experiments.run import plan as plans
from experiments.run.measurable import Way
from experiments.run.options import Options
from experiments.run.plan import SweepPlan
from experiments.targets import TARGETS
from infra import config, yaml_files
from infra import configurations as definitions
from infra.errors import InvalidInput
from infra.traffic import TRAFFIC
from infra.traffic import of as of_traffic

_FILE = Path(__file__).with_name("matrices.yaml")

# The value of --baseline with which nothing is compared.
NO_BASELINE = "none"


def named(name: str) -> dict[str, Any]:
    """The options of a named matrix, or of a file of one.

    Below the name of a method it has the defaults of that method.

    Raises `InvalidInput` for an unknown name, a missing file, and invalid options.
    """
    known = _read(_FILE)
    usual = _built_in(known["usual"])
    if name in known:
        return usual | _built_in(known[name])
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise InvalidInput(
            f"matrix: {name!r} is unknown (known: {', '.join(known)}, or a file NAME.yaml)"
        )
    found = _checked(_read(path), usual, f"matrix: {name}")
    isolated = {} if options.method_of(found) else {"method": "isolated"}
    return usual | isolated | found


def _built_in(document: Mapping[str, Any]) -> dict[str, Any]:
    own, defaults = _parted(document)
    return _layer(own) | defaults


def _parted(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options, and the defaults of each method."""
    own = {key: value for key, value in wanted.items() if key not in options.OWN}
    return own, {key: options.layer(wanted[key]) for key in options.OWN if key in wanted}


def _layer(document: Mapping[str, Any]) -> dict[str, Any]:
    return options.layer(
        {key: value for key, value in document.items() if key != "summary" and value is not None}
    )


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
    try:
        found = _layer(document)
        options.method_of(found)
        options.read({"seed": 0, "blocks": 1, **_parted(usual)[0], **found})
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    return found


def refuse_other_method(name: str, found: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` where a matrix has an option of another method than that of the typed ones."""
    method = options.method_of(typed)
    for owner, names in options.OWN.items():
        for key in names:
            if method and owner != method and key in found and key not in typed:
                asking = next(one for one in ("method", *options.OWN[method]) if one in typed)
                raise InvalidInput(
                    f"matrix: {name}: {options.alias(key)} applies to the method {owner}, but "
                    f"{options.flag(asking)} asks for {method}: remove {options.alias(key)} from the "
                    f"file, or leave {options.flag(asking)} out"
                )


def plan(wanted: Mapping[str, Any], tell: Callable[[str], None] = lambda _: None) -> SweepPlan:
    """The plan of these options, validated as `up` would validate its stacks.

    If they name no method it is switchback, or isolated with the reason passed to `tell`.

    Raises `InvalidInput` naming the option, and `PrerequisiteMissing` where the target does not answer.
    """
    own, defaults = _parted(wanted)
    layer = options.layer(own)
    method = options.method_of(layer)
    asked = _asked(layer, defaults, method or "switchback")
    # isolated runs measure all that windows do
    _refuse_unmeasured(asked, asked.method if method else "isolated")
    path = "host" if "host" in asked.paths else "overlay"
    # Invalid settings of the target must be reported before a cluster is contacted.
    state = config.state("sweep", asked.stack("baseline", 1, path))
    target = TARGETS[state.target]
    cpus = target.cpus(state)
    known = definitions.load(asked.own or None)
    chosen = [known[name] for name in asked.configurations if name in known]
    if asked.method == "switchback" and "settle" not in layer:
        settle = episodes.settle_of(chosen)
        asked = asked.model_copy(update={"settle": settle})
    made = plans.make(asked, known=known, cpus=cpus)
    if made.method == "switchback":
        why = episodes.standing(chosen) or episodes.cannot(made, state, target.steered(state))
        if not method:
            why = why or _better_isolated(made)
        if why and method:
            raise InvalidInput(f"method: switchback {why}: change that, or use --method isolated")
        if why:
            tell(f"method isolated: switchback {why}")
            made = plans.make(_asked(layer, defaults, "isolated"), known=known, cpus=cpus)
    if made.until_ci is not None and made.baseline not in made.configurations:
        raise InvalidInput(
            "until_ci: the baseline must be among the configurations: add it, name another one "
            f"(--baseline NAME), or leave {options.flag('until_ci')} out"
        )
    if made.until_ci is not None and BITRATE.name not in state.pairs[1].metrics:
        raise InvalidInput(
            f"until_ci: is about the bitrate, which traffic {made.traffic} does not measure: leave "
            f"{options.flag('until_ci')} out, or give --traffic mixed"
        )
    config.state("sweep", made.stack(made.configurations[0], max(made.replicas), path))
    if made.method == "switchback":
        words = episodes.unread(made.replicas, len(made.configurations), made.timing(1))
        if words:
            tell(words)
    return made


def _asked(layer: Mapping[str, Any], defaults: Mapping[str, Any], method: str) -> Options:
    """All options under a method."""
    asked = options.read({**defaults.get(method, {}), **layer, "method": method})
    if method == "switchback":
        asked = options.with_congestion(asked)
    if asked.own:
        asked = asked.model_copy(update={"own": str(Path(asked.own).resolve())})
    return asked


def _better_isolated(asked: Options) -> str:
    """Why switchback, which could measure these, is not the default for them."""
    if asked.baseline == NO_BASELINE or len(asked.configurations) == 1:
        return "compares within an episode, and nothing is compared"
    if asked.pod_cpu_limit:
        return "reads no throttling (--pod-cpu-limit)"
    way = Way(of_traffic(asked.traffic), "switchback", min(asked.replicas))
    limited = (parse_limit(text).metric for text in asked.limits)
    return next(
        (f"does not measure {one.name} (--limit)" for one in limited if not way.has(one)), ""
    )


def _refuse_unmeasured(asked: Options, method: Literal["isolated", "switchback"]) -> None:
    """Raise `InvalidInput` for a limit of a metric that this sweep cannot measure at each number of pairs."""
    way = Way(of_traffic(asked.traffic), method, min(asked.replicas))
    for text in asked.limits:
        metric = parse_limit(text).metric
        if not way.has(metric):
            raise InvalidInput(
                f"limit: {text}: {metric.name} is not measured with traffic {asked.traffic}, method {method} "
                f"and replicas {way.pairs}: give {_measuring(metric, way)}another limit"
            )


def _measuring(metric: Metric, way: Way) -> str:
    """The nearest way to measure a metric, if any, for the command line."""
    others = [(f"--traffic {name}", kind()) for name, kind in [*TRAFFIC.items()][::-1]]
    near = [
        ("--replicas without 1", way._replace(pairs=2)),
        ("--method isolated", way._replace(method="isolated")),
        *((words, way._replace(traffic=other)) for words, other in others),
    ]
    far = [
        (f"--method isolated {words}", Way(other, "isolated", way.pairs)) for words, other in others
    ]
    return next((f"{words}, or " for words, one in (*near, *far) if one.has(metric)), "")


def refuse_without_baseline(asked: Options) -> None:
    """Raise `InvalidInput` for a sweep without its baseline, unless that is wanted."""
    if asked.baseline not in (*asked.configurations, NO_BASELINE):
        raise InvalidInput(
            f"configurations: {asked.baseline} is not among {', '.join(asked.configurations)}, so "
            f"nothing could be compared: add it, compare with another (--baseline NAME), or "
            f"compare nothing (--baseline {NO_BASELINE})"
        )
