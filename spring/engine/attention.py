"""Attention inside the rows of a pack, for any decoder-only model of transformers.

It is registered with transformers as the attention implementation `spring_packed`; the model itself stays
as it is. Products run in the model's dtype, softmax in float32 and rounded once, as transformers' own
`eager` attention does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from spring.engine.cache import KeyValueCache, PackedBlock
from spring.engine.layers import decoder_of
from spring.engine.lora import AdapterBank, reading
from spring.engine.packing import Pack, filled
from spring.engine.passes import causal_softmax, causal_softmax_backward, has_kernels
from spring.engine.stepping import attend, pays

ATTENTION = "spring_packed"
# Arguments that change nothing: dropout is off, rows are causal, positions are in queries and keys already.
KNOWN = {"dropout", "is_causal", "position_ids", "use_cache", "output_attentions", "cache_position"}
Span = tuple[int, int]  # first token, token after the last


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    pack: Pack | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each row of `pack`; query [1, H, N, d], key and value [1, K, N, d].

    Raises NotImplementedError for anything else that a model asks of its attention (sinks, caps, biases).
    """
    if pack is None:
        raise NotImplementedError("the model does not hand its batch on to attention")
    unknown = [name for name, value in others.items() if name not in KNOWN and value is not None]
    if unknown:
        raise NotImplementedError(f"packed attention knows no {', '.join(unknown)}")
    if pack.cache is not None:
        if pack.stepping:
            return _step(
                pack.cache, module.layer_idx, query[0], key[0], value[0], scaling, sliding_window
            ), None
        if query.device.type == "cpu":
            pack.cache.fill(module.layer_idx, key[0], value[0], pack.spans())
        else:  # one copy for all rows
            pack.cache.put(module.layer_idx, *(pack.pad(x).contiguous() for x in (key, value)))
    if query.device.type == "cpu":
        spans = list(zip(pack.spans(), pack.beginnings(), strict=True))
        out = RowAttention.apply(query[0], key[0], value[0], spans, scaling, sliding_window)
        return out.transpose(0, 1)[None], None
    assert pack.before is None, "rows follow one another on the processor alone"
    q, k, v = pack.pad(query), pack.pad(key), pack.pad(value)
    mask = None
    if sliding_window is not None and pack.longest > sliding_window:
        mask = _unseen(pack.longest, sliding_window, q) == 0
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))  # masks allow no groups
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=mask is None
    )
    return pack.unpad(out), None


class RowAttention(torch.autograd.Function):
    """Causal attention row after row, as products of a size that processors run at their full rate.

    The G = H / K query heads that share a key head stand where more queries would. Nothing of size T x T is
    kept for the backward pass; the probabilities are computed again. Rows are filled up with zeros to `whole`
    lengths, which have no part in any gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: list[tuple[Span, Span]],
        scaling: float,
        window: int | None,
    ) -> Tensor:
        """query [H, N, d], key and value [K, N, d], spans of each row and its beginning -> [H, N, d]."""
        out = query.new_zeros(query.shape[0], query.shape[1], value.shape[2])
        for (start, stop), beginning in spans:
            q, k, v = (filled(x[:, start:stop]) for x in (query, key, value))
            if beginning[0] < beginning[1]:
                k, v = (torch.cat([x[:, slice(*beginning)], y], 1) for x, y in ((key, k), (value, v)))
            probs = _probabilities(q, k, scaling, window)
            out[:, start:stop] = torch.bmm(probs, v).view(len(query), q.shape[1], -1)[:, : stop - start]
        ctx.save_for_backward(query, key, value)
        ctx.spans, ctx.scaling, ctx.window = spans, scaling, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Gradients of query, key and value."""
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = (torch.zeros_like(x) for x in (query, key, value))
        for (start, stop), (first, last) in ctx.spans:
            assert first == last, "rows that follow one another are not trained on"
            q, k, v, g = (filled(x[:, start:stop]) for x in (query, key, value, grads[0]))
            own, new = slice(stop - start), q.shape[1]
            probs = _probabilities(q, k, ctx.scaling, ctx.window)  # [K, G T, T]
            q, g = (x.reshape(len(k), -1, x.shape[2]) for x in (q, g))  # [K, G T, d]
            of_value[:, start:stop] = torch.bmm(probs.transpose(1, 2), g)[:, own]
            of_probs = torch.bmm(g, v.transpose(1, 2))
            of_scores = causal_softmax_backward(of_probs, probs, new, ctx.scaling, ctx.window)
            of_query[:, start:stop] = torch.bmm(of_scores, k).view(len(query), -1, k.shape[2])[:, own]
            of_key[:, start:stop] = torch.bmm(of_scores.transpose(1, 2), q)[:, own]
        return of_query, of_key, of_value, None, None, None


def _probabilities(query: Tensor, key: Tensor, scaling: float, window: int | None) -> Tensor:
    """softmax of a row of T tokens, the last of C: query [H, T, d], key [K, C, d] -> [K, G T, C]."""
    heads, _, width = key.shape
    scores = torch.bmm(query.reshape(heads, -1, width), key.transpose(1, 2))
    return causal_softmax(scores, query.shape[1], scaling, window)


def _unseen(tokens: int, window: int | None, like: Tensor) -> Tensor:
    """[T, T]: 0 where query i sees key j (causal, at most `window` tokens back), -inf elsewhere."""
    bias = torch.full((tokens, tokens), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)
    if window is not None and tokens > window:
        bias += torch.full_like(bias, float("-inf")).tril_(-window)
    return bias


def _step(
    cache: KeyValueCache,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    window: int | None,
) -> Tensor:
    """One new token per row, query [H, R, d], key and value [K, R, d] -> [1, R, H, d]."""
    out, start = [], 0
    for block in cache.blocks:
        assert isinstance(block, PackedBlock)
        rows = slice(start, start + len(block.rows))
        start = rows.stop
        pair = block.append(layer, key[:, rows], value[:, rows])
        out.append(_attend_to_cache(query[:, rows], block, pair, scaling, window))
    return torch.cat(out)[None]


def _attend_to_cache(
    query: Tensor, block: PackedBlock, pair: tuple[Tensor, Tensor], scaling: float, window: int | None
) -> Tensor:
    """One new token per row of a block: query [H, n, d] against keys and values [n, K, C, d] -> [n, H, d]."""
    keys, values = pair
    if has_kernels(query) and pays():
        return attend(query, keys, values, block.lengths, scaling, window)
    n, heads = keys.shape[:2]
    q = query.transpose(0, 1).reshape(n * heads, -1, query.shape[2])  # [n K, G, d]
    scores = torch.bmm(q, keys.flatten(0, 1).transpose(1, 2)).float().mul_(scaling)  # [n K, G, C]
    scores.view(n, heads, -1, block.capacity).add_(block.mask(window))
    probs = scores.softmax(2).to(values.dtype)
    return torch.bmm(probs, values.flatten(0, 1)).view(n, query.shape[0], -1)


AttentionInterface.register(ATTENTION, packed_attention)


def packed_states(model: Any, pack: Pack, bank: AdapterBank | None, seeds: Sequence[int] | None) -> Tensor:
    """Last hidden states [N, D] of a pack's rows; dropout by `seeds` [R]."""
    with reading(pack, bank, seeds):
        out = decoder_of(model)(
            input_ids=pack.input_ids, position_ids=pack.position_ids, use_cache=False, pack=pack
        )
    if pack.cache is not None:
        pack.cache.read = True
    hidden: Tensor = out.last_hidden_state[0, : sum(pack.lengths)]
    return hidden
