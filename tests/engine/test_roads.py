"""Models of many families, each by the road that suits it, against the plain model one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kit.decoding import LORA, decode, merged, reference
from kit.training import allocated, recipe
from torch import Tensor

from spring.engine.budget import Room
from spring.engine.decoding import generate
from spring.engine.heads import Finish
from spring.engine.keeping import kept
from spring.engine.lessons import Lesson
from spring.engine.lora import AdapterBank
from spring.engine.queries import Query
from spring.engine.roads import Road, road_of, set_road
from spring.engine.scoring import token_logps
from spring.engine.settings import Lora
from spring.engine.survey import RefusedError, adopt, survey, survey_twin
from spring.engine.texts import Text
from spring.engine.training import train

Make = Callable[..., Any]
WINDOW = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
LINEAR |= {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 16}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
SPARSE = {"num_local_experts": 4, "num_experts_per_tok": 2}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16, "factor": 32.0}
LONG |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, **WINDOW},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 8, **WINDOW},
    "phi3": {},
    "olmo2": {},
    "gpt_neox": {},
    "gpt2": {},
    "cohere": {},
    "granite": {"logits_scaling": 3.0, "attention_multiplier": 0.2},
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
}
PADDED: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0, **WINDOW},
    "gpt_oss": {
        "head_dim": 8,
        **SPARSE,
        **WINDOW,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "stablelm": {},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    "bloom": {},
    "qwen2_moe": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    | {"shared_expert_intermediate_size": 16, "use_sliding_window": True, **WINDOW},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": LINEAR,
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], **MAMBA, "num_local_experts": 0}
    | {"shared_intermediate_size": 32},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2},
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ["recurrent", "attention"],
    },
    "rwkv": {"attention_hidden_size": 32},
}
GROUPED: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 16}),
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 16}),
}


QUICK = {"llama", "gemma3_text", "gpt2", "gemma2", "gpt_oss", "qwen3_5_text", *GROUPED}
KINDS = [
    pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow)
    for kind in (*PACKED, *PADDED, *GROUPED)
]


def built(kind: str, make_model: Make) -> Any:
    name, changes = GROUPED.get(kind, (kind, PACKED.get(kind, PADDED.get(kind, {}))))
    return make_model(name, **changes)


def lora_of(model: Any, *, dropout: float = 0.0) -> Lora:
    layers = tuple(sorted(road_of(model).layers))
    return LORA.model_copy(update={"target_modules": layers[:4], "dropout": dropout})


def random_bank(model: Any) -> AdapterBank:
    bank = AdapterBank(model, lora_of(model), slots=2)
    bank.flat.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return bank


def plain_ones(kind: str, make_model: Make, bank: AdapterBank) -> dict[int, Any]:
    """The plain model of every slot."""
    plain = {slot: merged(plain_one(kind, make_model), bank, slot) for slot in range(bank.slots)}
    return plain | {-1: plain_one(kind, make_model)}


def plain_one(kind: str, make_model: Make) -> Any:
    """The plain model; dynamic frequencies remember the longest text until a short one comes: here always."""
    model = built(kind, make_model)
    if kind == "dynamic":
        at = torch.zeros(1, 1, dtype=torch.long)
        model.register_forward_pre_hook(lambda model, _: model.model.rotary_emb(torch.zeros(1), at) and None)
    return model


def plain_logps(model: Any, prompt: tuple[int, ...], response: tuple[int, ...]) -> np.ndarray:
    with torch.no_grad():
        row = prompt + response[:-1]  # the last token is not read
        logits = model(torch.tensor([row]), use_cache=False).logits[0].log_softmax(1)
    at = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    return logits[at, torch.tensor(response)].numpy()


def some_texts() -> list[Text]:
    """Both sides of the window of 5 and the limit of 16, and neighbours beyond it of unequal lengths."""
    generator = np.random.default_rng(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(generator.integers(1, 320, count).tolist())

    sizes = [(3, 2), (20, 9), (1, 1), (9, 6), (30, 8), (16, 1), (4, 11), (25, 2)]
    return [Text(tokens(p), tokens(r), slot=i % 3 - 1) for i, (p, r) in enumerate(sizes)]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_each_text_alone(kind: str, make_model: Make) -> None:
    model = built(kind, make_model)
    assert road_of(model).padded == (kind in PADDED)
    assert (road_of(model).rope is not None) == (kind in GROUPED)
    bank, texts = random_bank(model), some_texts()
    plain = plain_ones(kind, make_model, bank)
    expected = [plain_logps(plain[t.slot], t.prompt, t.response) for t in texts]
    base = [plain_logps(plain[-1], t.prompt, t.response) for t in texts]
    assert max(np.abs(e - b).max() for e, b in zip(expected, base, strict=True)) > 0.05, "adapters do nothing"
    for budget in (10_000, 40):
        found = token_logps(model, bank, texts, budget=budget)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-4)
    short = token_logps(model, bank, texts[:1], budget=100)  # after longer ones
    np.testing.assert_allclose(short[0], expected[0], rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_each_query_alone(kind: str, make_model: Make) -> None:
    """Two paths, rows that leave and come, more queries than room; against the model without a cache."""
    model = built(kind, make_model)
    bank = random_bank(model)
    plain = plain_ones(kind, make_model, bank)
    queries = [
        Query(t.prompt, (7, 8, 9, *t.prompt) if i % 3 else None, 0.4, t.slot, reference=t.response)
        for i, t in enumerate(some_texts())
    ]
    settings = decode(most=8)
    found = generate(model, bank, queries, settings, stop=frozenset({5}), room=Room(120), budget=60)
    for query, answer in zip(queries, found, strict=True):
        tokens, rows = reference(plain[query.slot], query, settings, {5})
        assert answer.tokens == tokens and answer.row_steps == rows
        if query.context_prompt is None:
            wanted = plain_logps(plain[query.slot], query.prompt, query.reference)
            np.testing.assert_allclose(answer.reference, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_lessons_are_those_of_each_user_alone(kind: str, make_model: Make) -> None:
    """One step of both: loss and gradient of the plain model, text by text; AdamW goes by its sign."""
    model = built(kind, make_model)
    config = recipe(lora=lora_of(model), epochs=1, batch_size=4, warmup_ratio=0, grad_clip=None, lr=1e-3)
    bank = AdapterBank(model, config.lora, slots=2)
    bank.flat.normal_(std=0.1, generator=torch.Generator().manual_seed(7))
    texts = [Text(t.prompt, t.response) for t in some_texts()]
    lessons = [Lesson(texts[4 * i : 4 * i + 4], bank.state(i), seed=i) for i in range(2)]
    # what batches are cut by; recurrent layers that fill up chunks keep as much of few tokens as of many
    assert kept(model, bank, texts[0]).of(128) > 0.9 * allocated(model, bank, 128)
    together = train(model, bank, lessons, config, budget=10_000)
    again = train(model, bank, lessons, config, budget=10_000, checkpoint=kind not in ("rwkv",))
    for lesson, found, other in zip(lessons, together, again, strict=True):
        loss, grads = plain_lesson(plain_one(kind, make_model), lesson, scaling=bank.scaling)
        assert found.loss == pytest.approx([loss], abs=2e-4)
        every = torch.cat([grad.flatten() for grad in grads.values()])
        assert found.grad_norm == pytest.approx([float(every.norm())], rel=1e-3)
        for name, grad in grads.items():
            way = (lesson.start[name] * (1 - config.lr * config.weight_decay) - found.state[name]) / config.lr
            clear = grad.abs() > 1e-2 * every.abs().max()
            torch.testing.assert_close(way[clear], grad[clear].sign(), rtol=0, atol=1e-2)
        [single] = train(model, bank, [lesson], config, budget=10_000)
        for name, value in single.state.items():
            torch.testing.assert_close(found.state[name], value, rtol=0, atol=2e-4)
            torch.testing.assert_close(other.state[name], value, rtol=0, atol=2e-4)


def plain_lesson(model: Any, lesson: Lesson, *, scaling: float) -> tuple[float, dict[str, Tensor]]:
    """Mean NLL of all response tokens under an adapter that is added to the weights, and its gradient."""
    state = {name: value.clone().requires_grad_() for name, value in lesson.start.items()}
    weights, own = {}, dict(model.named_parameters())
    for a in (name for name in state if ".lora_A." in name):
        layer = a.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        update = state[a.replace("lora_A", "lora_B")] @ state[a] * scaling
        linear = isinstance(model.get_submodule(layer), torch.nn.Linear)
        weights[f"{layer}.weight"] = own[f"{layer}.weight"] + (update if linear else update.T)
    losses = []
    for text in lesson.texts:
        given = {"input_ids": torch.tensor([(text.prompt + text.response)[:-1]]), "use_cache": False}
        logits = torch.func.functional_call(model, weights, (), given).logits[0, len(text.prompt) - 1 :]
        losses.append(F.cross_entropy(logits, torch.tensor(text.response), reduction="none"))
    loss = torch.cat(losses).mean()
    return loss.item(), dict(zip(state, torch.autograd.grad(loss, list(state.values())), strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gemma3_text", "gpt2"])
def test_the_padded_road_is_open_to_all(kind: str, make_model: Make) -> None:
    model = built(kind, make_model)
    bank, texts = random_bank(model), some_texts()
    expected = token_logps(model, bank, texts, budget=1000)
    bank.detach(model)
    assert survey(model, asked="padded").padded
    bank = random_bank(model)
    for one, other in zip(token_logps(model, bank, texts, budget=1000), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gemma2", "knows no softcap"), ("gpt_oss", "knows no s_aux"), ("gptj", "cannot be exchanged")],
)
def test_the_packed_road_is_not(kind: str, reason: str, make_model: Make) -> None:
    with pytest.raises(RefusedError, match=f"gives other numbers in batches than alone: packed: .*{reason}"):
        survey(built(kind, make_model), asked="packed")


def test_an_encoder_is_refused(make_model: Make) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    with pytest.raises(RefusedError, match="has an encoder; only decoder-only models"):
        survey(T5ForConditionalGeneration(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)))


def test_a_cap_that_rounding_hides_is_the_twins(make_model: Make) -> None:
    """Logits of 0.1 under a cap of 30 are off by a part in 300,000: no bfloat16 shows it, training may."""
    model = make_model("gemma2", **PADDED["gemma2"] | {"final_logit_softcapping": 30.0})
    model.get_output_embeddings().weight.mul_(0.05)
    model = model.bfloat16()
    adopt(model, survey_twin(model.config))
    assert road_of(model).finish == Finish(cap=30.0)


def test_states_of_another_dtype_than_the_weights(make_model: Make) -> None:
    """Mamba's residuals, and so its last states, are of float32 beside weights in bfloat16."""
    model = make_model("mamba", **PADDED["mamba"]).bfloat16()
    adopt(model, survey_twin(model.config))
    text = some_texts()[1]
    [found] = token_logps(model, None, [Text(text.prompt, text.response)], budget=100)
    wanted = plain_logps(model, text.prompt, text.response)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05)


def test_a_model_that_its_dtype_stops_is_told_so(make_model: Make) -> None:
    """As kernels that know no bfloat16 do."""
    model = make_model().bfloat16()

    def fail(*_: Any) -> None:
        raise RuntimeError("not implemented for 'BFloat16'")

    model.register_forward_pre_hook(fail)
    with pytest.raises(RefusedError, match=r"cannot be called in bfloat16 on cpu: .*model\.dtype: float32"):
        adopt(model, Road())


def test_a_lack_of_memory_chooses_no_road(make_model: Make) -> None:
    """A road that fails for it is not refused: another one would be taken without need."""
    model = make_model()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    model.model.layers[0].register_forward_hook(fail)
    for look in (survey, lambda model: adopt(model, Road())):
        with pytest.raises(torch.OutOfMemoryError):
            look(model)


def test_nothing_is_said_of_a_twin(capfd: pytest.CaptureFixture[str]) -> None:
    """The factor of gpt-oss fits its own positions; those of its twin are fewer."""
    from transformers import GptOssConfig

    config = GptOssConfig()
    capfd.readouterr()
    assert survey_twin(config).padded
    assert "RoPE" not in capfd.readouterr().err


@pytest.mark.parametrize("size", [12, 20, 150])
def test_a_vocabulary_may_be_small(size: int, make_model: Make) -> None:
    assert not survey_twin(make_model(vocab_size=size).config).padded


def test_a_padded_lesson_stays_within_its_budget(make_model: Make) -> None:
    """A text of 45 tokens and three of 5 are 60 behind one another, 180 beside one another."""
    model = make_model()
    set_road(model, replace(road_of(model), padded=True))
    laid: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, __, given: laid.append(given["input_ids"].numel()), with_kwargs=True
    )
    generator = np.random.default_rng(0)
    texts = [Text((7,), tuple(generator.integers(1, 320, n - 1).tolist())) for n in (45, 5, 5, 5)]
    config = recipe(lora=lora_of(model), epochs=1, batch_size=4)
    bank = AdapterBank(model, config.lora, slots=2)
    train(model, bank, [Lesson(texts, None, seed=n) for n in range(2)], config, budget=64)
    assert max(laid) <= 64


def test_a_road_is_written_and_read() -> None:
    for kind in (Road(), Road(padded=True, steps="again", alone=True, layers=frozenset({"a", "b"}))):
        assert Road.from_json(kind.to_json()) == kind
