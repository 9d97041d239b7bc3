"""Finding a model's road by trying (trials.py): nothing is assumed from its name.

The first road that gives what each row alone gives is taken. It is looked for on a small float32 model: a
large one has the road of its twin (twins.py), where neither size nor bfloat16 hides a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spring.engine.budget import out_of_memory
from spring.engine.forward import use_attention
from spring.engine.heads import PLAIN, Finish, Head, find_finish
from spring.engine.layers import decoded, leaf, reached
from spring.engine.parallel import one_core
from spring.engine.roads import CACHED, Road, find_rope, road_of, set_road
from spring.engine.trials import LENGTHS, REFUSED, STRICT, Row, Trial, alone, rows_of, score
from spring.engine.twins import TwinError, twin
from spring.engine.weights import ModelError, one_line

COARSE = 0.1  # mean difference in bfloat16, as a share of the logits' spread; a wrong model's is near 1
SHORT = (9, 5)  # tokens of the rows that a model itself is tried with, once its twin has been


class RefusedError(ModelError):
    """No road gives what the model alone gives."""


def survey(model: Any, *, asked: str = "auto") -> Road:
    """Looks for the road of a small float32 model, on the model itself, and keeps it there.

    asked: `auto`, `packed` or `padded`. Raises `RefusedError` with what was tried and what came of it.
    """
    use_attention(model, packed=False)
    road, names, trial = _beginning(model)
    tried = dict[str, str]()
    for way, further in _ways(road, asked):
        set_road(model, way, names)
        if said := trial.reads():
            tried.setdefault(said, str(way))
            continue
        for steps in further:
            set_road(model, replace(road_of(model), **steps))
            said = trial.goes_on()
            if said is None:
                return road_of(model)
            tried.setdefault(said, str(road_of(model)))
    all_ = "; ".join(f"{way}: {said}" for said, way in tried.items())
    remedy = "use another model" if asked == "auto" else "take model.road: auto"
    raise RefusedError(f"{type(model).__name__} gives other numbers in batches than alone: {all_}; {remedy}")


def survey_twin(config: Any, *, asked: str = "auto") -> Road:
    """The road of all models of a configuration, found on a small random one of the same making."""
    with _quiet(), one_core():
        try:
            model = twin(config)
        except TwinError as error:
            said = f"no small model of {config.model_type} can be made to try it: {error}"
            raise RefusedError(said) from error
        return survey(model, asked=asked)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block transformers warns of nothing: it would be of a twin's numbers, which nobody chose."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def adopt(model: Any, road: Road) -> None:
    """Keeps a road that was found on a twin, once two short texts of the model itself agree with it."""
    use_attention(model, packed=False)
    rows, bound = rows_of(model, SHORT), STRICT if model.dtype == torch.float32 else COARSE
    try:
        expected, names = [alone(model, row) for row in rows], list(reached(model))
        finish = _finish(model, rows[0], expected[0], bound, like=road.finish)
    except REFUSED as error:
        if isinstance(error, RefusedError) or out_of_memory(error):
            raise
        dtype = str(model.dtype).removeprefix("torch.")
        other = "" if model.dtype == torch.float32 else "; take model.dtype: float32, or another model"
        raise RefusedError(
            f"{type(model).__name__} cannot be called in {dtype} on {model.device}: {one_line(error)}{other}"
        ) from error
    layers = road.layers & set(map(leaf, names))
    set_road(model, replace(road, finish=finish, layers=layers, rope=find_rope(model)), names)
    try:
        found = torch.cat(score(model, rows, [-1] * len(rows)))
        off = float((found - torch.cat(expected)).square().mean().sqrt() / torch.cat(expected).std())
        said = None if off < bound else f"its logits are off by {off:.2g} of their spread"
    except REFUSED as error:
        if out_of_memory(error):
            raise
        said = one_line(error)
    if said is not None:
        other = "model.road: auto" if road.padded else "model.road: padded"
        raise RefusedError(
            f"{type(model).__name__} cannot be read {road}, as its small twin can: {said}; take {other}, or "
            f"another model"
        )


def _finish(model: Any, row: Row, logits: Tensor, bound: float, *, like: Finish | None = None) -> Finish:
    """What the model does to its logits, which it has for a row; `like` what its twin does."""
    with torch.inference_mode():
        ids = torch.tensor([row], device=model.device)
        hidden = decoded(model, input_ids=ids, use_cache=False).last_hidden_state[0]
        raw = Head(model.get_output_embeddings(), PLAIN)(hidden)
    finish = find_finish(model.config, raw, logits, bound, like=like)
    if finish is None:
        raise RefusedError(f"{type(model).__name__} changes its logits in a way that is not known")
    return finish


def _beginning(model: Any) -> tuple[Road, list[str], Trial]:
    """What all roads of a model have in common, the layers that texts come through, and who tries them."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise RefusedError(f"{type(model).__name__} has an encoder; only decoder-only models can be used")
    try:
        rope = find_rope(model)
        row = rows_of(model, [min(max(LENGTHS), rope.limit) if rope else max(LENGTHS)])[0]
        logits, names = alone(model, row), list(reached(model))
        off = (alone(model, row[:-2]) - logits[:-2]).abs().max() / logits.std()
        finish = _finish(model, row, logits, STRICT) if off < COARSE else None
        trial = Trial(model)
    except REFUSED as error:
        if isinstance(error, RefusedError) or out_of_memory(error):
            raise
        said = f"{type(model).__name__} cannot be called as a decoder: {one_line(error)}"
        raise RefusedError(said) from error
    if finish is None:
        raise RefusedError(f"{type(model).__name__} looks at tokens that come later: it is no causal model")
    return Road(rope=rope, finish=finish, layers=frozenset(map(leaf, names))), names, trial


def _ways(road: Road, asked: str) -> Iterator[tuple[Road, list[dict[str, Any]]]]:
    """Roads to try, the fastest first, each with the ways in which answers may go on there."""
    if asked in ("auto", "packed"):
        yield road, [{}]
    if asked in ("auto", "padded"):
        for alone_ in (False, True):
            lengths = (False,) if alone_ else (False, True)  # one row is as long as itself
            further = [{"steps": steps, "equal": equal} for equal in lengths for steps in CACHED]
            yield replace(road, padded=True, alone=alone_), [*further, {"steps": "again", "equal": False}]
