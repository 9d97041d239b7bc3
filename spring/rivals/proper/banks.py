"""Banks of LoRA experts that all slots share (levels.py), in the place of an AdapterBank.

    GroupLessons   level 2 in training: one slot that holds the experts, the router and all users' embeddings
    GroupBank      level 2 frozen: a slot is one user's embedding
    UserBank       level 3: a slot is one user's LoRA and LoRA-aware router

The engine treats them as it treats AdapterBank. Whatever is shared is a frozen buffer of the bank and no part
of `flat`: no step of a slot can change it. Their folders: spring/rivals/proper/files.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spring.engine.layers import widths
from spring.engine.lora import AdapterBank
from spring.engine.lowrank import BankedLinear, Route
from spring.engine.packing import Pack
from spring.engine.passes import least
from spring.engine.peft import tensor_name
from spring.engine.settings import Lora
from spring.rivals.proper.files import ROUTER, USER, USERS, shared_name
from spring.rivals.proper.levels import Proper, likeness, mixture, user_aware


@dataclass(frozen=True)
class Stack:
    """Frozen low-rank updates of one layer behind one another: A [n R, D], B [D', n R]."""

    a: Tensor
    b: Tensor

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """The first update counts as it is, the others by weights [T, n - 1]: x [T, D] -> [T, D'] float32."""
        first = weights.new_ones(len(weights), 1)
        return mixture(x.float(), self.a, self.b, torch.cat([first, weights], 1))


def stack(tensors: Mapping[str, Tensor], layer: str, kinds: Sequence[str], device: torch.device) -> Stack:
    """The updates called `kinds` of a layer, from tensors under the names of `shared_name`."""
    a, b = (torch.cat([tensors[shared_name(layer, kind, x)] for kind in kinds], "AB".index(x)) for x in "AB")
    return Stack(a.to(device), b.to(device))


@dataclass(frozen=True, kw_only=True)
class SharedRoute(Route):
    """Where the tokens go, and which have a slot; those of the base model get nothing shared either."""

    covered: Tensor | None  # [T, 1] of 0 and 1; null: all of them

    def keep(self, update: Tensor) -> Tensor:
        """The shared update [T, D'] where it counts."""
        return update if self.covered is None else update * self.covered


def covered(pack: Pack) -> Tensor | None:
    """Which tokens of a pack have a slot; null: all of them."""
    if min(pack.slots) >= 0:
        return None
    rows = torch.tensor([slot >= 0 for slot in pack.slots], device=pack.row.device)
    return F.pad(rows[pack.row, None].float(), (0, 0, 0, pack.tail))


# --- level 2 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GroupRoute(SharedRoute):
    """Besides, what each expert counts for the tokens of a row."""

    gates: Tensor  # [L, R, N]
    row: Tensor  # [T] row of each token


class GroupLinear(BankedLinear):
    """A linear layer under the population update and experts that g weighs."""

    frozen: Stack  # population and, once they are learned, the experts

    def update(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """y + s (B_0 A_0 x + sum_i g_i B_i A_i x) for every token that has a slot."""
        assert isinstance(route, GroupRoute)
        gates = route.gates[self.number, route.row]  # [T, N]
        if not self.a:
            found = self.frozen(x[0], gates)
        else:  # in training, whose products are computed again for the backward pass rather than kept
            found = self.frozen(x[0], gates[:, :0]) + checkpoint(
                self._experts, x, gates, route, use_reentrant=False, preserve_rng_state=False
            )
        return (y.float() + route.keep(found) * self.bank[0].scaling).to(y.dtype)

    def _experts(self, x: Tensor, gates: Tensor, route: Route) -> Tensor:
        """sum_i g_i B_i A_i dropout(x) of the single lesson in the bank."""
        if route.masks is None:
            return mixture(x[0].float(), self.a[0], self.b[0], gates)
        p = self.bank[0].config.dropout
        kept = torch.cat([self.drawn(x.shape[2], x.device, rows) for rows in route.masks]) >= least(p)
        kept = F.pad(kept, (0, 0, 0, x.shape[1] - len(kept)))
        return mixture(x[0].float() * kept / (1 - p), self.a[0], self.b[0], gates)


class _Group(AdapterBank):
    """What both banks of level 2 have in common: text is pooled, users are looked up, g is found."""

    layer_type = GroupLinear
    by_prompt = True
    router: Tensor  # [L, N, D + E]

    def __init__(self, model: Any, config: Lora, *, slots: int) -> None:
        self.embed = model.get_input_embeddings()
        self._pooled: dict[tuple[int, ...], Tensor] = {}
        super().__init__(model, config, slots=slots)

    def _freeze(self, tensors: Mapping[str, Tensor], kinds: Sequence[str]) -> None:
        for name, layer in self.layers.items():
            assert isinstance(layer, GroupLinear)
            layer.frozen = stack(tensors, name, kinds, self.flat.device)

    def _plan(self, pack: Pack, seeds: Sequence[int] | None) -> Route:
        assert pack.prompts is not None, "rows that share a beginning have no prompt of their own"
        route = super()._plan(pack, seeds)
        text = torch.stack([self._pool(tuple(prompt)) for prompt in pack.prompts])
        gates = user_aware(self.router, text, self._users(pack))
        known = covered(pack)
        row = F.pad(pack.row, (0, pack.tail))
        said = (route.runs, route.masks, route.steps, route.tokens, route.spread)
        return GroupRoute(*said, covered=known, gates=gates, row=row)

    def _pool(self, prompt: tuple[int, ...]) -> Tensor:
        """t: the mean of a prompt's input embeddings [D], of unit length."""
        if prompt not in self._pooled:
            with torch.no_grad():
                mean = self.embed(torch.tensor(prompt, device=self.flat.device)).float().mean(0)
                self._pooled[prompt] = mean / mean.norm().clamp(min=1e-12)
        return self._pooled[prompt]

    def _users(self, pack: Pack) -> Tensor:
        """e_u of every row [R, E]."""
        raise NotImplementedError


class GroupLessons(_Group):
    """Level 2 in training, on the population LoRA `population` (PEFT's names) of `users` users."""

    def __init__(
        self, model: Any, config: Lora, experts: Proper, population: Mapping[str, Tensor], *, users: int
    ) -> None:
        self.experts, self.users = experts, users
        super().__init__(model, config, slots=1)
        found = {
            shared_name(name, "population", kind): population[tensor_name(name, kind)]
            for name in self.layers
            for kind in "AB"
        }
        self._freeze(found, ["population"])
        self.router = self.named[0][ROUTER]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        rank, n, e = self.config.r * self.experts.count, self.experts.count, self.experts.user_embedding
        shapes: dict[str, tuple[int, ...]] = {}
        for name, layer in self.layers.items():
            shapes[shared_name(name, "experts", "A")] = (rank, widths(layer.base)[0])
            shapes[shared_name(name, "experts", "B")] = (widths(layer.base)[1], rank)
        shapes[ROUTER] = (len(self.layers), n, self.embed.embedding_dim + e)
        shapes[USERS] = (self.users, e)
        return shapes

    def _give_to_layers(self) -> None:
        for name, layer in self.layers.items():
            layer.a, layer.b = ([self.named[0][shared_name(name, "experts", kind)]] for kind in "AB")

    def initialise(self, slot: int, *, seed: int) -> None:
        """Experts as fresh LoRAs; W_r uniform within 1 / sqrt(D + E), e_u normal, of length near 1 [ours]."""
        super().initialise(slot, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        router, users = self.named[slot][ROUTER], self.named[slot][USERS]
        bound = router.shape[2] ** -0.5
        router.data.copy_(torch.rand(router.shape, generator=generator) * (2 * bound) - bound)
        users.data.copy_(torch.randn(users.shape, generator=generator) / users.shape[1] ** 0.5)

    def regularise(self, slots: Sequence[int], grads: Tensor) -> None:
        """The gradient of the constraint: `experts.constraint` times the experts' likeness."""
        if not slots or self.experts.constraint == 0:
            return
        likenesses = [likeness(layer.a[0], layer.b[0], self.experts.count) for layer in self.layers.values()]
        loss = torch.stack(likenesses).mean() * self.experts.constraint
        found = torch.autograd.grad(loss, list(self.views(0)), allow_unused=True, materialize_grads=True)
        grads[slots.index(0)] += torch.cat([grad.flatten() for grad in found])

    def _users(self, pack: Pack) -> Tensor:
        assert pack.users is not None and min(pack.users) >= 0, "every text of the lesson has a writer"
        return self.named[0][USERS][torch.tensor(pack.users, device=self.flat.device)]


class GroupBank(_Group):
    """Level 2 frozen; a slot holds e_u and nothing else, a fresh one the mean embedding."""

    def __init__(
        self, model: Any, config: Lora, experts: Proper, shared: Mapping[str, Tensor], *, slots: int
    ) -> None:
        self.experts = experts
        super().__init__(model, config, slots=slots)
        self._freeze(shared, ["population", "experts"])
        self.router = shared[ROUTER].to(self.flat.device)
        self.mean = shared[USERS].mean(0)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {USER: (self.experts.user_embedding,)}

    def _give_to_layers(self) -> None:
        """Layers own nothing of a slot."""

    def initialise(self, slot: int, *, seed: int) -> None:
        """A user whom level 2 has not seen; nothing is drawn."""
        self.named[slot][USER].data.copy_(self.mean)

    def _users(self, pack: Pack) -> Tensor:
        slots = torch.tensor(pack.slots, device=self.flat.device).clamp(min=0)  # rows of the base model too
        return self.stacks[USER][slots]


# --- level 3 ----------------------------------------------------------------------------------------------


class UserLinear(BankedLinear):
    """A linear layer under the population update, experts that beta weighs, and the slot's own LoRA.

    W_l has A_u x in common with B_u, so it lies under it in one matrix [D' + N, R]: one low-rank update gives
    outputs and router scores together.
    """

    frozen: Stack

    def update(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """y + s (B_0 A_0 x + sum_i beta_i B_i A_i x + B_u A_u x) for every token that has a slot."""
        assert isinstance(route, SharedRoute)
        width = y.shape[2]
        count = len(self.b[0]) - width
        wide = super().update(x, F.pad(y.float(), (0, count)), route)
        beta = wide[0, :, width:].softmax(-1)
        shared = route.keep(self.frozen(x[0], beta))
        return (wide[..., :width] + shared * self.bank[0].scaling).to(y.dtype)


class UserBank(AdapterBank):
    """Level 3: a slot is one user's LoRA and LoRA-aware router, over frozen experts."""

    layer_type = UserLinear

    def __init__(
        self, model: Any, config: Lora, experts: Proper, shared: Mapping[str, Tensor], *, slots: int
    ) -> None:
        self.experts = experts
        super().__init__(model, config, slots=slots)
        for name, layer in self.layers.items():
            assert isinstance(layer, UserLinear)
            layer.frozen = stack(shared, name, ["population", "experts"], self.flat.device)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes()
        for name in self.layers:
            width, rank = shapes[tensor_name(name, "B")]
            shapes[tensor_name(name, "B")] = (width + self.experts.count, rank)
        return shapes

    def _plan(self, pack: Pack, seeds: Sequence[int] | None) -> Route:
        route = super()._plan(pack, seeds)
        said = (route.runs, route.masks, route.steps, route.tokens, route.spread)
        return SharedRoute(*said, covered=covered(pack))

    def state(self, slot: int) -> dict[str, Tensor]:
        """The slot's own tensors, B_u and W_l apart."""
        state = super().state(slot)
        for name in self.layers:
            wide = state[tensor_name(name, "B")]
            state[tensor_name(name, "B")] = wide[: -self.experts.count].clone()
            state[tensor_name(name, "router")] = wide[-self.experts.count :].clone()
        return state

    def load_state(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Puts a user's tensors into one slot."""
        joined = dict(state)
        for name in self.layers:
            router, b = joined.pop(tensor_name(name, "router"), None), joined.get(tensor_name(name, "B"))
            if router is not None and b is not None:
                joined[tensor_name(name, "B")] = torch.cat([b, router])
        super().load_state(slot, joined)
