"""AdapterBank: every slot is what PEFT would compute for that adapter alone."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spring.engine.cache import KeyValueCache
from spring.engine.forward import hidden_states
from spring.engine.lora import AdapterBank, token_runs
from spring.engine.lowrank import draw
from spring.engine.packing import Pack, pack_rows
from spring.engine.passes import least
from spring.engine.peft import load_adapter, save_adapter
from spring.engine.roads import head
from spring.engine.settings import Lora
from spring.engine.survey import survey

CPU = torch.device("cpu")
QV = ("q_proj", "v_proj")
ANY = ("q_proj", "v_proj", "gate_proj", "down_proj")
ROWS = [[5, 6, 7, 8], [9], [10, 11, 12], [5, 6, 7, 8], [20, 21], [9, 9]]
SLOTS = [0, -1, 2, 1, 1, -1]  # neighbours of the same and of other slots, base rows between


def lora(*, dropout: float = 0.0, targets: tuple[str, ...] = QV) -> Lora:
    return Lora(r=4, alpha=12, dropout=dropout, target_modules=targets)


def random_state(bank: AdapterBank, *, seed: int) -> dict[str, Tensor]:
    """An adapter with B not zero, so that it changes the model."""
    generator = torch.Generator().manual_seed(seed)
    return {n: 0.2 * torch.randn(t.shape, generator=generator) for n, t in bank.state(0).items()}


def filled(model: Any, config: Lora) -> AdapterBank:
    """A bank of three different adapters."""
    bank = AdapterBank(model, config, slots=3)
    for slot in range(3):
        bank.load_state(slot, random_state(bank, seed=slot))
    return bank


def with_peft(model: Any, config: Lora, state: Mapping[str, Tensor]) -> Any:
    """PEFT's own LoRA on a plain model, with the weights of `state` under PEFT's names."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    wrapped = get_peft_model(
        model,
        LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.target_modules),
            task_type="CAUSAL_LM",
        ),
    )
    result: Any = set_peft_model_state_dict(wrapped, dict(state))
    assert not result.unexpected_keys
    assert not [name for name in result.missing_keys if "lora" in name]
    return wrapped.eval()


def alone(model: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits [T, V] of each row by the model's own forward."""
    with torch.no_grad():
        return [model(torch.tensor([list(row)])).logits[0] for row in rows]


def packed(
    model: Any, bank: AdapterBank, rows: Sequence[Sequence[int]], slots: Sequence[int]
) -> list[Tensor]:
    """Logits [T, V] of each row in one mixed batch."""
    pack = pack_rows(rows, slots, device=CPU)
    with torch.no_grad():
        return list(head(model)(hidden_states(model, pack, bank)).split(pack.lengths))


def given(layer: Any, pack: Pack, x: Tensor) -> Tensor:
    """What a layer makes of the tokens of a pack, x [1, N, D], and of the tail behind them."""
    return layer(F.pad(x, (0, 0, 0, pack.laid - x.shape[1])))[0, : x.shape[1]]


@pytest.mark.parametrize("targets", [QV, ANY])
def test_mixed_batch_equals_peft_one_by_one(targets: tuple[str, ...], make_model: Callable[..., Any]) -> None:
    model, config = make_model(), lora(targets=targets)
    bank = filled(model, config)
    found = packed(model, bank, ROWS, SLOTS)
    assert (found[0] - found[3]).abs().max() > 0.1, "slots 0 and 1 must differ, or the test is empty"
    for row, slot, logits in zip(ROWS, SLOTS, found, strict=True):
        base = alone(make_model(), [row])[0]
        if slot < 0:
            torch.testing.assert_close(logits, base, rtol=0, atol=1e-5)
            continue
        assert (logits - base).abs().max() > 0.1
        [expected] = alone(with_peft(make_model(), config, bank.state(slot)), [row])
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


def test_slot_minus_one_is_the_base_model_exactly(make_model: Callable[..., Any]) -> None:
    """To the last bit: the same pack without any adapter attached."""
    model = make_model()
    pack = pack_rows(ROWS, SLOTS, device=CPU)
    with torch.no_grad():
        base = head(model)(hidden_states(model, pack)).split(pack.lengths)
    bank = filled(model, lora())
    for slots in (SLOTS, [-1] * len(ROWS)):
        for slot, found, expected in zip(slots, packed(model, bank, ROWS, slots), base, strict=True):
            assert torch.equal(found, expected) == (slot < 0)


def test_single_token_rows_with_a_cache(make_model: Callable[..., Any]) -> None:
    """The gathered path of decoding equals the path by runs, also after a slot has changed."""
    model = make_model()
    bank = filled(model, lora(targets=ANY))

    def last() -> Tensor:
        cache = KeyValueCache()
        pack = pack_rows(ROWS, SLOTS, device=CPU, cache=cache)
        with torch.no_grad():
            hidden_states(model, pack, bank)
        pack = pack_rows([[7]] * len(ROWS), SLOTS, device=CPU, cache=cache)
        with torch.no_grad():
            return head(model)(hidden_states(model, pack, bank))

    def expected() -> Tensor:
        return torch.stack([x[-1] for x in packed(model, bank, [[*row, 7] for row in ROWS], SLOTS)])

    first = last()
    torch.testing.assert_close(first, expected(), rtol=0, atol=1e-5)
    bank.load_state(0, random_state(bank, seed=9))
    second = last()
    assert (first[0] - second[0]).abs().max() > 0.1
    torch.testing.assert_close(second, expected(), rtol=0, atol=1e-5)
    bank.initialise(0, seed=0)
    torch.testing.assert_close(last(), expected(), rtol=0, atol=1e-5)
    with bank.training():
        bank.flat += 0.1  # as an optimizer does
    torch.testing.assert_close(last(), expected(), rtol=0, atol=1e-5)


def test_every_linear_layer_of_the_decoder_and_no_other(make_model: Callable[..., Any]) -> None:
    """The vision tower of Gemma 3 has q_proj and v_proj too; the output layer is never adapted."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**make_model("gemma3_text", head_dim=8).config.to_dict(), "model_type": "gemma3_text"}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    model: Any = Gemma3ForConditionalGeneration(config).eval()
    assert sum(name.endswith("q_proj") for name, _ in model.named_modules()) == 3
    survey(model)
    with pytest.raises(ValueError, match="names lm_head, which adapters cannot lie on"):
        AdapterBank(model, lora(targets=("q_proj", "lm_head")), slots=1)
    bank = AdapterBank(model, lora(targets=("q_proj",)), slots=1)
    assert list(bank.layers) == [f"model.language_model.layers.{i}.self_attn.q_proj" for i in (0, 1)]


def test_unknown_target_names_the_choices(tiny: Any) -> None:
    with pytest.raises(ValueError, match=r"names c_attn, .* they can on down_proj, gate_proj.*v_proj"):
        AdapterBank(tiny, lora(targets=("c_attn",)), slots=1)


def test_detach_restores_the_model(make_model: Callable[..., Any]) -> None:
    model = make_model()
    before = [(name, id(module)) for name, module in model.named_modules()]
    bank = filled(model, lora(targets=ANY))
    assert [(name, id(module)) for name, module in model.named_modules()] != before
    bank.detach(model)
    assert [(name, id(module)) for name, module in model.named_modules()] == before


def test_initialise_as_peft_does(tiny: Any) -> None:
    """A uniform within 1 / sqrt(D), by seed; B zero. kaiming_uniform(a=sqrt 5) has variance 1 / (3 D)."""
    bank = AdapterBank(tiny, Lora(r=32, alpha=8, dropout=0, target_modules=ANY), slots=2)
    bank.flat.fill_(9)
    bank.initialise(0, seed=3)
    state = bank.state(0)
    for name, value in state.items():
        if ".lora_B." in name:
            assert not value.any()
        else:
            width = value.shape[1]  # D
            assert value.abs().max() <= 1 / math.sqrt(width)
            assert value.var().item() == pytest.approx(1 / (3 * width), rel=0.15)
    assert (bank.flat[1] == 9).all()
    bank.initialise(1, seed=3)
    assert torch.equal(bank.flat[0], bank.flat[1])
    bank.initialise(1, seed=4)
    assert not torch.equal(bank.flat[0], bank.flat[1])


def test_fresh_adapter_changes_nothing(make_model: Callable[..., Any]) -> None:
    model = make_model()
    bank = AdapterBank(model, lora(), slots=1)
    bank.initialise(0, seed=0)
    [found] = packed(model, bank, [ROWS[0]], [0])
    torch.testing.assert_close(found, alone(make_model(), [ROWS[0]])[0], rtol=0, atol=1e-5)


# --- states and folders -----------------------------------------------------------------------------------


def test_state_is_a_copy_and_loads_back(tiny: Any) -> None:
    bank = filled(tiny, lora(targets=ANY))
    state = bank.state(1)
    kept = {name: value.clone() for name, value in state.items()}
    bank.flat.zero_()
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    bank.load_state(2, state)
    assert all(torch.equal(value, kept[name]) for name, value in bank.state(2).items())
    assert not bank.flat[:2].any()


def test_states_that_do_not_fit_are_refused(tiny: Any) -> None:
    bank = filled(tiny, lora())
    before = bank.flat.clone()
    state = bank.state(0)
    name = next(iter(state))
    with pytest.raises(ValueError, match=f"missing or unknown.*{name}"):
        bank.load_state(1, {n: t for n, t in state.items() if n != name})
    with pytest.raises(ValueError, match=r"missing or unknown.*lora_C"):
        bank.load_state(1, {**state, "lora_C": state[name]})
    with pytest.raises(ValueError, match=r"has shape \(4, 31\), not \(4, 32\)"):
        bank.load_state(1, {**state, name: state[name][:, 1:]})
    assert torch.equal(bank.flat, before)


def test_peft_loads_what_is_saved_here(make_model: Callable[..., Any], tmp_path: Path) -> None:
    from peft import PeftModel

    model, config = make_model(), lora(dropout=0.05, targets=ANY)
    bank = filled(model, config)
    save_adapter(bank.state(1), config, tmp_path / "a", base_model="tiny")
    loaded: Any = PeftModel.from_pretrained(make_model(), tmp_path / "a").eval()
    assert loaded.peft_config["default"].lora_dropout == 0.05
    [found] = packed(model, bank, [ROWS[0]], [1])
    torch.testing.assert_close(found, alone(loaded, [ROWS[0]])[0], rtol=0, atol=2e-5)


def test_what_peft_saves_loads_here(make_model: Callable[..., Any], tmp_path: Path) -> None:
    model, config = make_model(), lora(targets=ANY)
    bank = AdapterBank(model, config, slots=2)
    wrapped = with_peft(make_model(), config, random_state(bank, seed=5))
    wrapped.save_pretrained(tmp_path)
    bank.load_state(1, load_adapter(tmp_path))
    [found] = packed(model, bank, [ROWS[0]], [1])
    torch.testing.assert_close(found, alone(wrapped, [ROWS[0]])[0], rtol=0, atol=2e-5)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    save_adapter(bank.state(1), config, tmp_path / "ours", base_model="tiny")
    ours = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert set(ours.pop("target_modules")) == set(written["target_modules"])
    ours.pop("base_model_name_or_path")
    assert ours == {key: written[key] for key in ours}


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match="only adapters in safetensors format"):
        load_adapter(tmp_path)


# --- dropout ----------------------------------------------------------------------------------------------


def keep(tokens: int, width: int, *, seed: int) -> Tensor:
    """1 where dropout of one half keeps [tokens, width], else 0."""
    return (draw(tokens, width, seed=seed, device=CPU) >= least(0.5)).float()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_dropout_rate(p: float) -> None:
    """200 000 draws: 5 standard deviations are below 0.006. Every one of the four phases of a 64-bit draw."""
    kept = draw(200, 1000, seed=1, device=CPU) >= least(p)
    for phase in range(4):
        share = (~kept).flatten()[phase::4].float().mean().item()
        assert share == pytest.approx(p, abs=0.012)


def test_dropout_mask_depends_on_seed_and_shape_alone() -> None:
    masks = [draw(7, 9, seed=s, device=CPU) for s in (3, 3, 4)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    torch.rand(5)  # the global generator has no part in it
    assert torch.equal(masks[0], draw(7, 9, seed=3, device=CPU))
    assert torch.equal(masks[0], draw(40, 9, seed=3, device=CPU)[:7])  # padding behind a row changes nothing


def test_the_update_and_its_gradients_are_those_of_plain_dropout(make_model: Callable[..., Any]) -> None:
    """A run of two rows, one of a single row, one of the base model between: against linear and autograd."""
    bank = filled(make_model(), lora(dropout=0.5))
    layer = next(iter(bank.layers.values()))
    x = torch.randn(1, 7, 32)
    pack = pack_rows([[1] * 2, [1], [1] * 2, [1] * 2], [0, 0, -1, 1], device=CPU)
    seeds, spans = [5, 105, 0, 6], {0: slice(0, 3), 1: slice(5, 7)}
    masks = [keep(n, 32, seed=seed + layer.number) for n, seed in ((2, 5), (1, 105), (2, 6))]
    stays = {0: torch.cat(masks[:2]), 1: masks[2]}
    weight = torch.randn(7, layer.base.out_features)

    def plain(x: Tensor, weights: dict[int, tuple[Tensor, Tensor]]) -> Tensor:
        y = layer.base(x[0])
        for slot, span in spans.items():
            kept = x[0, span] * stays[slot] / (1 - 0.5)
            a, b = weights[slot]
            update = torch.zeros_like(y)
            update[span] = kept @ a.T @ b.T * bank.scaling
            y = y + update
        return y

    with bank.training(), bank.routed(pack, seeds):
        mine = x.clone().requires_grad_()
        got = given(layer, pack, mine)
        (got * weight).sum().backward()
        found = {s: (layer.a[s].grad, layer.b[s].grad) for s in spans}
        assert all(grad.abs().max() > 0 for pair in found.values() for grad in pair)  # type: ignore[union-attr]
    leaves = {s: tuple(w.detach().clone().requires_grad_() for w in (layer.a[s], layer.b[s])) for s in spans}
    other = x.clone().requires_grad_()
    want = plain(other, leaves)  # type: ignore[arg-type]
    (want * weight).sum().backward()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-5)
    for slot in spans:
        for got_grad, leaf in zip(found[slot], leaves[slot], strict=True):
            torch.testing.assert_close(got_grad, leaf.grad, rtol=1e-5, atol=1e-4)


def test_dropout_in_a_batch(make_model: Callable[..., Any]) -> None:
    """A slot's mask follows its own seed and not who else is in the batch; without seeds there is none."""
    bank = filled(make_model(), lora(dropout=0.5))
    layer = next(iter(bank.layers.values()))
    x = torch.rand(1, 5, 32) + 1

    def run(lengths: list[int], slots: list[int], seeds: list[int] | None) -> Tensor:
        pack = pack_rows([[1] * n for n in lengths], slots, device=CPU)
        with torch.no_grad(), bank.routed(pack, seeds):
            return given(layer, pack, x[:, : sum(lengths)])

    together = run([3, 2], [0, 1], [10, 20])
    single = run([3], [0], [10])
    torch.testing.assert_close(together[:3], single)  # not bitwise: processors sum 5 rows unlike 3
    assert not torch.allclose(run([3], [0], [11]), single)
    assert not torch.allclose(run([3], [0], None), single)
    torch.testing.assert_close(run([3], [0], None), run([3, 2], [0, 1], None)[:3])


def test_layers_draw_different_masks(make_model: Callable[..., Any]) -> None:
    """q_proj and v_proj of a layer read the same input; with equal weights only their masks can differ."""
    model = make_model(num_key_value_heads=4)
    bank = AdapterBank(model, lora(dropout=0.5), slots=1)
    bank.flat.fill_(0.1)
    q, v = list(bank.layers.values())[:2]
    assert q.base.weight.shape == v.base.weight.shape
    x = torch.ones(1, 3, 32)
    pack = pack_rows([[1, 2, 3]], [0], device=CPU)
    with bank.routed(pack, [7]):
        first, second = (given(layer, pack, x) - layer.base(x)[0] for layer in (q, v))
    assert not torch.allclose(first, second, atol=1e-3)
    with bank.routed(pack):
        first, second = (given(layer, pack, x) - layer.base(x)[0] for layer in (q, v))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_runs_by_hand() -> None:
    """Lengths 2, 3, 1, 4 of slots 0, 0, -1, 0."""
    assert token_runs([2, 3, 1, 4], [0, 0, -1, 0]) == [(0, 0, 5), (-1, 5, 6), (0, 6, 10)]


def test_a_detached_bank_is_let_go_at_once(tiny: Any) -> None:
    """Not when Python happens to look for circles: every commit of cells makes a new bank."""
    bank = AdapterBank(tiny, lora(), slots=2)
    gone = weakref.ref(bank)
    bank.detach(tiny)
    gc.disable()
    try:
        del bank
        assert gone() is None
    finally:
        gc.enable()
