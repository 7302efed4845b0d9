"""The options of a sweep, as one model.

The command line, YAML matrices, kept plans, `--resume` and the command that repeats a sweep are
derived from it: a new option is a new field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel, to_snake

from agent.knobs import SETTLE_S
from analysis import limits
from experiments.engines import stacks
from infra.complaints import complaint, unknown_key, whole
from infra.errors import InvalidInput
from infra.settings import Omit, Quota, Replicas, Seconds, Streams
from infra.traffic import DEFAULT, Named
from infra.traffic import of as of_traffic
from infra.traffic.stream import SWITCHED, Stream, StreamOptions

# The options that apply to one method alone.
OWN = {"isolated": ("duration", "omit"), "switchback": ("window", "settle")}
WINDOW_S = 0.4
CUBIC = str(Stream(congestion=SWITCHED))


class Option(NamedTuple):
    """How the command line shows a field, and the key of a stack that it sets, if any.

    `many` may be repeated.
    """

    metavar: str
    key: str = ""
    short: str = ""
    many: bool = False


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of one or more, or separated by commas")
    return tuple(value)


def _once(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must not name one of them twice")
    return value


def _settings(value: Any) -> Any:
    if not isinstance(value, Mapping | tuple):
        raise ValueError("must map keys to values")
    try:
        texts = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in dict(value).items()}
    except TypeError:
        raise ValueError("must map keys to text, numbers, lists or mappings") from None
    for key in texts:
        if key in decided():
            raise ValueError(f"{key} is an option of the sweep itself: {decided()[key]}")
    return tuple(sorted(texts.items()))


def _limits(value: Any) -> tuple[str, ...]:
    """The limits in one spelling; an unknown metric or form is refused here, before a run."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"must be texts such as {limits.FORMS}")
    return tuple(map(str, limits.parse_all(texts)))


Listed, Once = BeforeValidator(_listed), AfterValidator(_once)


class Options(BaseModel):
    """The options of a sweep. The text below a field is its help.

    A field that plans of the first version lack has `exclude_if` for its default.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True
    )

    configurations: Annotated[tuple[str, ...], Listed, Once, Option("NAMES")]
    """Configurations to measure, separated by commas"""
    replicas: Annotated[tuple[Replicas, ...], Listed, Once, Option("COUNTS")]
    """Numbers of pairs, separated by commas"""
    blocks: Annotated[int, whole(1, 10_000), Option("N")] = Field(alias="runs")
    """Runs of each configuration and number of pairs"""
    duration: Annotated[Seconds, Option("SECONDS")] = Field(
        default=5, description="Of isolated runs: measured seconds of a run"
    )
    omit: Annotated[Omit, Option("SECONDS")] = Field(
        default=1, description="Of isolated runs: seconds of traffic before the measurement"
    )
    streams: Annotated[Streams, Option("N")] = 1
    traffic: Annotated[Named, Option("TRAFFIC", key="traffic")] = DEFAULT
    paths: Annotated[tuple[Literal["overlay", "host"], ...], Listed, Once, Option("PATHS")] = Field(
        default=("overlay",), alias="path"
    )
    """Network paths: overlay, host, or overlay,host"""
    own: Annotated[str, Option("FILE", key="configurations")] = ""
    """YAML file with further configurations"""
    pod_cpu_limit: Annotated[Quota, Option("QUOTA", key="podCpuLimit")] = ""
    target: Annotated[str, Option("TARGET", key="target")] = ""
    """Where to run: lab (this machine) or kubernetes (a cluster)"""
    config: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(_settings),
        Option("KEY=VALUE", short="-c", many=True),
    ] = ()
    """Any other key of a stack (docs/configuration.md); may be repeated"""
    until_ci: Annotated[float | None, Option("FRACTION")] = Field(
        default=None, ge=0.001, le=1, allow_inf_nan=False
    )
    """Stop measuring a configuration when the 95 % interval of its ratio is within ± this
    fraction, for example 0.05"""
    isolation: Annotated[Literal["incremental", "fresh"], Option("HOW")] = "incremental"
    """incremental: pods stay and steering changes; fresh: a new lab for each run"""
    seed: Annotated[int, whole(-(10**18), 10**18), Option("NUMBER")]
    """Seed of the random order"""
    baseline: Annotated[str, Option("NAME")] = Field(
        default="baseline", exclude_if=lambda name: name == "baseline"
    )
    """Configuration to compare with; none: no comparison"""
    limits: Annotated[tuple[str, ...], BeforeValidator(_limits), Option("LIMIT", many=True)] = (
        Field(default=(), alias="limit", exclude_if=lambda limits: not limits)
    )
    """Worst value of a metric that is accepted: p99_us=+10% (relative to the baseline), p99_us=+20
    (difference) or p99_us=200. A configuration that exceeds it is not recommended. May be repeated,
    or several separated by commas"""
    method: Annotated[Literal["isolated", "switchback"], Option("HOW")] = Field(
        default="isolated", exclude_if=lambda method: method == "isolated"
    )
    """switchback: an episode measures all configurations in turn under the same connections, with
    CUBIC unless --traffic names another congestion control, and --runs is the number of episodes;
    isolated: each run has connections of its own. Default: switchback, where it can measure all
    configurations"""
    window: Annotated[float, Option("SECONDS")] = Field(
        default=WINDOW_S, ge=0.1, le=60, allow_inf_nan=False, exclude_if=lambda s: s == WINDOW_S
    )
    """Of switchback: measured seconds of each configuration in an episode"""
    settle: Annotated[float, Option("SECONDS")] = Field(
        default=SETTLE_S, ge=0, le=60, allow_inf_nan=False, exclude_if=lambda s: s == SETTLE_S
    )
    """Of switchback: seconds between a change of the steering and the measured seconds. Default: the
    longest settle time of the knobs that change (docs/agent.md)"""

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The keys of the sweep's stack that are the same for all its runs."""
        keyed = [
            (option.key, str(getattr(self, field)))
            for field, option in declared()
            if option.key and getattr(self, field) != Options.model_fields[field].default
        ]
        return tuple(sorted([*keyed, *self.config]))

    def stack(self, configuration: str, replicas: int, path: str) -> dict[str, str]:
        """The configuration values of the sweep's stack; an episode does not use its seconds."""
        duration, omit = (self.duration, self.omit) if self.method == "isolated" else (1, 0)
        return {
            **dict(self.settings),
            "configuration": configuration,
            "replicas": str(replicas),
            "lab.path": path,
            "runs": "0",
            "duration": str(duration),
            "omit": str(omit),
            "streams": str(self.streams),
        }


def declared() -> list[tuple[str, Option]]:
    """Each field and how it is shown."""
    return [
        (name, next(part for part in field.metadata if isinstance(part, Option)))
        for name, field in Options.model_fields.items()
    ]


def alias(field: str) -> str:
    """The field in YAML, in camelCase as the keys of a stack."""
    known = Options.model_fields.get(field)
    return known.alias or field if known else field


def flag(field: str) -> str:
    """`--pod-cpu-limit`, the field on the command line."""
    return "--" + to_snake(alias(field)).replace("_", "-")


def decided() -> dict[str, str]:
    """The keys of a stack that an option of the sweep sets, and that option."""
    names = {alias(field): flag(field) for field, _ in declared()}
    keyed = {option.key: flag(field) for field, option in declared() if option.key}
    others = {"configuration": flag("configurations"), "lab.path": flag("paths")}
    return names | keyed | others


def layer(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by field, from any spelling: `podCpuLimit` and `pod_cpu_limit`, `runs` and `blocks`.

    Raises `InvalidInput` for an unknown name.
    """
    fields = {
        name: field
        for field in Options.model_fields
        for name in (field, alias(field), to_snake(alias(field)))
    }
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise InvalidInput(unknown_key(name, map(alias, Options.model_fields)))
        found[fields[name]] = value
    config = found.get("config")
    if isinstance(config, list) and all(isinstance(word, str) for word in config):
        config = stacks.changes(config)
    if isinstance(config, Mapping):
        found["config"] = {key: value for key, value in config.items() if key != "target"}
        target = config.get("target", found.get("target"))
        if target is not None and found.setdefault("target", target) != target:
            raise InvalidInput("target: --target and -c target= differ")
    return found


def method_of(layer: Mapping[str, Any]) -> str | None:
    """The method that a layer names or has an option of; None if it has neither.

    Raises `InvalidInput` for an option of the other method.
    """
    owners = {name: method for method, names in OWN.items() for name in names if name in layer}
    method: str | None = layer.get("method", next(iter(owners.values()), None))
    for name, owner in owners.items():
        if method in tuple(OWN) and method != owner:
            raise InvalidInput(
                f"{name}: applies to --method {owner}, not to {method}: leave {flag(name)} out, or "
                f"give --method {owner} without {' and '.join(map(flag, OWN[method]))}"
            )
    return method


def given(options: Options) -> dict[str, Any]:
    """The layer of exactly these options."""
    own = {name for method, names in OWN.items() if method != options.method for name in names}
    return {name: getattr(options, name) for name in Options.model_fields if name not in own}


def read(given: Mapping[str, Any]) -> Options:
    """The options of a layer. Raises `InvalidInput` naming the option and what is allowed."""
    try:
        return Options.model_validate({alias(field): value for field, value in given.items()})
    except ValidationError as error:
        raise InvalidInput(complaint(error, Options)) from None


def with_congestion(options: Options) -> Options:
    """The same with a congestion control for each sender: a window needs a known one."""
    wanted = of_traffic(options.traffic)
    if not isinstance(wanted, StreamOptions) or wanted.congestion:
        return options
    named = wanted.model_copy(update={"congestion": SWITCHED})
    return options.model_copy(update={"traffic": str(named)})


def kept(options: Options) -> dict[str, Any]:
    """The options as a plan keeps them."""
    keyed = {field for field, option in declared() if option.key or field == "config"}
    fields = Options.model_fields.keys() - keyed
    return {**options.model_dump(mode="json", include=fields), "settings": options.settings}


def of_kept(document: Mapping[str, Any]) -> Options:
    """The options of a kept plan; what else it holds is ignored."""
    settings = dict(document["settings"])
    keyed = {
        field: settings.pop(option.key)
        for field, option in declared()
        if option.key and option.key in settings
    }
    ours = {field: document[field] for field in Options.model_fields if field in document}
    return read({**ours, **keyed, "config": settings})


def words(options: Options) -> list[str]:
    """The command-line arguments for exactly these options."""
    layer = given(options)
    usual = {name: Options.model_fields[name].default for name in layer} | {"method": None}
    if options.method == "switchback":
        usual["traffic"] = CUBIC
        if options.own:  # whose knobs decide on the settle time
            usual["settle"] = None
    return [
        word
        for field, option in declared()
        if field in layer and layer[field] != usual[field]
        for text in _texts(layer[field])
        for word in _option(option.short or flag(field), text)
    ]


def _texts(value: Any) -> Iterator[str]:
    """One text, or one for each pair of key and value."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        yield from (f"{key}={text}" for key, text in value)
    elif isinstance(value, tuple):
        yield ",".join(map(str, value))
    else:
        yield str(value)


def _option(name: str, text: str) -> list[str]:
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
