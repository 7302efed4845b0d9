"""YAML files of users: read within limits, and changed without loss of comments and order."""

from __future__ import annotations

import codecs
import copy
import io
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from infra import keys, untrusted
from infra.errors import InvalidInput

# Bytes of a document: hundreds of configurations, parsed in half a second.
MOST_BYTES = 1 << 16
# Nodes of a document with all aliases expanded.
MOST_NODES = 100_000

_TEXT = "tag:yaml.org,2002:str"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# UTF-32 first: its mark begins with that of UTF-16.
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with three changes.

    A repeated key is an error (as in YAML 1.2, 3.2.1.3). Dates and numbers of base 60 (12:30) stay
    text. The size of a document with its aliases expanded is limited.
    """

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag = str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        if tag == _TIMESTAMP or (tag in _NUMBERS and ":" in value):
            return _TEXT
        return tag

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            check_size(node)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        # PyYAML's constructors fail so for !!int "", !!bool x, !!timestamp x, 4301 digits
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            words = f"this is not a valid {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is repeated", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor(_TIMESTAMP, yaml.SafeLoader.construct_yaml_str)  # type: ignore[type-var]


@lru_cache(maxsize=8)
def _document(text: str) -> Any:
    """Parsed once: an experiment reads its files again before each run."""
    check_levels(text)
    return yaml.load(text, Loader=_Loader)  # noqa: S506


def read(path: Path, what: str) -> Any:
    """The document in a file; `what` is the key or option with its path.

    Raises `InvalidInput` where it cannot be read, `FileNotFoundError` where there is none.
    """
    try:
        return copy.deepcopy(_document(_text(path)))
    except FileNotFoundError:
        raise
    except yaml.YAMLError as error:
        raise InvalidInput(f"{what}: {path} is not readable YAML: {_where(error)}") from None
    # ValueError: not UTF-8, or an invalid number
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}: {path} is not readable YAML: {error}") from None


def changed(
    path: Path, section: str, values: Mapping[tuple[str, ...], Any], removed: Iterable[str] = ()
) -> bytes:
    """The file's bytes with `values`, by their place, in one of its mappings; comments and order stay.

    The file must be one that `read` accepts, or none.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = MOST_BYTES  # no line is folded
    try:
        text = _text(path, MOST_BYTES // 2) if path.exists() else ""
        line_end = "\r\n" if text and b"\r\n" in untrusted.content(path) else "\n"
        document = editor.load(text)
    # the two parsers do not accept exactly the same documents
    except (YAMLError, OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be changed: {' '.join(str(error).split())}") from None
    if document is None:
        document = editor.map()
    if document.get(section) is None:
        document[section] = editor.map()
    for key in removed:
        document[section].pop(key, None)
    for (*above, last), value in values.items():
        within = document[section]
        for part in above:
            inner = keys.structure(within.get(part))  # JSON text becomes a mapping
            if inner is not within.get(part) or not isinstance(inner, dict):
                within[part] = inner if isinstance(inner, dict) else editor.map()
            within = within[part]
        within[last] = value
    written = io.StringIO()
    editor.dump(document, written)
    head = text if _only_comments(text) else ""  # the editor drops comments of an empty document
    return (head + written.getvalue()).replace("\n", line_end).encode()


def _only_comments(text: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())


def _text(path: Path, most: int = MOST_BYTES) -> str:
    content = untrusted.content(path, most)
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise ValueError(f"its encoding is {encoding}: save it as UTF-8")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def check_levels(text: str) -> None:
    """Raise ValueError for deeply nested brackets, which take the parser quadratic time."""
    level = 0
    for sign in re.findall(r"[\[\]{}]", text):
        level += 1 if sign in "[{" else -1
        if level > untrusted.MOST_LEVELS:
            raise ValueError(f"more than {untrusted.MOST_LEVELS} nested brackets")


def check_size(root: yaml.Node) -> None:
    """Raise ValueError where aliases are recursive or expand to more than `MOST_NODES`."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise ValueError("an alias refers to the node that contains it")
            return known
        sizes[id(node)] = None
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        total = 1 + sum(size(part) for part in parts)
        if total > MOST_NODES:
            raise ValueError(f"with its aliases expanded it has more than {MOST_NODES} nodes")
        sizes[id(node)] = total
        return total

    size(root)


def _where(error: yaml.YAMLError) -> str:
    """The fault in one line, with its place if known."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    said = getattr(error, "problem", None) or getattr(error, "context", None) or "a fault"
    tab = ": indent with spaces" if r"'\t'" in said else ""
    return f"{said}{tab} (line {mark.line + 1}, column {mark.column + 1})"
