"""The engine's settings: which model, what an adapter is, how it learns, how answers are decoded."""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation

from spring.engine.queries import Join
from spring.engine.rules import Method
from spring.engine.strict import PositiveInt, Share, Strict, added

DATE = datetime.date(2026, 1, 1)
Settings = TypeVar("Settings", bound=Strict)


def _plain(value: Any) -> Any:
    """A value that JSON has a word for; a date without quotes, say, is none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must be text, a number, true, false, null, or lists or blocks of these") from None
    return value


Plain = Annotated[Any, AfterValidator(_plain)]


class Model(Strict):
    """The frozen base model and how it is run."""

    id: str  # `smollm2-135m-instruct` (packaged), a hub id, or a folder
    revision: str | None
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "bfloat16", "float32"]
    embedding: str  # sentence embeddings: `all-minilm-l6-v2` (packaged), a hub id, or a folder
    max_length: PositiveInt  # tokens of prompt and response; longer responses are cut. Context adds to it
    memory_gb: Annotated[float, Field(gt=0)]  # bounds the tokens of one batch
    road: Annotated[Literal["auto", "packed", "padded"], added("auto")]  # how its rows are read (roads.py)
    date: Annotated[datetime.date, added(DATE)]  # "today" to a chat template that reads the clock
    chat_template_kwargs: Annotated[dict[str, Plain], added({})]  # what the chat template is given besides


class Lora(Strict):
    """Low-rank adapters (arXiv 2106.09685)."""

    r: PositiveInt
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: tuple[str, ...] = Field(min_length=1)
    stored: Annotated[Literal["float32", "bfloat16"], added("float32")] = "float32"  # not: learned in


class Learning(Strict):
    """How an adapter learns the texts of a lesson: AdamW, linear decay after a warm-up."""

    model_config = ConfigDict(arbitrary_types_allowed=True)  # `rule` is whatever keeps to the protocol

    lora: Lora
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_ratio: Share
    epochs: PositiveInt
    batch_size: PositiveInt
    grad_clip: Annotated[float, Field(gt=0)] | None
    replay_share: Annotated[float, Field(ge=0, lt=1)]  # of each batch, drawn from what is replayed
    rule: SkipValidation[Method | None] = None  # what training does besides; null: nothing


class Decoding(Strict):
    """How a response is written, token by token, greedily."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    repetition_penalty: Annotated[float, Field(ge=1)]
    max_new_tokens: PositiveInt
    join: SkipValidation[Join]  # how the paths of a query become one


def only(kind: type[Settings], wider: Any) -> Settings:
    """The settings of `kind` out of those of a class that has more."""
    return kind(**{name: getattr(wider, name) for name in kind.model_fields})
