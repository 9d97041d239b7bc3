"""Which way a model reads rows, and what its texts may share a call with.

    packed   rows behind one another, without padding, through attention of our own (attention.py): faster
    padded   rows as [R, T] through the model's own attention and cache (padded.py): for every other model

A model's road is found once by trying (survey.py) and kept with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from spring.engine.heads import PLAIN, Finish, Head
from spring.engine.layers import leaf
from spring.engine.weights import ModelError

# How answers go on, on the padded road: by the model's own cache, whose rows are chosen by `reorder_cache` or
# `batch_select_indices`; the first without a mask in single steps; or without a cache, all read again.
Steps = Literal["reorder", "unmasked", "select", "again"]
CACHED: tuple[Steps, ...] = ("reorder", "unmasked", "select")


@dataclass(frozen=True)
class Rope:
    """Rotary frequencies that depend on the longest row of a call (longrope, dynamic rope)."""

    limit: int  # tokens up to which they do not
    sides: bool  # longrope: one other set beyond it; else one for every length

    def group(self, tokens: int) -> int:
        """Rows of one group have the same frequencies."""
        return 0 if tokens <= self.limit else 1 if self.sides else tokens


@dataclass(frozen=True)
class Road:
    """How rows of a model are read."""

    padded: bool = False
    steps: Steps = "reorder"
    equal: bool = False  # prompts in a cache have equal lengths: padding before them would change them
    alone: bool = False  # one row in a call: neighbours would change it
    rope: Rope | None = None
    finish: Finish = PLAIN
    layers: frozenset[str] = frozenset()  # last parts of the names of layers that adapters may lie on

    @property
    def plain(self) -> bool:
        """Whether rows may share calls, and beginnings, whatever their lengths."""
        return not (self.padded or self.alone or self.rope)

    def split(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of so many tokens, by those that may share a call."""
        if self.alone:
            return [[i] for i in range(len(lengths))]
        if self.rope is None:
            return [list(range(len(lengths)))]
        groups: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            groups.setdefault(self.rope.group(length), []).append(i)
        return list(groups.values())

    def split_prompts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Prompts of so many tokens, by those that may share a cache."""
        parts = self.split(lengths)
        if not self.equal:
            return parts
        return [[i for i in part if lengths[i] == n] for part in parts for n in {lengths[i] for i in part}]

    def for_answers(self, longest: int) -> Road:
        """The road for prompts of which the longest, with all that may come behind it, has so many tokens.

        Packed rows go on in one call whatever their lengths: beyond the limit of its frequencies a model
        takes the padded road.
        """
        beyond = self.rope is not None and longest > self.rope.limit
        return replace(self, padded=True) if beyond else self

    def goes_on(self, prompt: int, most: int) -> bool:
        """Whether a prompt of so many tokens and up to `most` behind it can be kept in a cache."""
        if self.steps == "again":
            return False
        return self.rope is None or self.rope.group(prompt) == self.rope.group(prompt + most)

    def __str__(self) -> str:
        said = "padded" if self.padded else "packed"
        if self.padded and self.steps == "again":
            said += ", answers without a cache"
        if self.padded and self.equal:
            said += ", prompts of equal lengths together"
        if self.alone:
            said += ", one text at a time"
        if self.rope is not None:
            beyond = "apart from shorter ones" if self.rope.sides else "by equal lengths"
            said += f", texts beyond {self.rope.limit} tokens {beyond}"
        return said

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return asdict(self) | {"layers": sorted(self.layers)}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Road:
        """The road that was kept."""
        rope = said["rope"] and Rope(**said["rope"])
        made = {"rope": rope, "finish": Finish(**said["finish"]), "layers": frozenset(said["layers"])}
        return cls(**{**said, **made})


def set_road(model: Any, road: Road, names: Iterable[str] | None = None) -> None:
    """Keeps the road with its model, and the names of the linear layers that texts come through."""
    model.spring_road = road
    if names is not None:
        model.spring_layers = tuple(names)


def adaptable(model: Any) -> list[str]:
    """Names of the layers that adapters may lie on."""
    layers = road_of(model).layers
    return [name for name in model.spring_layers if leaf(name) in layers]


def road_of(model: Any) -> Road:
    """The road of a model that was surveyed."""
    found = getattr(model, "spring_road", None)
    if not isinstance(found, Road):
        raise ModelError(
            f"nobody has looked how a {type(model).__name__} reads rows: call spring.engine.survey.survey"
        )
    return found


def head(model: Any) -> Head:
    """The output layer [D -> V] and what follows it."""
    return Head(model.get_output_embeddings(), road_of(model).finish)


# --- rotary frequencies -----------------------------------------------------------------------------------


def find_rope(model: Any) -> Rope | None:
    """What the frequencies of a model depend on, as transformers' rotary modules say."""
    for module in model.modules():
        for layer, kind in _kinds(module).items():
            if "dynamic" in kind:
                return Rope(int(module.original_max_seq_len), sides=False)
            if kind == "longrope":
                given = module.config.rope_parameters
                given = given if layer is None else given[layer]
                return Rope(int(given["original_max_position_embeddings"]), sides=True)
    return None


def forget(model: nn.Module) -> None:
    """Makes dynamic frequencies those of short texts: they remember the longest text of earlier calls."""
    for module in model.modules():
        for layer, kind in _kinds(module).items():
            if "dynamic" in kind:
                at = torch.zeros(1, 1, dtype=torch.long, device=next(module.buffers()).device)
                module(at.float()[..., None], at, *([layer] if layer else []))


def _kinds(module: nn.Module) -> dict[str | None, str]:
    """The kind of a rotary module's frequencies; of several, by kind of layer."""
    kind = getattr(module, "rope_type", None)
    if isinstance(kind, dict):
        return {layer: str(one) for layer, one in kind.items()}
    return {None: kind} if isinstance(kind, str) else {}
