"""What a cell is named by: everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

from spring.code import Same, code_digest, modules_of

FORMAT = 4


def cell_key(module: str, **parts: Any) -> str:
    """sha256 of named parts, and of the code that `module` and the classes of the parts can reach.

    Parts are JSON values, or parameter models and dataclasses of them; a field of a dataclass that takes no
    part in comparisons takes none here. Of what JSON knows by another name (NamedTuple, StrEnum) the class is
    looked for in models and dataclasses alone.
    """
    modules = set[str]()

    def named(value: Any) -> Any:
        if hasattr(value, "model_dump"):
            own, standing = _named(Same(value))
            modules.update(own)
            return standing
        modules.update(modules_of(value))
        return as_json(value)

    plain = json.dumps(parts, sort_keys=True, default=named)
    code = code_digest(module, *sorted(modules - {module}))
    return hashlib.sha256(f"{FORMAT} {code} {plain}".encode()).hexdigest()


def as_json(value: Any) -> Any:
    """What JSON has no word for: parameter models and dataclasses."""
    if hasattr(value, "model_dump"):  # pydantic's: importing it takes longer than what asks for a key or two
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
    raise TypeError(f"{value!r} is no JSON value")


def fingerprint(value: Any, length: int = 12) -> str:
    """Short, stable name of any combination of parameter models and JSON values."""
    plain = json.dumps(value, sort_keys=True, default=as_json)
    return hashlib.sha256(plain.encode()).hexdigest()[:length]


@lru_cache(maxsize=256)
def _named(model: Same) -> tuple[set[str], str]:
    """Of a parameter model, which never changes and is in thousands of keys: its modules, and its sha256."""
    return modules_of(model.value), fingerprint(model.value, 64)
