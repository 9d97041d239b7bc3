"""Reading YAML files of parameters: plain values, and every key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from spring.settings.params import ParameterError


class _EveryKeyOnce(yaml.SafeLoader):
    """Refuses a key that stands twice; YAML itself lets the last one win, and an arm would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}  # (type, text) of each key -> where it stands
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                raise yaml.YAMLError(
                    f"the key {key.value!r} stands twice, on lines {lines[name]} and {line}; keep one"
                )
            lines[name] = line
        return super().construct_mapping(node, deep=deep)


def read_tree(path: Path) -> Any:
    """The values of a YAML file; raises `ParameterError` for one that cannot be read as such."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_EveryKeyOnce)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date like 2026-02-30
        raise ParameterError(f"{path} is not valid YAML in UTF-8: {error}") from None
