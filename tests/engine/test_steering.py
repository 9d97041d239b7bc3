"""Steering: what is added where, each row its own, against plain hooks on a plain transformers model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from spring.engine.budget import Room
from spring.engine.decoding import generate
from spring.engine.forward import hidden_states
from spring.engine.lora import AdapterBank
from spring.engine.packing import Pack, pack_rows
from spring.engine.queries import Query
from spring.engine.roads import Road, Rope, head, set_road
from spring.engine.scoring import token_logps
from spring.engine.settings import Decoding, Lora
from spring.engine.steering import Pair, Steer, contrast, layer_at, numbered, steered
from spring.engine.texts import Text
from spring.method.mixing import Mixture

CPU = torch.device("cpu")
LORA = Lora(r=4, alpha=12, dropout=0.0, target_modules=("q_proj", "v_proj"))
DECODE = Decoding(repetition_penalty=1.2, max_new_tokens=8, join=Mixture())
MakeModel = Callable[..., Any]


def steer(*, seed: int, depth: float = 0.2, size: float = 2.0) -> Steer:
    """Large vectors at the first of two layers, so that the second's keys and values depend on them too."""
    values = np.random.default_rng(seed).normal(size=(2, 32)) * size
    return Steer(depth, values.astype(np.float32))


def rows(*, count: int, seed: int = 0, longest: int = 16) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(seed)
    return [tuple(generator.integers(0, 320, generator.integers(2, longest)).tolist()) for _ in range(count)]


@contextmanager
def plainly(model: Any, one: Steer | None) -> Iterator[None]:
    """Steers a plain model the obvious way: every position of every row, by forward hooks of its own."""
    with ExitStack() as stack:
        if one is not None:
            layer = model.model.layers[int(one.depth * len(model.model.layers))]
            attn, mlp = torch.from_numpy(one.vectors)
            hooks = (
                layer.self_attn.register_forward_hook(lambda _, __, out: (out[0] + attn, *out[1:])),
                layer.mlp.register_forward_hook(lambda _, __, out: out + mlp),
            )
            for hook in hooks:
                stack.callback(hook.remove)
        yield


@torch.no_grad()
def logits_of(model: Any, row: Sequence[int], one: Steer | None = None) -> torch.Tensor:
    """[T, V] of one row in a plain model without a cache."""
    with plainly(model, one):
        return model(torch.tensor([list(row)]), use_cache=False).logits[0]


@torch.no_grad()
def packed_logits(model: Any, pack: Pack) -> torch.Tensor:
    return head(model)(hidden_states(model, pack))


def test_exactly_c_s_is_added_at_both_sites_and_the_mlp_reads_the_steered_residual(tiny: Any) -> None:
    """By hand: x -> a = attention(norm x) + s_attn; h = x + a; out = h + MLP(norm h) + s_mlp."""
    one, layer = steer(seed=0, depth=0.7), tiny.model.layers[1]
    mine, other = slice(0, 5), slice(5, 12)
    pack = pack_rows([(9, 8, 7, 6, 5), (3,) * 7], [-1, -1], device=CPU, steers=[0, -1])
    seen: dict[str, torch.Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.update(x=args[0]), with_kwargs=True),
        layer.self_attn.register_forward_hook(lambda _, __, out: seen.update(attn=out[0])),
        layer.mlp.register_forward_hook(lambda _, __, out: seen.update(mlp=out)),
        layer.register_forward_hook(lambda _, __, out: seen.update(out=out)),
    ]
    with torch.no_grad():
        hidden_states(tiny, pack)
        plain = dict(seen)
        with steered(tiny, [one]):
            hidden_states(tiny, pack)
        for handle in handles:
            handle.remove()
        attn, mlp = torch.from_numpy(one.vectors)
        h = plain["x"] + plain["attn"]
        h[:, mine] += attn
        # the hooks of this test came first: they see the attention output before the vector is added ...
        assert torch.equal(seen["attn"], plain["attn"]) and torch.equal(seen["x"], plain["x"])
        # ... and the MLP output computed from a residual that has it
        read = layer.mlp(layer.post_attention_layernorm(h))
        expected = h + read
        expected[:, mine] += mlp
    torch.testing.assert_close(seen["mlp"], read, rtol=0, atol=1e-5)
    assert not torch.allclose(seen["mlp"][:, mine], plain["mlp"][:, mine], atol=0.1)
    torch.testing.assert_close(seen["out"], expected, rtol=0, atol=1e-5)
    assert torch.equal(seen["out"][:, other], plain["out"][:, other])


def test_without_it_the_logits_are_bitwise_what_they_were(tiny: Any) -> None:
    pack = pack_rows(rows(count=3), [-1] * 3, device=CPU, steers=[0, 1, -1])
    before = packed_logits(tiny, pack)
    with steered(tiny, [steer(seed=0), steer(seed=1)]):
        inside = packed_logits(tiny, pack)
    assert torch.equal(packed_logits(tiny, pack), before)
    third = sum(pack.lengths[:2])
    assert (inside - before)[:third].abs().max() > 0.1
    assert torch.equal(inside[third:], before[third:])
    with pytest.raises(InterruptedError), steered(tiny, [steer(seed=0)]):
        raise InterruptedError
    assert torch.equal(packed_logits(tiny, pack), before)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
def test_rows_with_different_vectors_and_layers_equal_each_row_alone(
    make_model: MakeModel, kind: str
) -> None:
    model, plain = make_model(kind), make_model(kind)
    steers = [steer(seed=0), steer(seed=1), steer(seed=2, depth=0.7)]
    asked, numbers = rows(count=5), [2, 0, -1, 1, 0]
    with steered(model, steers):
        found = packed_logits(model, pack_rows(asked, [-1] * 5, device=CPU, steers=numbers))
    expected = [
        logits_of(plain, row, steers[i] if i >= 0 else None) for row, i in zip(asked, numbers, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-4)
    assert not torch.allclose(expected[1][:2], logits_of(plain, asked[1], steers[1])[:2], atol=0.1)


def merged(model: Any, bank: AdapterBank, slot: int) -> Any:
    """A plain model with one slot's update in its weights."""
    for name, layer in bank.layers.items():
        model.get_submodule(name).weight += layer.b[slot].detach() @ layer.a[slot].detach() * 3
    return model


def reference(model: Any, query: Query, one: Steer | None) -> list[int]:
    """Greedy tokens without a cache: every path read in full for every token, steered by plain hooks."""
    tokens: list[int] = []
    while len(tokens) < DECODE.max_new_tokens:
        mixture = sum(
            weight * logits_of(model, (*prompt, *tokens), one)[-1].double().softmax(0)
            for prompt, weight in query.paths
        )
        score = mixture.log()  # type: ignore[union-attr]
        score[list(set(tokens))] *= DECODE.repetition_penalty
        tokens.append(int(score.argmax()))
    return tokens


def test_cached_decoding_equals_an_uncached_reference(make_model: MakeModel) -> None:
    """Two paths or one, adapters or none, steered or not, admitted in any portions; references too."""
    model = make_model()
    bank = AdapterBank(model, LORA, slots=1)
    bank.flat.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    plain = {-1: make_model(), 0: merged(make_model(), bank, 0)}
    steers = [steer(seed=i, size=0.7) for i in range(3)]
    prompts, contexts = rows(count=8), rows(count=8, seed=1)
    asked = [
        Query(p, c + p if i % 2 else None, 0.4, i % 3 % 2 - 1, reference=(9, 8, 7), steer=i % 4 - 1)
        for i, (p, c) in enumerate(zip(prompts, contexts, strict=True))
    ]
    asked.append(replace(asked[1], steer=2))  # the same prompts, steered otherwise: not read once for both
    with steered(model, steers):
        for room in (10_000, 60):
            answers = generate(model, bank, asked, DECODE, stop=(), room=Room(room), budget=64)
            for query, answer in zip(asked, answers, strict=True):
                one = steers[query.steer] if query.steer >= 0 else None
                assert answer.tokens == reference(plain[query.slot], query, one)
                for i, token in enumerate(query.reference):
                    p = sum(
                        weight
                        * logits_of(plain[query.slot], (*prompt, *query.reference[:i]), one)[-1].softmax(0)
                        for prompt, weight in query.paths
                    )
                    assert answer.reference[i] == pytest.approx(float(p[token].log()), abs=1e-4)  # type: ignore[index]
    free = generate(model, bank, asked, DECODE, stop=(), room=Room(10_000), budget=64)
    changed = [a.tokens != b.tokens for a, b in zip(answers, free, strict=True)]
    assert sum(changed) >= 5 and not any(
        c for c, query in zip(changed, asked, strict=True) if query.steer < 0
    )


def test_scoring_equals_plain_hooks_with_beginnings_read_once(make_model: MakeModel) -> None:
    """Texts of one reader share the first twelve tokens of their prompts; others do not lend them theirs."""
    model, plain = make_model(), make_model()
    steers, start = [steer(seed=0), steer(seed=1)], tuple(range(12))
    texts = [Text(start + row, (7, 8, 9), steer=i % 3 - 1) for i, row in enumerate(rows(count=9))]
    with steered(model, steers):
        found = token_logps(model, None, texts, budget=4096)
    for text, logps in zip(texts, found, strict=True):
        one = steers[text.steer] if text.steer >= 0 else None
        logits = logits_of(plain, text.prompt + text.response, one).log_softmax(1)
        at = range(len(text.prompt) - 1, len(text) - 1)
        expected = [logits[i, token].item() for i, token in zip(at, text.response, strict=True)]
        np.testing.assert_allclose(logps, expected, rtol=0, atol=1e-4)


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16, "factor": 32.0}
LONG |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
ROADS: dict[str, tuple[Road, str, dict[str, Any]]] = {
    "packed": (Road(), "llama", {}),
    "padded": (Road(padded=True), "llama", {}),
    "one at a time": (Road(padded=True, alone=True), "llama", {}),
    "longrope": (
        Road(rope=Rope(16, sides=True)),
        "phi3",
        {"rope_parameters": LONG, "original_max_position_embeddings": 16},
    ),
}


@pytest.mark.parametrize("read", ["answer-mean", "last-token"])
@pytest.mark.parametrize("name", ROADS)
def test_extraction_equals_a_plain_loop_over_items(
    name: str, make_model: MakeModel, read: Literal["answer-mean", "last-token"]
) -> None:
    """Activations of chosen minus rejected answers, a forward pass per answer, by the test's own hooks.

    On every road; with the answers of a pair on both sides of a limit of rotary frequencies.
    """
    road, kind, changes = ROADS[name]
    model, plain = make_model(kind, **changes), make_model(kind, **changes)
    set_road(model, road)
    pairs = [
        Pair(*some) for some in zip(rows(count=6), rows(count=6, seed=1), rows(count=6, seed=2), strict=True)
    ]
    layer, seen = plain.model.layers[1], {}
    layer.self_attn.register_forward_hook(lambda _, __, out: seen.update(attn=out[0][0]))
    layer.mlp.register_forward_hook(lambda _, __, out: seen.update(mlp=out[0]))

    def activations(pair: Pair, answer: tuple[int, ...]) -> np.ndarray:
        logits_of(plain, pair.prompt + answer)
        mine = [seen[site][len(pair.prompt) :] for site in ("attn", "mlp")]
        return np.stack([(x.mean(0) if read == "answer-mean" else x[-1]).numpy() for x in mine])

    expected = np.stack([activations(p, p.chosen) - activations(p, p.rejected) for p in pairs])
    for budget in (4096, 50):
        found = contrast(model, 0.7, pairs, read=read, budget=budget)
        assert found.shape == (6, 2, 32) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    assert not model.model.layers[1].mlp._forward_hooks, "nothing may stay behind"


def test_equal_vectors_get_one_number() -> None:
    """So that equal prompts are read once."""
    first, same, other, deeper = steer(seed=0), steer(seed=0), steer(seed=1), steer(seed=0, depth=0.7)
    kept, numbers = numbered([first, None, other, same, deeper, None])
    assert numbers == [0, -1, 1, 0, 2, -1] and kept == [same, other, deeper]
    assert numbered([None, None]) == ([], [-1, -1])


def test_the_layer_is_a_share_of_the_depth_and_must_have_both_sites(make_model: MakeModel) -> None:
    deep = make_model(num_hidden_layers=32, hidden_size=8, intermediate_size=8)
    assert layer_at(deep, 23 / 32) is deep.model.layers[23]
    assert layer_at(deep, 0.999) is deep.model.layers[31] and layer_at(deep, 0) is deep.model.layers[0]
    with pytest.raises(
        ValueError, match=r"self_attn and mlp; a layer of GPTNeoXForCausalLM holds .*attention"
    ):
        layer_at(make_model("gpt_neox"), 0.5)
