"""Kinds of traffic: a kind is one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from infra.complaints import complaint, shown
from infra.errors import InvalidInput
from infra.traffic.contract import Traffic
from infra.traffic.mixed import Mixed
from infra.traffic.rr import Rr
from infra.traffic.stream import Stream
from infra.traffic.udp import Udp

TRAFFIC: Mapping[str, type[Traffic]] = {kind.name: kind for kind in (Stream, Udp, Rr, Mixed)}
# Program -> Debian package, of all kinds.
PROGRAMS = {tool: package for kind in TRAFFIC.values() for tool, package in kind().programs.items()}
DEFAULT = str(Stream())


def of(text: str) -> Traffic:
    """The traffic of a value of the key `traffic`: a kind, with options as `kind:name=value,...`.

    Raises `InvalidInput` for an unknown kind or option.
    """
    name, _, options = text.partition(":")
    if name not in TRAFFIC:
        raise InvalidInput(f"traffic: must be one of {', '.join(TRAFFIC)}, not {shown(name)}")
    pairs = [option.partition("=") for option in options.split(",") if option]
    given = {key: value if equals else None for key, equals, value in pairs}
    if len(given) != len(pairs):
        raise InvalidInput(f"traffic: {shown(text)}: has an option twice; remove one of them")
    try:
        return TRAFFIC[name].model_validate(given)
    except ValidationError as error:
        raise InvalidInput(f"traffic: {name}: {complaint(error, TRAFFIC[name])}") from None


# The value of the key in its shortest form, so that one traffic has one name. The default is left
# out of documents: the digest of a stack from before the key stays the same.
Named = Annotated[
    str,
    AfterValidator(lambda text: str(of(text))),
    Field(
        description="Traffic of each pair: a kind, and options as kind:name=value,name=value",
        exclude_if=lambda text: text == DEFAULT,
    ),
]
