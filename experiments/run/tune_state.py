"""What a tuning is and how far it is, as its directory keeps it: options, arms, time, and who joined when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis import files
from analysis.metrics import METRICS
from experiments.run import options
from experiments.run.arms import Arm
from experiments.run.options import Options
from infra import untrusted
from infra.complaints import complaint
from infra.configurations import Configuration
from infra.errors import InvalidInput

FILE = "tune.json"
# The arms as a file of configurations, which the stack and the commands of the answer name.
ARMS = "arms.yaml"
MOST_MINUTES = 600
MOST_BYTES = 1 << 20
# Characters of a reason.
LONGEST = 2000

_Words = Annotated[str, Field(max_length=LONGEST)]


class Kept(BaseModel):
    """One arm: what it sets, by part and knob."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,99}$")]
    summary: _Words = ""
    settings: dict[str, dict[str, str | int]] = {}

    @classmethod
    def of(cls, arm: Arm) -> Self:
        settings = {key: value for key, value in arm.document.items() if key != "summary"}
        return cls(name=arm.name, summary=arm.summary, settings=settings)

    @property
    def words(self) -> str:
        """What it sets: `nic rps_cpus=all; machine rps_sock_flow_entries=32768`."""
        return "; ".join(
            f"{part} {', '.join(f'{knob}={word}' for knob, word in own.items())}"
            for part, own in self.settings.items()
        )

    @property
    def arm(self) -> Arm:
        settings = {
            (part, knob): word for part, own in self.settings.items() for knob, word in own.items()
        }
        return Arm(self.name, self.summary, settings)


class Joined(NamedTuple):
    """After so many episodes the arms from number `first` on joined the race."""

    episodes: int
    first: int


class TuneState(BaseModel):
    """A tuning. The baseline is the first arm.

    `by_change`: each window settles as long as its change needs; the option `settle` is the longest.
    `left_out` are arms with the reason. `used` is in seconds. `planned` is the number of episodes that
    confirm `recommended`; None while the race lasts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    options: dict[str, Any]
    minutes: Annotated[float, Field(gt=0, le=MOST_MINUTES, allow_inf_nan=False)]
    by: _Words
    generated: bool
    by_change: bool = False
    examined: bool = False
    arms: tuple[Kept, ...]
    left_out: tuple[tuple[str, _Words], ...] = ()
    joined: Joined | None = None
    used: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    planned: Annotated[int, Field(ge=0, le=100_000)] | None = None
    recommended: str | None = None

    @property
    def asked(self) -> Options:
        return options.of_kept(self.options)

    @property
    def digest(self) -> str:
        """Hash of what was asked for, which names the stack."""
        asked = [self.options, self.minutes, self.by, self.generated]
        text = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def names(self) -> list[str]:
        return [arm.name for arm in self.arms]

    def with_(self, **changes: Any) -> TuneState:
        return self.model_copy(update=changes)


def refuse_used(directory: Path) -> None:
    """Raise `InvalidInput` where a directory cannot be that of a new tuning."""
    for path in (directory, *directory.parents):
        if path.exists() and not path.is_dir():
            raise InvalidInput(f"out: {path} is not a directory: choose another one")
    if (directory / FILE).exists():
        raise InvalidInput(
            f"out: {directory} has a tuning already: continue it with --resume, or choose a new directory"
        )
    if directory.exists() and any(directory.iterdir()):
        raise InvalidInput(f"out: {directory} is not empty: choose a new directory")


def write_arms(directory: Path, arms: Iterable[Arm]) -> None:
    """The configurations of these arms; the baseline is the built-in one."""
    document = {arm.name: arm.document for arm in arms if arm.settings}
    files.write(directory / ARMS, yaml.safe_dump(document, sort_keys=False).encode())


def write(directory: Path, state: TuneState) -> None:
    """Keep a state, with its arms as configurations, which can be made from it again."""
    files.write(directory / FILE, (state.model_dump_json(indent=1) + "\n").encode())
    write_arms(directory, [one.arm for one in state.arms])


def read(directory: Path) -> TuneState:
    """The state in a directory. Raises `InvalidInput` where there is none."""
    path = directory / FILE
    try:
        document = untrusted.parsed(untrusted.content(path, MOST_BYTES))
        if not isinstance(document, dict):
            raise TypeError("it is not a mapping")
        state = TuneState.model_validate(document)
        asked = state.asked
    except FileNotFoundError:
        raise InvalidInput(f"resume: there is no tuning in {directory}") from None
    except ValidationError as error:
        raise InvalidInput(f"resume: {path}: {complaint(error, TuneState)}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"resume: {path} is not a tuning: {error}") from None
    try:
        for one in state.arms:
            one.arm.configuration  # noqa: B018 it is validated
    except ValidationError as error:
        raise InvalidInput(f"resume: {path}: {complaint(error, Configuration)}") from None
    if state.by not in METRICS:
        raise InvalidInput(f"resume: {path}: by: {state.by!r} is no metric")
    if len(state.arms) < 2 or len(asked.replicas) != 1 or len(asked.paths) != 1:
        raise InvalidInput(f"resume: {path} is not a tuning: it has nothing to race")
    return state
