"""Parts of the method that are chosen by name: what an entry says of itself, and settings that name one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

# What a part reads, and so what an arm that uses it pays for: likelihoods under the base model, or under the
# user's adapter; sentence embeddings, which are made for those alone that read them.
Reads = Literal["base", "adapter", "embeddings"]


def one_of(registry: Mapping[str, Any]) -> BeforeValidator:
    """For a setting that is a name in `registry`: others are refused as by a `Literal` of the names there."""

    def known(value: Any) -> Any:
        if isinstance(value, str) and value in registry:
            return value
        *names, last = map(repr, registry)
        expected = f"{', '.join(names)} or {last}" if names else last
        raise PydanticKnownError("literal_error", {"expected": expected})

    return BeforeValidator(known)
