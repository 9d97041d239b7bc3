"""PROPER: experts, routers and levels against loops over plain linear layers; who shares what."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from kit.decoding import decode, reference
from kit.training import TOLERANCE, assert_close, recipe, texts
from torch import Tensor, nn

from spring.engine.budget import Room
from spring.engine.decoding import generate
from spring.engine.lessons import Lesson
from spring.engine.lora import AdapterBank
from spring.engine.peft import read_adapter
from spring.engine.queries import Query
from spring.engine.scoring import token_logps
from spring.engine.settings import Lora
from spring.engine.texts import Text
from spring.engine.training import train
from spring.rivals.proper.banks import GroupBank, GroupLessons, UserBank
from spring.rivals.proper.files import group_files, read_shared
from spring.rivals.proper.levels import Proper, likeness, mixture, user_aware

TARGETS = ("gate_proj", "up_proj", "down_proj")
LORA = Lora(r=2, alpha=3, dropout=0.0, target_modules=TARGETS)
PROPER = Proper(
    name="proper",
    level="user",
    scope="population",
    count=3,
    constraint=0.1,
    user_embedding=5,
    population_epochs=1,
    group_epochs=2,
)
USERS = 4
MakeModel = Callable[..., Any]


def population(model: Any, *, seed: int = 1, std: float = 0.2) -> dict[str, Tensor]:
    """A stage 1 that has learned something, as PEFT names it."""
    bank = AdapterBank(model, LORA, slots=1)
    bank.flat.normal_(std=std, generator=torch.Generator().manual_seed(seed))
    state = bank.state(0)
    bank.detach(model)
    return state


def shared_files(model: Any, *, std: float = 0.3) -> dict[str, bytes]:
    """What is kept of a stage 2 that has learned something."""
    beneath = population(model)
    bank = GroupLessons(model, LORA, PROPER, beneath, users=USERS)
    bank.flat.normal_(std=std, generator=torch.Generator().manual_seed(2))
    described = {"users": [f"user {u}" for u in range(USERS)]}
    files = group_files(bank.state(0), beneath, LORA, described=described)
    bank.detach(model)
    return files


def shared(model: Any, *, std: float = 0.3) -> dict[str, Tensor]:
    """The shared part, through its file."""
    return read_shared(shared_files(model, std=std))


class Plain(nn.Module):
    """W'x + s sum_i w_i B_i A_i x + s B_u A_u x, expert after expert; `weigh` gives w of one token."""

    def __init__(
        self, base: nn.Linear, name: str, part: Mapping[str, Tensor], own: Mapping[str, Tensor], weigh: Any
    ) -> None:
        super().__init__()
        self.base, self.weigh = base, weigh
        self.zero = part[f"{name}.population_A"], part[f"{name}.population_B"]
        a, b = part[f"{name}.experts_A"], part[f"{name}.experts_B"]
        self.experts = [
            (a[2 * i : 2 * i + 2], b[:, 2 * i : 2 * i + 2]) for i in range(PROPER.count)
        ]  # rank 2
        stem = f"base_model.model.{name}.lora_"
        self.own = [own[f"{stem}{kind}.weight"] for kind in ("A", "B", "router")] if own else []

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x).clone()
        for row, token in itertools.product(range(x.shape[0]), range(x.shape[1])):
            one = x[row, token]
            w = self.weigh(self, one)
            update = self.zero[1] @ (self.zero[0] @ one)
            for i, (a, b) in enumerate(self.experts):
                update = update + w[i] * (b @ (a @ one))
            if self.own:
                update = update + self.own[1] @ (self.own[0] @ one)
            out[row, token] += 1.5 * update  # 3 / 2
        return out


def plain_model(
    model: Any, part: Mapping[str, Tensor], *, own: Mapping[str, Tensor] | None = None, gates: Any = None
) -> Any:
    """`model` with plain layers: at level 3 under a user's tensors, at level 2 under `gates` [L, N]."""
    names = [n for n, _ in model.named_modules() if n.rsplit(".", 1)[-1] in TARGETS]
    for number, name in enumerate(names):
        parent, _, child = name.rpartition(".")
        if own is not None:

            def weigh(layer: Plain, x: Tensor) -> Tensor:
                return (1.5 * (layer.own[2] @ (layer.own[0] @ x))).softmax(0)
        else:

            def weigh(layer: Plain, x: Tensor, g: Tensor = gates[number]) -> Tensor:
                return g

        base = model.get_submodule(name)
        setattr(model.get_submodule(parent), child, Plain(base, name, part, own or {}, weigh))
    return model


def gates_of(model: Any, part: Mapping[str, Tensor], prompt: tuple[int, ...], user: Tensor) -> Tensor:
    """g of every layer [L, N], layer by layer and expert by expert."""
    rows = model.get_input_embeddings().weight[list(prompt)]
    text = rows.sum(0) / len(prompt)
    text = text / (text**2).sum() ** 0.5
    seen = torch.cat([text, user])
    return torch.stack(
        [torch.stack([(w * seen).sum() for w in layer]).softmax(0) for layer in part["router"]]
    )


# --- equations --------------------------------------------------------------------------------------------


def test_likeness_by_hand() -> None:
    """Updates diag(1, 0), diag(1, 1), diag(0, 2): |cos| 1 / sqrt 2, 0 and 1 / sqrt 2; mean sqrt 2 / 3."""
    a = torch.tensor([[1.0, 0], [0, 0], [1, 0], [0, 1], [0, 1], [0, 0]])
    b = torch.tensor([[1.0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 2, 0]])
    assert likeness(a, b, 3).item() == pytest.approx(2**0.5 / 3, abs=1e-6)
    assert likeness(a, -b, 3).item() == pytest.approx(2**0.5 / 3, abs=1e-6)
    fresh = torch.zeros_like(b, requires_grad=True)
    value = likeness(a, fresh, 3)
    value.backward()
    assert value.item() == 0 and torch.equal(fresh.grad, torch.zeros_like(b))  # type: ignore[arg-type]


def test_likeness_and_its_gradient_equal_whole_updates() -> None:
    """Against the matrices B_i A_i themselves; the gradient in float64 by central differences."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(8, 5, generator=generator, dtype=torch.float64).requires_grad_()
    b = torch.randn(7, 8, generator=generator, dtype=torch.float64).requires_grad_()

    def brute(a: Tensor, b: Tensor) -> Tensor:
        updates = [(b[:, 2 * i : 2 * i + 2] @ a[2 * i : 2 * i + 2]).flatten() for i in range(4)]
        pairs = [(x @ y).abs() / (x.norm() * y.norm()) for x, y in itertools.combinations(updates, 2)]
        return torch.stack(pairs).mean()

    assert likeness(a, b, 4).item() == pytest.approx(brute(a, b).item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: likeness(a, b, 4), (a, b))


def test_constraint_enters_the_loss_of_level_2(make_model: MakeModel) -> None:
    """`regularise` adds weight times the gradient of the mean likeness over layers; to routers nothing."""
    model = make_model()
    bank = GroupLessons(model, LORA, PROPER, population(model), users=USERS)
    bank.flat.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    grads = torch.ones(1, bank.width)
    with bank.training():
        bank.regularise([0], grads)
        pairs = [[view for name, view in bank.named[0].items() if f"experts_{k}" in name] for k in "AB"]
        total = sum(likeness(a, b, 3) for a, b in zip(*pairs, strict=True)) / len(bank.layers) * 0.1
        total.backward()  # type: ignore[union-attr]
    expected = [torch.zeros_like(v) if v.grad is None else v.grad for v in bank.views(0)]
    torch.testing.assert_close(grads[0], torch.cat([g.flatten() for g in expected]) + 1)
    assert (grads[0] - 1).abs().max() > 1e-4
    size = sum(v.numel() for n, v in bank.named[0].items() if n in ("router", "user_embeddings"))
    assert torch.equal(grads[0, -size:], torch.ones(size))
    bank.detach(model)


def test_mixture_and_router_by_hand() -> None:
    """Experts of rank 1: A_1 x = 2, A_2 x = 3; B_1 = (1, 0), B_2 = (0, 1); weights (1/2, 2)."""
    a, b = torch.tensor([[1.0, 0], [0, 1]]), torch.eye(2)
    found = mixture(torch.tensor([[2.0, 3.0]]), a, b, torch.tensor([[0.5, 2.0]]))
    assert found.tolist() == [[1.0, 6.0]]
    router = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])  # one layer, N = 2, D = 2, E = 1
    g = user_aware(router, torch.tensor([[0.5, 1.0], [0.5, 1.0]]), torch.tensor([[0.5], [-0.5]]))
    assert g[0, 0].tolist() == [0.5, 0.5]  # scores 1 and 1
    assert g[0, 1, 1].item() == pytest.approx(1 / (1 + np.exp(-1)))  # scores 0 and 1


# --- banks ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def part(make_model: MakeModel) -> dict[str, Tensor]:
    return shared(make_model())


def user_bank(model: Any, part: Mapping[str, Tensor], *, slots: int = 2, std: float = 0.3) -> UserBank:
    bank = UserBank(model, LORA, PROPER, part, slots=slots)
    bank.flat.normal_(std=std, generator=torch.Generator().manual_seed(4))
    return bank


def group_bank(model: Any, part: Mapping[str, Tensor]) -> GroupBank:
    """Slot 0 and 1 are users 0 and 1 of level 2."""
    bank = GroupBank(model, LORA, PROPER.model_copy(update={"level": "group"}), part, slots=2)
    for slot in range(2):
        bank.load_state(slot, {"user_embedding": part["user_embeddings"][slot]})
    return bank


def asked() -> list[Query]:
    """Prompts of several lengths for the base model and two slots; two paths in some; lambda 0 to 1."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(7):
        prompt = tuple(generator.integers(0, 320, generator.integers(1, 12)).tolist())
        context = tuple(generator.integers(0, 320, 9).tolist()) + prompt
        found.append(Query(prompt, context if i % 2 else None, 0.4, [0, 1, 1, 0, -1, 1, -1][i]))
    return found


def test_user_level_decodes_as_loops_over_plain_layers(
    part: dict[str, Tensor], make_model: MakeModel
) -> None:
    """One batch, cached, against one query at a time, uncached; rows of the base model stand between."""
    model, settings = make_model(), decode(most=4)
    bank = user_bank(model, part)
    answers = generate(model, bank, asked(), settings, stop=(), room=Room(10_000), budget=4096)
    own = {slot: bank.state(slot) for slot in range(2)}
    plain = {slot: plain_model(make_model(), part, own=own[slot]) for slot in range(2)}
    plain[-1] = make_model()
    for query, answer in zip(asked(), answers, strict=True):
        assert answer.tokens == reference(plain[query.slot], query, settings)[0]
    assert len({tuple(answer.tokens) for answer in answers}) > 3


def test_group_level_decodes_with_the_gates_of_each_prompt(
    part: dict[str, Tensor], make_model: MakeModel
) -> None:
    """The prompt's mean decides for every token behind it, so a query of one path is one plain model."""
    model, settings = make_model(), decode(most=4)
    bank = group_bank(model, part)
    queries = [
        Query(prompt, None, 0.0, query.slot)
        for query in asked()
        for prompt in (query.prompt, query.context_prompt)
        if prompt is not None
    ]
    answers = generate(model, bank, queries, settings, stop=(), room=Room(60), budget=30)
    for query, answer in zip(queries, answers, strict=True):
        alone = make_model()
        if query.slot >= 0:
            gates = gates_of(alone, part, query.prompt, part["user_embeddings"][query.slot])
            plain_model(alone, part, gates=gates)
        assert answer.tokens == reference(alone, query, settings)[0]
    spread = [gates_of(make_model(), part, query.prompt, torch.zeros(5)) for query in queries]
    assert torch.stack(spread).std(0).max() > 0.05, "or the pooled text was not tested"


@pytest.mark.parametrize("level", ["group", "user"])
def test_two_paths_and_scoring_agree_with_decoding(
    level: str, part: dict[str, Tensor], make_model: MakeModel
) -> None:
    """A reference's likelihood read with the prompt, in a packed batch with common beginnings, one by one."""
    model = make_model()
    bank = group_bank(model, part) if level == "group" else user_bank(model, part)
    begin = tuple(range(3, 15))
    rows = [Text((*begin, i), (40 + i, 7, 9), slot=i % 2) for i in range(6)]
    queries = [Query(row.prompt, begin[i:], 0.5, row.slot, row.response) for i, row in enumerate(rows)]
    settings = decode(most=1)
    answers = generate(model, bank, queries, settings, stop=(), room=Room(10_000), budget=4096)
    together = token_logps(model, bank, rows, budget=4096)
    second = [Text(begin[i:], row.response, row.slot) for i, row in enumerate(rows)]
    context = token_logps(model, bank, second, budget=4096)
    for i, row in enumerate(rows):
        [alone] = token_logps(model, bank, [row], budget=4096)
        np.testing.assert_allclose(together[i], alone, atol=1e-4)
        mixed = np.logaddexp(together[i].astype(float), context[i]) - np.log(2)
        np.testing.assert_allclose(answers[i].reference, mixed, atol=1e-4)
    assert np.abs(together[0] - token_logps(model, None, rows[:1], budget=99)[0]).max() > 0.1


def test_with_experts_and_user_at_zero_the_result_is_the_merged_model(
    part: dict[str, Tensor], make_model: MakeModel
) -> None:
    """W' = W + s B_0 A_0 written into a plain model's weights."""
    empty = {n: t if "population" in n else torch.zeros_like(t) for n, t in part.items()}
    merged = make_model()
    for name, module in merged.named_modules():
        if name.rsplit(".", 1)[-1] in TARGETS:
            module.weight += 1.5 * part[f"{name}.population_B"] @ part[f"{name}.population_A"]
    rows = [Text(text.prompt, text.response, slot=0) for text in texts(count=4, seed=0)]
    expected = token_logps(merged, None, rows, budget=999)
    for make in (user_bank, group_bank):
        model = make_model()
        bank = make(model, empty)
        bank.flat.zero_()
        for found, wanted in zip(token_logps(model, bank, rows, budget=999), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4)
        bank.detach(model)
        assert token_logps(model, None, rows, budget=999)[0].tolist() != expected[0].tolist()


def test_an_unseen_user_gets_the_mean_embedding(part: dict[str, Tensor], make_model: MakeModel) -> None:
    """A fresh slot of level 2, and what the shared folder holds as its own adapter."""
    model = make_model()
    kept = read_adapter(shared_files(make_model()))
    own = kept["user_embedding"]
    torch.testing.assert_close(own, part["user_embeddings"].mean(0))
    bank = group_bank(model, part)
    bank.initialise(0, seed=0)
    bank.load_state(1, kept)
    rows = [Text((5, 6, 7), (8, 9), slot=slot) for slot in range(2)]
    first, second = token_logps(model, bank, rows, budget=999)
    np.testing.assert_array_equal(first, second)
    bank.load_state(1, {"user_embedding": part["user_embeddings"][1]})
    assert np.abs(token_logps(model, bank, rows, budget=999)[1] - second).max() > 1e-3


def test_a_users_tensors_survive_their_names(part: dict[str, Tensor], make_model: MakeModel) -> None:
    model = make_model()
    bank = user_bank(model, part)
    state = bank.state(1)
    assert {n.rsplit("lora_", 1)[1] for n in state} == {"A.weight", "B.weight", "router.weight"}
    before = bank.flat[1].clone()
    bank.load_state(0, state)
    assert torch.equal(bank.flat[0], before)
    del state[next(iter(state))]
    with pytest.raises(ValueError, match="does not fit"):
        bank.load_state(0, state)


# --- learning ---------------------------------------------------------------------------------------------


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_many_users_at_once_equal_each_alone_and_change_nothing_beneath(
    part: dict[str, Tensor], make_model: MakeModel
) -> None:
    """Level 3 with dropout, three lessons on two slots, one warm-started; base and shared stay bitwise."""
    model = make_model()
    before = weights_of(model)
    config = recipe(lora=LORA.model_copy(update={"dropout": 0.3}))
    warm = user_bank(model, part)
    start = warm.state(0)
    warm.detach(model)
    lessons = [
        Lesson(texts(count=n, seed=i), start if i == 1 else None, seed=i) for i, n in enumerate((5, 3, 7))
    ]

    def learn(some: list[Lesson], slots: int, **how: Any) -> Any:
        bank = UserBank(model, config.lora, PROPER, part, slots=slots)
        stacks = [(layer.frozen.a.clone(), layer.frozen.b.clone()) for layer in bank.layers.values()]  # type: ignore[union-attr]
        found = train(model, bank, some, config, budget=80, **how)
        for layer, (a, b) in zip(bank.layers.values(), stacks, strict=True):
            assert torch.equal(layer.frozen.a, a) and torch.equal(layer.frozen.b, b)  # type: ignore[union-attr]
        bank.detach(model)
        return found

    together = learn(lessons, 2)
    for one, found in zip(lessons, together, strict=True):
        assert_close(found, learn([one], 1)[0])
    assert_close(together[0], learn(lessons[:1], 1, checkpoint=True)[0])
    routers = [value.abs().max() for name, value in together[0].state.items() if "router" in name]
    assert max(routers) > 1e-3, "the LoRA-aware router learned"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def planted(*, prompts: int = 6) -> list[Text]:
    """Users 0, 1 always answer 7 7 7, users 2, 3 always 9 9 9, to the same prompts."""
    generator = np.random.default_rng(5)
    asked = [tuple(generator.integers(20, 320, 4).tolist()) for _ in range(prompts)]
    return [Text(p, (7, 7, 7) if user < 2 else (9, 9, 9), user=user) for p in asked for user in range(USERS)]


def learn_groups(
    model: Any,
    *,
    constraint: float = 0.1,
    epochs: int = 12,
    dropout: float = 0.0,
    checkpoint: bool = False,
) -> dict[str, Tensor]:
    lora = LORA.model_copy(update={"dropout": dropout})
    config = recipe(lora=lora, epochs=epochs, batch_size=8, lr=0.02)
    experts = PROPER.model_copy(update={"count": 2, "constraint": constraint})
    beneath = population(model, std=0.05)
    kept = {name: value.clone() for name, value in beneath.items()}
    bank = GroupLessons(model, lora, experts, beneath, users=USERS)
    [learned] = train(
        model, bank, [Lesson(planted(), None, seed=3)], config, budget=9999, checkpoint=checkpoint
    )
    for name, layer in bank.layers.items():
        stem = f"base_model.model.{name}.lora_"
        assert torch.equal(layer.frozen.a, kept[f"{stem}A.weight"])  # type: ignore[union-attr]
        assert torch.equal(layer.frozen.b, kept[f"{stem}B.weight"])  # type: ignore[union-attr]
    bank.detach(model)
    return learned.state


def test_the_router_separates_planted_groups_and_their_experts_differ(make_model: MakeModel) -> None:
    """Users of one group end closer in g than users of two; updates are unlike; level 1 stays bitwise."""
    model = make_model()
    before = weights_of(model)
    state = learn_groups(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    prompt = planted()[0].prompt
    g = [gates_of(model, state, prompt, user).flatten() for user in state["user_embeddings"]]
    apart = torch.cdist(torch.stack(g), torch.stack(g))
    inside, between = max(apart[0, 1], apart[2, 3]), apart[:2, 2:].min()
    assert between > 2 * inside and between > 0.3, (inside, between)
    names = {name.removesuffix(".experts_A") for name in state if name.endswith(".experts_A")}
    alike = [likeness(state[f"{n}.experts_A"], state[f"{n}.experts_B"], 2).item() for n in names]
    assert np.mean(alike) < 0.5
    free = learn_groups(model, constraint=0.0)
    unbound = [likeness(free[f"{n}.experts_A"], free[f"{n}.experts_B"], 2).item() for n in names]
    assert np.mean(alike) < np.mean(unbound), "the constraint keeps experts apart"


def test_what_routes_is_of_unit_length(make_model: MakeModel) -> None:
    """A step of Adam then moves a score by sqrt(D) + sqrt(E) rates; longer vectors end in one expert."""
    model = make_model()
    bank = GroupLessons(model, LORA, PROPER, population(model), users=200)
    bank.initialise(0, seed=1)
    assert bank._pool((5, 9, 2)).norm().item() == pytest.approx(1)
    lengths = bank.named[0]["user_embeddings"].norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1, abs=0.1)


def test_level_2_with_checkpoints_is_the_same(make_model: MakeModel) -> None:
    model = make_model()
    once, again = (learn_groups(model, epochs=1, dropout=0.3, checkpoint=on) for on in (False, True))
    for name, value in once.items():
        torch.testing.assert_close(again[name], value, **TOLERANCE)
    plain = learn_groups(model, epochs=1)
    assert max((plain[n] - value).abs().max() for n, value in once.items()) > 1e-3, "dropout was on"
