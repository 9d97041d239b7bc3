"""What is wrong with a parameter file, in words: a line per bad key, with its value and what is allowed.

The first `MOST` of them: one mistake often breaks many keys, and the first says enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from spring.engine.strict import nearest

UNKNOWN, MISSING = "extra_forbidden", "missing"  # pydantic's types of errors
# where null may be what was meant
CHOICES = ("literal_error", "union_tag_invalid", "model_type", "model_attributes_type")
BLOCKS = ("model_type", "model_attributes_type", "dict_type")
SAID = re.compile(r"^(Input|String|List|Tuple|Dictionary|Value) should ")  # how pydantic begins
# at the end of a place: pydantic's mark of a member of a union of plain types
MEMBER = re.compile(r"literal\[.*\]|(constrained-)?(int|float|str|bool)")
MOST = 3
Place = tuple[str | int, ...]


def complaints(
    error: ValidationError, model: type[BaseModel], *, written: Callable[[Place], Place] = lambda place: place
) -> str:
    """One line per error of `model`'s validation, one for a value that many arms have from one place.

    `written` says where the file has what was checked at a place.
    """
    lines: dict[str, list[str]] = {}  # what is wrong -> what would be right, each once
    for item in error.errors():
        *above, last = item["loc"] or ("",)
        place = tuple(above) if MEMBER.fullmatch(str(last)) else item["loc"]
        key = ".".join(str(part) for part in written(place))
        if item["type"] == UNKNOWN:
            lines[f"  {key}: no such key; {instead(place, model)}"] = []
        elif item["type"] == MISSING:
            lines[f"  {key} is missing"] = []
        else:
            value = "" if isinstance(item["input"], (dict, BaseModel)) else f" is {item['input']!r}:"
            null = ", or null" if item["type"] in CHOICES and NoneType in at(place, model) else ""
            allowed = lines.setdefault(f"  {key}{value}".rstrip() or " ", [])  # no key: the whole file
            said = "must be a block of keys" if item["type"] in BLOCKS else SAID.sub("must ", item["msg"])
            said = said.removeprefix("Value error, ") + null
            if said not in allowed:
                allowed.append(said)
    return first_of([" ".join([wrong, ", or: ".join(allowed)]).rstrip() for wrong, allowed in lines.items()])


def first_of(lines: list[str]) -> str:
    """`MOST` lines at most; of more, the last says how many."""
    if len(lines) <= MOST:
        return "\n".join(lines)
    return "\n".join([*lines[: MOST - 1], f"  and {len(lines) - MOST + 1} more"])


def holds(tree: Any, place: Place) -> bool:
    """Whether parsed YAML has a key; parts of `place` that mark a union's members (`cope`) are in no file."""
    if not isinstance(tree, dict) or place[0] not in tree:
        return False
    for part in place[:-1]:
        tree = tree.get(part, tree) if isinstance(tree, dict) else tree
    return isinstance(tree, dict) and place[-1] in tree


def instead(place: Sequence[str | int], model: type[BaseModel]) -> str:
    """What to write for an unknown key: the nearest of those allowed there, or the block where it belongs."""
    *above, last = place
    allowed = sorted(fields(at(above, model)))
    if near := nearest(last, allowed):
        return near
    homes = [name for name in allowed if last in fields(at([*above, name], model))]
    return f"it belongs in {homes[0]}" if homes else f"allowed are {', '.join(allowed)}"


def at(place: Iterable[str | int], model: type[BaseModel]) -> set[Any]:
    """The types that a key may have: its field's, followed from the top.

    Parts that are no fields are names in a mapping, or pydantic's marks of a union's members (`cope`).
    """
    here: set[Any] = {model}
    for part in place:
        inner = fields(here)
        if part in inner:
            here = members(inner[str(part)])
        else:
            here = {kind for kind in here if (part,) in map(get_args, fields([kind]).values())} or here
    return here


def fields(types: Iterable[Any]) -> dict[str, Any]:
    """Name -> annotation of the fields of all models among `types`."""
    models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {name: field.annotation for kind in models for name, field in kind.model_fields.items()}


def members(annotation: Any) -> set[Any]:
    """The plain types that an annotation is made of."""
    inner = get_args(annotation)
    return {annotation} if not inner else set().union(*(members(part) for part in inner if part != ...))
