"""What parameter models are made of: refusal of unknown keys, and ranges that come up often."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Strict(BaseModel):
    """Rejects unknown keys, infinite numbers, and changes after construction.

    Each stage uses few of the many models by themselves: what checks values is made on first use.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, allow_inf_nan=False)


def nearest(name: object, known: Iterable[str]) -> str:
    """What was probably meant by an unknown name, as a question; nothing where none of `known` is near."""
    near = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""


def added(silent: Any) -> Any:
    """A key that came after results existed: at `silent` it is left out of fingerprints and cell keys.

    So results from before it stay valid, and arms that do not use it keep their adapters; in parameter files
    from before it, it is `silent`.
    """
    return Field(default=silent, exclude_if=lambda value: value == silent)
