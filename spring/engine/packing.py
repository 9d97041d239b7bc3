"""Rows of different length in one batch without padding.

The tokens of all rows lie behind one another, [1, N], and go through every linear layer as they are;
only attention sees rows. It is registered with transformers as the attention implementation
`spring_packed`, so any decoder-only model that supports the attention interface can be used unchanged.
A `Pack` travels with the call as a keyword argument and says where each row begins and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "spring_packed"


@dataclass
class Pack:
    """R rows of new tokens, [1, N], and which adapter slot each row uses (-1: the base model).

    With a cache, the new tokens of row i follow the tokens that `cache` holds for row i.
    """

    input_ids: Tensor  # [1, N]
    position_ids: Tensor  # [1, N], from 0 in every row
    lengths: list[int]  # [R] new tokens per row
    slots: list[int]  # [R]
    cache: KeyValueCache | None = None

    def __post_init__(self) -> None:
        device = self.input_ids.device
        self.longest = max(self.lengths)
        self.ragged = min(self.lengths) != self.longest
        self.row = torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))
        self.row = self.row.to(device)  # [N] row of each token
        if self.ragged:  # where each token lies in the padded view [R * longest]
            starts = torch.tensor([0, *self.lengths[:-1]], device=device).cumsum(0)
            column = torch.arange(len(self.row), device=device) - starts[self.row]
            self.index = self.row * self.longest + column

    def pad(self, x: Tensor) -> Tensor:
        """[1, heads, N, d] -> [R, heads, T, d], zeros after the end of each row."""
        heads, width = x.shape[1], x.shape[3]
        flat = x[0].transpose(0, 1)  # [N, heads, d]
        if self.ragged:
            padded = flat.new_zeros(len(self.lengths) * self.longest, heads, width)
            flat = padded.index_copy(0, self.index, flat)
        return flat.reshape(len(self.lengths), self.longest, heads, width).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """[R, heads, T, d] -> [1, N, heads, d], the layout transformers expects back."""
        flat = x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])
        return (flat[self.index] if self.ragged else flat)[None]


def pack_rows(
    rows: Sequence[Sequence[int]],
    slots: Sequence[int],
    *,
    device: torch.device,
    cache: KeyValueCache | None = None,
) -> Pack:
    """Packs token rows [R][*] that begin at position 0, or behind what `cache` holds."""
    starts = list(cache.lengths) if cache is not None else [0] * len(rows)
    if cache is not None:
        cache.lengths = [start + len(row) for start, row in zip(starts, rows, strict=True)]
        cache.reserve(cache.used)
    positions = [start + j for start, row in zip(starts, rows, strict=True) for j in range(len(row))]
    tokens = [token for row in rows for token in row]
    return Pack(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        [len(row) for row in rows],
        list(slots),
        cache,
    )


class KeyValueCache:
    """Keys and values of R rows, right-padded: row i holds `lengths[i]` tokens.

    Tokens carry their rotary position already, so rows need no common alignment.
    """

    def __init__(self, rows: int) -> None:
        self.lengths = [0] * rows
        self.capacity = 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys, values [R, K, capacity, d]

    def reserve(self, tokens: int) -> None:
        """Makes room for `tokens` per row; grows by steps so that copies stay rare."""
        if tokens <= self.capacity:
            return
        grown = -(-tokens // 64) * 64
        for layer, pair in self.layers.items():
            self.layers[layer] = tuple(F.pad(x, (0, 0, 0, grown - self.capacity)) for x in pair)  # type: ignore[assignment]
        self.capacity = grown

    def append(self, layer: int, keys: Tensor, values: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
        """Stores the new tokens [1, K, N, d] of `pack`; gives all keys and values [R, K, longest, d]."""
        if layer not in self.layers:
            shape = (len(self.lengths), keys.shape[1], self.capacity)
            self.layers[layer] = (
                keys.new_zeros(*shape, keys.shape[3]),
                values.new_zeros(*shape, values.shape[3]),
            )
        stored = self.layers[layer]
        for old, new in zip(stored, (keys, values), strict=True):
            old[pack.row, :, pack.position_ids[0]] = new[0].transpose(0, 1)
        return stored[0][:, :, : self.used], stored[1][:, :, : self.used]

    @property
    def used(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths, default=0)

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these, in this order."""
        index = torch.tensor(list(rows), dtype=torch.long)
        self.lengths = [self.lengths[i] for i in rows]
        self.layers = {
            layer: (k[index.to(k.device)], v[index.to(v.device)]) for layer, (k, v) in self.layers.items()
        }

    def join(self, other: KeyValueCache) -> None:
        """Adds the rows of `other` behind the rows held."""
        tokens = max(self.capacity, other.capacity)
        self.reserve(tokens)
        other.reserve(tokens)
        self.lengths += other.lengths
        self.layers = {
            layer: (torch.cat([k, other.layers[layer][0]]), torch.cat([v, other.layers[layer][1]]))
            for layer, (k, v) in self.layers.items()
        } or other.layers


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    pack: Pack,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each row of `pack`; query [1, H, N, d], key and value [1, K, N, d]."""
    if softcap is not None:
        raise NotImplementedError(
            "attention logit soft-capping (Gemma 2) is not supported; use another model"
        )
    if pack.cache is not None:
        keys, values = pack.cache.append(module.layer_idx, key, value, pack)
        if pack.longest == 1:
            return _attend_to_cache(query, keys, values, pack, scaling, sliding_window), None
        assert pack.lengths == pack.cache.lengths, "several new tokens per row need an empty cache"
    q, k, v = pack.pad(query), pack.pad(key), pack.pad(value)
    exact = q.requires_grad and q.device.type == "cpu"  # bfloat16 backward is slow there, and less exact
    if exact:
        q, k, v = q.float(), k.float(), v.float()
    mask = None
    if sliding_window is not None and pack.longest > sliding_window:
        mask = _window(pack.longest, sliding_window, q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return pack.unpad(out.to(query.dtype)), None


def _attend_to_cache(
    query: Tensor, keys: Tensor, values: Tensor, pack: Pack, scaling: float, window: int | None
) -> Tensor:
    """One new token per row: query [1, H, R, d] against keys and values [R, K, used, d] -> [1, R, H, d].

    The H / K query heads that share a key head stand where queries of several tokens would.
    """
    rows, groups = len(pack.lengths), keys.shape[1]
    q = query[0].transpose(0, 1).reshape(rows, groups, -1, query.shape[3])
    column = torch.arange(keys.shape[2], device=keys.device)
    position = pack.position_ids[0][:, None]
    seen = column[None] <= position
    if window is not None:
        seen &= column[None] > position - window
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None, None], scale=scaling)
    return out.reshape(1, rows, -1, out.shape[3])


def _window(tokens: int, window: int, device: torch.device) -> Tensor:
    """[T, T] mask: causal, at most `window` tokens back."""
    ahead = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)[None]
    return (ahead >= 0) & (ahead < window)


AttentionInterface.register(ATTENTION, packed_attention)


# --- running the model on a pack --------------------------------------------------------------------------


def hidden_states(model: Any, pack: Pack) -> Tensor:
    """Last hidden states [N, D] of a pack."""
    if model.config._attn_implementation != ATTENTION:
        model.set_attn_implementation(ATTENTION)
    decoder = model.get_decoder()
    out = decoder(input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False, pack=pack)
    return out.last_hidden_state[0]


def head(model: Any) -> Any:
    """The output layer [D -> V]; refuses models that change logits after it."""
    if getattr(model.config, "final_logit_softcapping", None):
        raise NotImplementedError("logit soft-capping (Gemma 2) is not supported; use another model")
    return model.get_output_embeddings()


@torch.inference_mode()
def runs_packed(model: Any) -> bool:
    """Whether rows in a pack come out as they do alone; recurrent layers or attention sinks would differ.

    Compares logits up to rounding: a wrong model is off by about their spread, bfloat16 by a hundredth of it.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    rows = [[(37 * i + 11) % vocabulary for i in range(n)] for n in (9, 5)]
    alone = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False) for row in rows]
    expected = torch.cat([out.logits[0].float() for out in alone])
    cache = KeyValueCache(len(rows))
    pack = pack_rows(rows, [-1, -1], device=model.device, cache=cache)
    try:
        found = head(model)(hidden_states(model, pack)).float()
    except (AttributeError, NotImplementedError, TypeError):  # it does not pass `pack` on to attention
        return False
    complete = len(cache.layers) == model.config.get_text_config().num_hidden_layers
    return complete and bool((found - expected).square().mean().sqrt() < 0.2 * expected.std())
