"""How adapters learn: the block `train` of an arm."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from spring.engine.settings import Learning, only
from spring.engine.strict import added
from spring.method.scorers import Select
from spring.rivals.asls import Asls
from spring.rivals.ewc_lora import EwcLora
from spring.rivals.o_lora import OLora
from spring.rivals.proper.levels import Proper
from spring.rivals.surprise import Surprise
from spring.store.keys import fingerprint

Online = Asls  # the methods of `train.online`


class Train(Learning):
    """How an arm's adapters learn.

    scope: whose items an adapter learns from. `user`: the user's own and nobody else's. `population` [ours]:
    one adapter for all users, of those items that are dated no later than any test query of the period;
    `population-transductive`: of all items, also later ones.
    start: `previous` is a warm start, `base` a fresh adapter each period. `population` [ours] is a warm start
    too, and before period 0 lies the shared adapter that these settings give on everybody's period 0, of the
    items that `scope: population` would learn; `population-transductive`: of all items.
    online: text by text in time order, by one of the methods of `spring/rivals`; null: in shuffled batches.
    experts: PROPER, whose first two levels are shared by all users (spring/rivals/proper/levels.py).
    """

    scope: Annotated[Literal["user", "population", "population-transductive"], added("user")]
    start: Literal["previous", "base", "population", "population-transductive"]
    # selected items, all of this period, all so far, those it is sure of (spring/rivals/cama.py)
    data: Literal["drift", "current", "cumulative", "confident"]
    experts: Annotated[Proper | None, added(None)]
    select: Select
    # sar: spring/rivals/sar.py; own: of this period's items wherever the buffer would give some (a control)
    replay_draw: Annotated[Literal["uniform", "sar", "own"], added("uniform")]
    rule: Annotated[
        Annotated[EwcLora | OLora | Surprise, Field(discriminator="method")] | None, added(None)
    ]  # what training does besides; null: nothing
    shared_lr: Annotated[
        Annotated[float, Field(gt=0)] | None, added(None)
    ]  # of what all users share beneath a user's own adapter (`start: population`, `experts`); null: `lr`
    online: Annotated[Online | None, added(None)]

    @model_validator(mode="after")
    def _replay_fits_the_batch(self) -> Train:
        replayed = self.replay_share * self.batch_size
        whole = 1 <= round(replayed) < self.batch_size and abs(replayed - round(replayed)) < 0.05
        if self.replay_share > 0 and not whole:
            near = {min(max(items, 1), self.batch_size - 1) for items in (int(replayed), int(replayed) + 1)}
            shares = " or ".join(f"{items / self.batch_size:.3g}" for items in sorted(near) if items)
            raise ValueError(
                f"train.replay_share {self.replay_share} is {replayed:.3g} of {self.batch_size} items a "
                "batch; it must be a whole number of them: "
                f"{shares or 'take a larger batch_size'}"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_draw(self) -> Train:
        if self.replay_draw != "uniform" and self.replay_share == 0:
            raise ValueError(f"train.replay_draw {self.replay_draw} needs train.replay_share > 0")
        return self

    @model_validator(mode="after")
    def _rules_go_on_from_the_period_before(self) -> Train:
        if self.rule is not None and self.start != "previous":
            raise ValueError(
                f"train.rule {self.rule.method} needs train.start: previous, not {self.start}: it keeps "
                f"what the adapter of the period before has learned"
            )
        return self

    @model_validator(mode="after")
    def _population_starts_from_itself(self) -> Train:
        if self.shared and self.start_shared:
            raise ValueError(
                f"train.start {self.start} is for train.scope user; with train.scope {self.scope} take "
                f"previous or base"
            )
        if self.scope == "population" and self.data in ("drift", "confident"):
            raise ValueError(
                f"train.scope population learns items that come too late for one period in the next, which "
                f"train.data {self.data} would lose: take current or cumulative, or population-transductive"
            )
        return self

    @model_validator(mode="after")
    def _online_is_text_by_text(self) -> Train:
        if self.online is None:
            return self
        if self.data == "cumulative":
            raise ValueError(
                "train.online learns each interaction once: train.data cumulative would learn it "
                "again in every period; take current or drift"
            )
        needed = {"scope": "user", "start": "previous", "replay_share": 0, "warmup_ratio": 0}
        needed |= {"epochs": 1, "batch_size": 1}
        for key, value in needed.items():
            if getattr(self, key) != value:
                raise ValueError(
                    f"train.online goes on from the user's own adapter, text by text: it needs train.{key} "
                    f"{value}, not {getattr(self, key)}"
                )
        return self

    @model_validator(mode="after")
    def _experts_lie_under_users(self) -> Train:
        if self.experts is None:
            return self
        if self.scope != "user" or self.start_shared:
            raise ValueError(
                f"train.experts has shared levels of its own: it needs train.scope user (is {self.scope}) "
                f"and train.start previous or base (is {self.start})"
            )
        for key in ("rule", "online"):
            if getattr(self, key) is not None:
                raise ValueError(f"train.experts cannot be combined with train.{key}: leave one of them null")
        needed = {"data": "current", "replay_share": 0, "start": "previous"}
        if self.experts.level != "user" and any(getattr(self, key) != value for key, value in needed.items()):
            asked = ", ".join(
                f"train.{key} {value} (is {getattr(self, key)})" for key, value in needed.items()
            )
            raise ValueError(
                f"train.experts.level {self.experts.level} learns nothing after period 0: it needs {asked}"
            )
        return self

    @model_validator(mode="after")
    def _shared_rate_has_a_shared_lesson(self) -> Train:
        if self.shared_lr is not None and not (self.start_shared or self.experts):
            raise ValueError(
                f"train.shared_lr {self.shared_lr:g} is of what all users share beneath a user's adapter: "
                f"without train.start population or train.experts there is nothing of the kind: leave it null"
            )
        return self

    @property
    def learning(self) -> Learning:
        """What the engine is told: how a lesson is learned, whatever it is made of."""
        return only(Learning, self)

    @property
    def shared(self) -> bool:
        """Whether one lesson is for all users."""
        return self.scope != "user"

    @property
    def start_shared(self) -> bool:
        """Whether a user's adapter starts from one of all users."""
        return self.start in ("population", "population-transductive")

    def at(self, period: int) -> Train:
        """These settings in a period: where each one adds ranks, with that many and alpha / r as before."""
        if self.rule is None or not self.rule.grows:
            return self
        grown = {"r": self.lora.r * (period + 1), "alpha": self.lora.alpha * (period + 1)}
        return self.model_copy(update={"lora": self.lora.model_copy(update=grown)})

    @property
    def one_for_all(self) -> bool:
        """Whether one adapter serves all users."""
        return self.shared or self.foundation_alone

    @property
    def foundation_alone(self) -> bool:
        """Whether nothing is learned on the shared adapter of period 0."""
        return self.experts is not None and self.experts.level == "population"

    @property
    def foundation(self) -> Train | None:
        """How the shared adapter of period 0 learns that others start from or lie on; null: there is none."""
        if self.experts is not None:
            return self._of_all(self.experts.scope, epochs=self.experts.population_epochs, experts=None)
        return self._of_all(self.start) if self.start_shared else None

    @property
    def group(self) -> Train | None:
        """How the last level that all users share learns, after `foundation`; null: there are no levels."""
        if self.experts is None:
            return None
        if self.foundation_alone:
            return self.foundation
        experts = self.experts.model_copy(update={"level": "group"})
        return self._of_all(experts.scope, epochs=experts.group_epochs, experts=experts)

    def _of_all(self, scope: str, **changes: Any) -> Train:
        everything: dict[str, Any] = {"scope": scope, "start": "previous", "data": "current", "online": None}
        plain: dict[str, Any] = {"replay_share": 0.0, "replay_draw": "uniform", "rule": None}
        rate: dict[str, Any] = {"lr": self.shared_lr or self.lr, "shared_lr": None}
        return self.model_copy(update=everything | plain | rate | changes)

    @property
    def recipe(self) -> str:
        """Names the adapters that learn so, without replay."""
        return fingerprint({"train": self, "memory": None})
