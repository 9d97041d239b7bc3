"""Mixed batches, padded: PEFT's `adapter_names` with transformers' `generate`, and padded scoring.

Rows are sorted by length, so that there is little to pad. A query of two paths is two neighbouring rows, made
one by a logits processor. The paths' prompts are read in two passes, each padded to its own longest, and
`generate` goes on from there: a prompt of 60 tokens is not read as one of 300.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import plain
from bench.baselines import Baseline, by_length
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Lora
from spring.engine.texts import Text

ROWS = (16, 64)  # of a batch
CHUNK = 1024  # response positions whose logits exist at the same time
States = Sequence[Mapping[str, Tensor]]
Routed = Callable[[Sequence[int], int], Any]  # slots of a batch's rows, its width -> a context
Wrapped = Callable[[], AbstractContextManager[tuple[Any, Routed]]]  # a model with adapters, what routes rows


class Paths:
    """Makes one distribution of each query's neighbouring rows, and penalises what it generated."""

    def __init__(self, weights: Tensor, penalty: float, start: int) -> None:
        self.weights, self.penalty, self.start = weights, penalty, start  # weights [Q, 1 or 2]

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """log p [B, V] of the next token from logits [B, V], row i of both paths the same."""
        paths = self.weights.shape[1]
        logps = scores.log_softmax(1).view(-1, paths, scores.shape[1])
        mixed = (logps + self.weights.log()[..., None]).logsumexp(1) if paths > 1 else logps[:, 0]
        if tokens.shape[1] > self.start:
            own = tokens[::paths, self.start :]
            mixed = mixed.scatter(1, own, mixed.gather(1, own) * self.penalty)
        return mixed.repeat_interleave(paths, 0)


@torch.inference_mode()
def generate(
    model: Any, routed: Routed, queries: Sequence[Query], settings: Decoding, stop: Collection[int], rows: int
) -> list[list[int]]:
    """Greedy answers in the order of `queries`, `rows` rows at a time; within `routed` rows have adapters.

    `model` is of transformers; queries have the same number of paths.
    """
    paths = len(queries[0].paths)
    sizes = [max(len(prompt) for prompt, _ in query.paths) for query in queries]
    found: list[list[int]] = [[] for _ in queries]
    for places in by_length(sizes, max(1, rows // paths)):
        for place, tokens in zip(
            places, _batch(model, routed, [queries[i] for i in places], settings, stop), strict=True
        ):
            found[place] = tokens
    return found


def _batch(
    model: Any, routed: Routed, queries: Sequence[Query], settings: Decoding, stop: Collection[int]
) -> list[list[int]]:
    from transformers import LogitsProcessorList, StaticCache

    paths = len(queries[0].paths)
    prompts = [prompt for query in queries for prompt, _ in query.paths]
    slots = [query.slot for query in queries for _ in range(paths)]
    ids, mask = pad(prompts, model.device)
    weights = torch.tensor([[weight for _, weight in query.paths] for query in queries], device=model.device)
    cache: Any = StaticCache(  # in place: the other kind is copied whole for every token
        config=model.config, max_cache_len=ids.shape[1] + settings.max_new_tokens
    )
    if paths > 1:
        read(model, routed, prompts, slots, paths, cache)
    with routed(slots, ids.shape[1]):
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            logits_processor=LogitsProcessorList([Paths(weights, settings.repetition_penalty, ids.shape[1])]),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(stop),
            pad_token_id=min(stop),
        )
    return [before(row, stop) for row in made[::paths, ids.shape[1] :].tolist()]


def read(
    model: Any,
    routed: Routed,
    prompts: Sequence[tuple[int, ...]],
    slots: Sequence[int],
    paths: int,
    cache: Any,
) -> None:
    """Puts all prompts but their last tokens into `cache`, each path's padded to their own longest."""
    from transformers import DynamicCache

    longest = max(map(len, prompts)) - 1
    parts = []
    for path in range(paths):
        ids, mask = pad([prompt[:-1] for prompt in prompts[path::paths]], model.device)
        part: Any = DynamicCache()
        with routed(slots[path::paths], ids.shape[1]):
            model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=part,
                use_cache=True,
                logits_to_keep=1,
            )
        parts.append([(layer.keys, layer.values) for layer in part.layers])
    for number, layers in enumerate(zip(*parts, strict=True)):
        keys, values = (
            torch.stack([lengthened(layer[kind], longest) for layer in layers], 1).flatten(0, 1)
            for kind in (0, 1)
        )  # [Q, paths, ...] -> the rows' order
        cache.update(keys, values, number)


def lengthened(cached: Tensor, longest: int) -> Tensor:
    """Keys or values [B, H, T, d] with zeros before them, for `longest` tokens."""
    return torch.nn.functional.pad(cached, (0, 0, longest - cached.shape[2], 0))


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] with padding on the left, and their mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def before(tokens: Sequence[int], stop: Collection[int]) -> list[int]:
    """Tokens before the first that stops."""
    end = next((place for place, token in enumerate(tokens) if token in stop), len(tokens))
    return list(tokens[:end])


@torch.inference_mode()
def score(model: Any, routed: Routed, texts: Sequence[Text], rows: int) -> list[np.ndarray]:
    """log p of every response token (nats), `rows` texts at a time; logits at responses alone.

    `model` is of transformers.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(texts)
    for places in by_length([len(text) for text in texts], rows):
        batch = [texts[i] for i in places]
        longest = max(len(text) for text in batch) - 1
        known = [(text.prompt + text.response)[:-1] for text in batch]
        ids = torch.tensor([list(row) + [0] * (longest - len(row)) for row in known], device=model.device)
        mask = torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in known], device=model.device
        )
        with routed([text.slot for text in batch], longest):
            hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        picked = torch.cat([h[len(t.prompt) - 1 : len(t) - 1] for h, t in zip(hidden, batch, strict=True)])
        targets = torch.tensor([token for text in batch for token in text.response], device=model.device)
        layer = model.get_output_embeddings()
        losses = [
            torch.nn.functional.cross_entropy(layer(h).float(), t, reduction="none")
            for h, t in zip(picked.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
        parts = (-torch.cat(losses)).cpu().split([len(text.response) for text in batch])
        for place, part in zip(places, parts, strict=True):
            found[place] = part.numpy()
    return found


# --- the baselines ----------------------------------------------------------------------------------------


@contextmanager
def mixed(model: Any, lora: Lora, states: States) -> Iterator[tuple[Any, Routed]]:
    """The model of transformers with PEFT's adapters inside, and what routes rows to them."""
    wrapped = plain.with_adapters(model, lora, {str(slot): state for slot, state in enumerate(states)})

    def routed(slots: Sequence[int], width: int) -> Any:
        names = ["__base__" if slot < 0 else str(slot) for slot in slots]
        return wrapped._enable_peft_forward_hooks(adapter_names=names)  # what its forward and generate enter

    try:
        yield wrapped.get_base_model(), routed
    finally:
        wrapped.unload()


def batches(
    what: str, wrapped: Wrapped, work: Callable[[Any, Routed, int], Any], rows: Sequence[int]
) -> list[Baseline]:
    """One baseline for each number of rows: `work` of a wrapped model, what routes its rows, and how many."""

    def baseline(count: int) -> Baseline:
        @contextmanager
        def ready() -> Iterator[Callable[[], Any]]:
            with wrapped() as (inner, routed):
                yield lambda: work(inner, routed, count)

        return Baseline(f"{what} of {count} rows", ready)

    return [baseline(count) for count in rows]


def decoding(
    model: Any,
    lora: Lora,
    states: States,
    queries: Sequence[Query],
    settings: Decoding,
    stop: Collection[int],
    rows: Sequence[int] = ROWS,
) -> list[Baseline]:
    """PEFT's mixed batches, one baseline for each number of rows."""
    return batches(
        "PEFT mixed batches",
        lambda: mixed(model, lora, states),
        lambda inner, routed, count: generate(inner, routed, queries, settings, stop, count),
        rows,
    )


def scoring(
    model: Any, lora: Lora, states: States, texts: Sequence[Text], rows: Sequence[int] = ROWS
) -> list[Baseline]:
    """Padded batches of texts, under PEFT's adapters if there are any."""
    bare = model, lambda *_: torch.inference_mode()
    return batches(
        "PEFT mixed batches" if states else "padded batches",
        lambda: mixed(model, lora, states) if states else nullcontext(bare),
        lambda inner, routed, count: score(inner, routed, texts, count),
        rows,
    )
