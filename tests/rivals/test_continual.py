"""EWC, O-LoRA, SuRe, SAR and CAMA: the defining property of each, and that lessons stay apart."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.params import changed
from kit.training import assert_close, collate, learn, lesson, moved, recipe, texts
from torch import Tensor

from spring.engine.lessons import Learned, Lesson, plan_batches
from spring.engine.lora import AdapterBank, rank_of
from spring.engine.peft import save_adapter
from spring.engine.rules import Start
from spring.engine.scoring import token_logps
from spring.engine.texts import Text
from spring.rivals.cama import confidence, keep_confident
from spring.rivals.ewc_lora import EwcLora
from spring.rivals.o_lora import OLora
from spring.rivals.sar import SarDraw, draw_weights
from spring.rivals.surprise import Surprise
from spring.settings.params import ParameterError, parse
from spring.settings.train import Train

EWC: dict[str, Any] = {"method": "ewc-lora", "lmbda": 4.0, "gamma": 0.5}
O_LORA: dict[str, Any] = {"method": "o-lora", "lambda1": 0.5}
SURPRISE: dict[str, Any] = {"method": "surprise", "decay": 0.5}
RULES = [EWC, O_LORA, SURPRISE]
MakeModel = Callable[..., Any]


def ruled(rule: dict[str, Any] | None, **changes: Any) -> Train:
    return recipe(start="previous", rule=rule, **changes)


def go_on(found: Learned, *, number: int, count: int) -> Lesson:
    """The lesson of the next period."""
    return Lesson(texts(count=count, seed=number), found.state, 100 + number, carried=found.carried)


def flat(state: Mapping[str, Tensor]) -> Tensor:
    """A state in the layout of `AdapterBank.flat`: layer after layer, A before B."""
    return torch.cat([value.flatten() for value in state.values()])


def parts(learned: Learned, kind: str) -> dict[str, Tensor]:
    return {name: value for name, value in learned.state.items() if f"lora_{kind}." in name}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values)


def bare(weights: Tensor, *, rank: int = 1, **carried: Tensor) -> Start:
    return Start(weights, rank, carried, lambda row: [])


# --- ewc-lora ---------------------------------------------------------------------------------------------


def test_ewc_penalty_and_gradient_by_hand() -> None:
    """theta* (1, 2, 3), F (0.5, 0, 2), theta (1.5, 9, 2): moved by (0.5, 7, -1).

    4 / 2 * (0.5 * 0.25 + 0 * 49 + 2 * 1) = 4.25; gradient 4 * (0.25, 0, -2) = (1, 0, -8), added to ones.
    """
    weights, grad = numbers(1.0, 2.0, 3.0), torch.ones(3)
    rule = EwcLora(**EWC).begin(bare(weights, fisher=numbers(0.5, 0.0, 2.0)))
    weights.copy_(numbers(1.5, 9.0, 2.0))
    assert rule.penalise(weights, grad) == pytest.approx(4.25)
    assert grad.tolist() == [2.0, 1.0, -7.0]


def test_ewc_first_period_is_free_and_fishers_add_up_by_gamma() -> None:
    """Mean of squares of (1, 2) and (3, 0): (5, 2). Then 0.5 * (5, 2) + (4, 0) = (6.5, 1)."""
    weights, grad = torch.zeros(2), torch.zeros(2)
    first = EwcLora(**EWC).begin(bare(weights, rank=0))
    assert first.penalise(torch.ones(2), grad) == 0 and grad.tolist() == [0, 0]
    first.observe(numbers(1.0, 2.0))
    first.observe(numbers(3.0, 0.0))
    carried = first.finish(weights)
    assert carried["fisher"].tolist() == [5.0, 2.0]
    second = EwcLora(**EWC).begin(bare(weights, **carried))
    second.observe(numbers(2.0, 0.0))
    assert second.finish(weights)["fisher"].tolist() == [6.5, 1.0]


def test_ewc_fisher_is_that_of_peft_at_the_learned_weights(make_model: MakeModel) -> None:
    """Two users with 5 and 2 texts; dropout while learning, none in the Fisher; one text after another."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = ruled(EWC, dropout=0.3)
    lessons = [lesson(0, count=5), lesson(1, count=2)]
    for one, found in zip(lessons, learn(make_model(), lessons, config, slots=2, budget=40), strict=True):
        settings = LoraConfig(r=4, lora_alpha=8, lora_dropout=0, target_modules=["q_proj", "v_proj"])
        wrapped = get_peft_model(make_model(), settings)
        set_peft_model_state_dict(wrapped, found.state)
        named = {n.replace(".default", ""): p for n, p in wrapped.named_parameters() if p.requires_grad}
        squares = []
        for text in one.texts:
            grads = torch.autograd.grad(wrapped(**collate([text])).loss, [named[n] for n in found.state])
            squares.append(torch.cat([grad.flatten() for grad in grads]) ** 2)
        expected = torch.stack(squares).mean(0)
        assert expected.max() > 1e-4
        torch.testing.assert_close(found.carried["fisher"], expected, rtol=1e-3, atol=1e-7)
        assert found.tokens == sum(map(len, one.texts)) * 3  # two epochs, and once for the Fisher


def test_ewc_holds_what_mattered(make_model: MakeModel) -> None:
    """The heavier the penalty, the nearer to the last period's values, as the Fisher measures it."""
    model = make_model()
    [first] = learn(model, [lesson(0, count=6)], ruled(EWC), slots=1)
    assert set(first.penalty) == {0.0}
    weighted = []
    for lmbda in (1e-6, 1e3, 1e5):
        config = ruled({**EWC, "lmbda": lmbda}, grad_clip=None, weight_decay=0.0)
        [found] = learn(model, [go_on(first, number=1, count=6)], config, slots=1)
        away = flat(found.state) - flat(first.state)
        weighted.append(float((first.carried["fisher"] * away**2).sum()))
        assert found.penalty[0] == 0 < found.penalty[-1]  # it starts where it is held
        assert float(away.abs().max()) > 1e-4
    assert weighted[2] < weighted[1] < weighted[0] and weighted[2] < weighted[0] / 10


# --- o-lora -----------------------------------------------------------------------------------------------


def overlap(learned: Learned, old: int) -> float:
    """sum |A_old A_new^T|, entry by entry."""
    return sum(
        abs(float(a[i] @ a[j]))
        for a in parts(learned, "A").values()
        for i in range(old)
        for j in range(old, len(a))
    )


def overlapping(learned: Learned, old: int) -> float:
    """The overlap as a share of the most it could be, which is that of rows in one direction."""
    rows = parts(learned, "A").values()
    return overlap(learned, old) / sum(
        float(a[:old].norm(dim=1).sum() * a[old:].norm(dim=1).sum()) for a in rows
    )


def second_period(model: Any, lambda1: float, **changes: Any) -> tuple[Learned, Learned]:
    config = ruled({**O_LORA, "lambda1": lambda1}, **changes)
    [first] = learn(model, [lesson(0, count=6)], config, slots=1)
    [found] = learn(model, [go_on(first, number=1, count=6)], config.at(1), slots=1)
    return first, found


def test_o_lora_penalty_equals_brute_force_and_its_gradient_autograd(make_model: MakeModel) -> None:
    config = ruled(O_LORA).at(1)
    bank = AdapterBank(make_model(), config.lora, slots=1)
    bank.flat.normal_(generator=torch.Generator().manual_seed(0))
    row, grad = bank.flat[0], torch.ones(bank.width)
    state = bank.state(0)
    value = OLora(**O_LORA).begin(Start(row, 4, {}, bank.split)).penalise(row, grad)
    learned = Learned(state, [], [], [], 0)
    assert value == pytest.approx(0.5 * overlap(learned, 4), rel=1e-4)
    for (name, a), (grad_a, grad_b) in zip(parts(learned, "A").items(), bank.split(grad), strict=True):
        new = a[4:].clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(0.5 * (a[:4] @ new.T).abs().sum(), new)
        torch.testing.assert_close(grad_a[4:], expected + 1, msg=name)
        assert not grad_a[:4].any() and not grad_b[:, :4].any() and (grad_b[:, 4:] == 1).all()


def test_o_lora_leaves_the_old_part_bitwise_and_learns_beside_it(make_model: MakeModel) -> None:
    first, found = second_period(make_model(), 0.5, dropout=0.3, weight_decay=0.5)
    for name, old in first.state.items():
        kept, new = found.state[name].split(4, dim=0 if "lora_A" in name else 1)
        assert torch.equal(kept, old), name
        assert float(new.abs().max()) > 1e-3, name
    assert rank_of(first.state) == 4 and rank_of(found.state) == 8
    assert not first.penalty[-1] and found.penalty[-1] > 0


@pytest.mark.slow
def test_o_lora_with_a_large_lambda_is_orthogonal(make_model: MakeModel) -> None:
    """A step of the optimizer is about its rate, which ends near zero, and so does the overlap."""
    model, settings = make_model(), {"epochs": 60, "warmup_ratio": 0.0, "weight_decay": 0.0, "lr": 0.003}
    _, free = second_period(model, 0.0, **settings)
    _, held = second_period(model, 100.0, **settings)
    assert overlapping(free, 4) > 0.05 and overlapping(held, 4) < 0.01


def test_o_lora_with_the_suites_lambda_overlaps_less_than_without(make_model: MakeModel) -> None:
    """0.07 against 0.14, in two short epochs; tests/test_compare.py has both arms of the suite."""
    [free, held] = [second_period(make_model(), lambda1)[1] for lambda1 in (0.0, O_LORA["lambda1"])]
    assert overlapping(held, 4) < 0.7 * overlapping(free, 4)


def test_o_lora_a_new_period_starts_as_the_old_adapter_answers(make_model: MakeModel) -> None:
    """The new B is zero and alpha / r stays: the wider adapter gives the same distribution."""
    model, config = make_model(), ruled(O_LORA)
    [first] = learn(model, [lesson(0, count=6)], config, slots=1)
    asked = [Text(t.prompt, t.response, slot=0) for t in texts(count=4, seed=9)]
    read = []
    for lora in (config.lora, config.at(1).lora):
        bank = AdapterBank(model, lora, slots=1)
        bank.extend(0, first.state, seed=3)
        read.append(np.concatenate(token_logps(model, bank, asked, budget=1000)))
        bank.detach(model)
    np.testing.assert_allclose(read[0], read[1], atol=1e-5)
    base = np.concatenate(token_logps(model, None, [Text(t.prompt, t.response) for t in asked], budget=1000))
    assert np.abs(read[0] - base).max() > 0.01


def test_o_lora_adapter_of_two_periods_is_an_adapter_of_peft(make_model: MakeModel, tmp_path: Path) -> None:
    from peft import PeftModel

    config, model = ruled(O_LORA).at(1), make_model()
    _, found = second_period(model, 0.5)
    save_adapter(found.state, config.lora, tmp_path, base_model="tiny")
    wrapped = PeftModel.from_pretrained(make_model(), str(tmp_path))
    loaded = wrapped.peft_config["default"]
    assert (loaded.r, loaded.lora_alpha) == (8, 16)
    bank = AdapterBank(model, config.lora, slots=1)
    bank.load_state(0, found.state)
    asked = texts(count=3, seed=9)
    ours = token_logps(model, bank, [Text(t.prompt, t.response, slot=0) for t in asked], budget=1000)
    for text, logps in zip(asked, ours, strict=True):
        ids = torch.tensor([text.prompt + text.response])
        every = wrapped(input_ids=ids).logits[0].log_softmax(-1)
        expected = [float(every[len(text.prompt) - 1 + i, token]) for i, token in enumerate(text.response)]
        np.testing.assert_allclose(logps, expected, atol=1e-4)


def test_an_adapter_that_does_not_fit_is_refused(make_model: MakeModel) -> None:
    bank = AdapterBank(make_model(), ruled(O_LORA).at(1).lora, slots=1)
    with pytest.raises(ValueError, match="missing or unknown"):
        bank.extend(0, {"other.lora_A.weight": torch.zeros(4, 32)}, seed=0)


# --- surprise ---------------------------------------------------------------------------------------------


def test_surprise_slow_adapter_by_hand() -> None:
    """decay 0.5, fast 0 -> 1 -> 3: slow 0 -> 0.5 -> 1.75. The next lesson starts at 3, its slow at 1.75."""
    weights = torch.zeros(1)
    rule = Surprise(**SURPRISE).begin(bare(weights, rank=0))
    for value in (1.0, 3.0):
        weights.fill_(value)
        rule.stepped(weights)
    carried = rule.finish(weights)
    assert weights.tolist() == [1.75] and carried["fast"].tolist() == [3.0]
    again = Surprise(**SURPRISE).begin(bare(weights, **carried))
    assert weights.tolist() == [3.0]
    again.stepped(weights)
    again.finish(weights)
    assert weights.tolist() == [1.75 * 0.5 + 3.0 * 0.5]


def test_surprise_the_fast_adapter_learns_as_if_alone_and_is_gone_on_from(make_model: MakeModel) -> None:
    model, plain = make_model(), ruled(None)
    [alone] = learn(model, [lesson(0, count=6)], plain, slots=1)
    [found] = learn(model, [lesson(0, count=6)], ruled(SURPRISE), slots=1)
    assert torch.equal(found.carried["fast"], flat(alone.state)) and found.loss == alone.loss
    assert moved(found, alone) > 1e-3
    [later] = learn(model, [go_on(alone, number=1, count=4)], plain, slots=1)
    [second] = learn(model, [go_on(found, number=1, count=4)], ruled(SURPRISE), slots=1)
    assert torch.equal(second.carried["fast"], flat(later.state))
    [same] = learn(model, [lesson(0, count=6)], ruled({**SURPRISE, "decay": 0.0}), slots=1)
    assert moved(same, alone) == 0


# --- all rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["method"])
def test_lessons_together_equal_each_alone(rule: dict[str, Any], make_model: MakeModel) -> None:
    """Three users on two slots, two periods, with dropout; what is carried too."""
    model, config = make_model(), ruled(rule, dropout=0.3)
    counts = (5, 2, 7)
    first = learn(model, [lesson(i, count=n) for i, n in enumerate(counts)], config, slots=2, budget=80)
    later = [
        go_on(found, number=10 + i, count=n) for i, (found, n) in enumerate(zip(first, counts, strict=True))
    ]
    together = learn(model, later, config.at(1), slots=2, budget=80)
    for one, found in zip(later, together, strict=True):
        [alone] = learn(model, [one], config.at(1), slots=1)
        assert_close(found, alone)
        assert found.carried.keys() == alone.carried.keys()
        for name, value in alone.carried.items():
            torch.testing.assert_close(found.carried[name], value, rtol=1e-2, atol=2e-4)
    assert moved(together[0], together[1]) > 0.01


# --- sar --------------------------------------------------------------------------------------------------


def test_sar_weights_by_hand() -> None:
    """Clusters of 1, 2 and 2: sizes times one plus uses are 1 * 4, 2 * 1, 2 * 2, ..."""
    assert draw_weights([7, 8, 8, 9, 9], [3, 0, 1, 0, 0]) == [1 / 4, 1 / 2, 1 / 4, 1 / 2, 1 / 2]


def test_sar_first_draws_have_their_frequencies() -> None:
    """Weights (1/4, 1/2, 1/4, 1/2, 1/2) / 2; 4000 draws lie within 4 standard deviations of 0.008 at most."""
    draw, generator = SarDraw((7, 8, 8, 9, 9), (3, 0, 1, 0, 0)), torch.Generator().manual_seed(0)
    counts = Counter(next(draw(1, generator))[0] for _ in range(4000))
    expected = np.array([0.125, 0.25, 0.125, 0.25, 0.25])
    np.testing.assert_allclose([counts[i] / 4000 for i in range(5)], expected, atol=0.032)


def test_sar_uses_follow_the_root_of_the_cluster_size() -> None:
    """du/dt ~ 1 / (size (1 + u)), so u ~ sqrt(t / size): clusters of 8 and 2 differ by sqrt(4) = 2."""
    draw = SarDraw((0,) * 8 + (1,) * 2, (0,) * 10)(1, torch.Generator().manual_seed(0))
    counts = Counter(i for [i] in itertools.islice(draw, 3000))
    uses = np.array([counts[i] for i in range(10)])
    assert uses[8:].mean() / uses[:8].mean() == pytest.approx(2, rel=0.05)
    assert uses[:8].std() / uses[:8].mean() < 0.1  # items of a cluster are used alike


def test_sar_draws_into_batches_without_repeats() -> None:
    new, old = texts(count=4, seed=0), texts(count=3, seed=1)
    config = recipe(replay_share=0.67, replay_draw="sar", epochs=5)
    plan = plan_batches(Lesson(new, None, 5, old, draw=SarDraw((0, 0, 1), (0, 0, 9**9))), config)
    assert len(plan) == 20 and all(len({id(text) for text in batch}) == 3 for batch in plan)
    used = Counter(id(text) for batch in plan for text in batch)
    assert [used[id(text)] for text in new] == [5] * 4
    assert used[id(old[2])] == 0 < used[id(old[0])] == used[id(old[1])]  # the worn one rests


# --- cama -------------------------------------------------------------------------------------------------


def test_cama_keeps_what_exceeds_the_mean_of_the_period_before() -> None:
    """Confidences e^(-2/2), e^(-1), e^(-12/4) against a mean of 0.3: 0.37, 0.37, 0.05; equal is not above."""
    new = confidence([-2.0, -1.0, -12.0], [2, 1, 4])
    np.testing.assert_allclose(new, np.exp([-1, -1, -3]))
    assert keep_confident(new, np.array([0.1, 0.5])).tolist() == [0, 1]
    assert keep_confident(np.array([0.3, 0.2]), np.array([0.1, 0.5])).tolist() == [0]  # the surest, if none
    assert keep_confident(np.array([0.5, 0.25, 0.75]), np.array([0.5, 0.5])).tolist() == [2]


# --- parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "named"),
    [
        ({"rule": {"method": "ewc", "lmbda": 1, "gamma": 1}}, "'ewc-lora', 'o-lora', 'surprise'"),
        ({"rule": {**EWC, "lmbda": 0}}, r"rule\.ewc-lora\.lmbda is 0: .*greater than 0"),
        ({"rule": {**EWC, "gamma": 2}}, r"gamma is 2: .*less than or equal to 1"),
        ({"rule": {**O_LORA, "lambda1": -1}}, r"lambda1 is -1: .*greater than or equal to 0"),
        ({"rule": {**SURPRISE, "decay": 1}}, r"decay is 1: .*less than 1"),
        ({"rule": {**SURPRISE, "lmbda": 1}}, r"surprise\.lmbda: no such key; allowed are decay, method"),
        ({"rule": O_LORA, "start": "base"}, "o-lora needs train.start: previous, not base"),
        ({"replay_draw": "sar"}, "replay_draw sar needs train.replay_share > 0"),
        ({"data": "sure"}, "data is 'sure': .*'confident'"),
    ],
)
def test_bad_values_are_named(train: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        parse(changed("arms.spring", {"train": train}))


def test_arms_without_a_rule_keep_their_fingerprints() -> None:
    arms = parse(changed("arms.ewc", {"train": {"rule": EWC}})).arms
    assert not {"rule", "replay_draw"} & set(arms["spring"].train.model_dump())
    assert arms["ewc"].recipe != arms["spring"].recipe
    assert arms["spring"].train.at(3) is arms["spring"].train
