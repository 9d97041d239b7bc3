"""Reading YAML files of parameters: plain values, and every key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unicodedata import category, name

import yaml

from spring.settings.params import ParameterError

# What PyYAML says -> in words, with the remedy; and in what it names the place where something began.
FAULTS = {
    "mapping values are not allowed here": "has a colon where none may be: indent it like the others, "
    "put quotes around a text with a colon, or give the line before its own colon",
    "could not find expected ':'": "lacks the colon behind its key",
    "expected <block end>": "is not in line with what stands above it: indent it like the keys around it",
    "expected ',' or": "opens a bracket that is not closed",
    "found unexpected end of stream": "opens a quote that is not closed",
}
UNSEEN = ("Zs", "Cf", "Cc")  # Unicode's categories of blanks, formats and controls
OPEN = ("while parsing a flow", "while scanning a quoted", "while scanning a simple key")


class _EveryKeyOnce(yaml.SafeLoader):
    """Refuses a key that stands twice; YAML itself lets the last one win, and an arm would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}  # (type, text) of each key -> where it stands
        for key, _ in node.value:
            own, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if own in lines:
                raise yaml.YAMLError(
                    f"the key {key.value!r} stands twice, on lines {lines[own]} and {line}; keep one"
                )
            lines[own] = line
        return super().construct_mapping(node, deep=deep)


def read_tree(path: Path) -> Any:
    """The values of a YAML file; raises `ParameterError` for one that cannot be read as such."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=_EveryKeyOnce)
    except yaml.MarkedYAMLError as error:
        raise ParameterError(f"{path} is not valid YAML, nothing was run:\n{fault(error, text)}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date like 2026-02-30
        raise ParameterError(f"{path} is not valid YAML in UTF-8, nothing was run:\n  {error}") from None


def fault(error: yaml.MarkedYAMLError, text: str) -> str:
    """The line that cannot be read, and why: of what PyYAML says, the place where a reader would mend it."""
    problem = error.problem or str(error)
    began = error.context_mark if (error.context or "").startswith(OPEN) else None
    mark = began or error.problem_mark
    why = next((words for start, words in FAULTS.items() if problem.startswith(start)), problem)
    if mark is None:
        return f"  {why}"
    line = text.split("\n")[mark.line].rstrip()
    if odd := next((sign for sign in line if sign != " " and category(sign) in UNSEEN), None):
        why = f"has a {name(odd, 'tab').lower()}: YAML takes plain blanks only"
    return f"  line {mark.line + 1}: {line.strip()[:80]}\n  {why}"
