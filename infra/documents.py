"""YAML that people write: whatever cannot be read is named, and so is a key that stands twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from infra.refusals import BadInput


class _EachKeyOnce(yaml.SafeLoader):
    """Of a repeated key YAML's own loader silently takes the last (YAML 1.2, 3.2.1.3 forbids it)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path, what: str) -> Any:
    """The document of a file; `what` is the key or option that names it.

    Raises `BadInput` where it cannot be read, `FileNotFoundError` where there is none.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)  # noqa: S506
    except FileNotFoundError:
        raise
    # ValueError: not UTF-8, and a date or number that only looks like one
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(f"{what}: {path} is not readable YAML: {error}") from None
