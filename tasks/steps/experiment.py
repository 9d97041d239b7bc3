"""A workbench that knows the arms of an experiment: which recipes, memories and gates they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from spring.engine.settings import Lora
from spring.rivals.proper.fits import Layered
from spring.settings.arm import Arm, Profile, recipe_of
from spring.settings.execution import Execution
from spring.settings.params import Params
from spring.settings.targets import check_targets
from spring.settings.train import Train
from spring.store.adopting import Adopting, store_of
from spring.store.cells import CellStore
from spring.store.keys import fingerprint
from spring.store.remote import remote_url
from spring.store.shared import Shared
from tasks.cells.workbench import Adapter, Row, Workbench
from tasks.files import DATA, EVERYBODY, Users, cells_folder
from tasks.live import teller
from tasks.params import load_params
from tasks.steps.blocks import TOGETHER, blocks
from tasks.steps.index import Place, read_held, read_index
from tasks.steps.partners import swap
from tasks.steps.rows import Rows, grouped

if TYPE_CHECKING:
    from spring.engine.model import BaseModel

OF_A_CREW = 32  # times as many users of a block
BUFFER, WORDS = 1_000, 2_000  # streams of chance beside that of training, added to the period


class Adapters:
    """The adapters after a period, by recipe and user; the user is null for one that all users share.

    Each is made from its row of the index when it is asked for.
    """

    def __init__(self, index: Mapping[Place, Rows], make: Callable[[Row], Adapter]) -> None:
        self.index, self.make = index, make
        self._partners: dict[tuple[str | None, int], dict[str, str]] = {}

    def of(self, recipe: str | None, user: str) -> Adapter | None:
        """The adapter that `user` has under `recipe`; null without one."""
        places = ((recipe, user), (recipe, None)) if recipe is not None else ()
        return next((self.make(self.index[place][0]) for place in places if place in self.index), None)

    def shared(self, recipe: str) -> Adapter:
        """The one that lies beneath those of all users; `KeyError` without it."""
        return self.make(self.index[recipe, None][0])

    def lessons(self, place: Place) -> int:
        """How many lessons a place has had."""
        return self.index[place][0]["lesson"] + 1 if place in self.index else 0

    def owners(self, recipe: str | None) -> list[str]:
        """The users with an adapter of their own under `recipe`."""
        return [user for name, user in self.index if name == recipe and user is not None]

    def partner(self, recipe: str | None, user: str, *, seed: int) -> str:
        """Whose adapter `user` answers with where adapters are swapped."""
        if (recipe, seed) not in self._partners:
            self._partners[recipe, seed] = swap(self.owners(recipe), seed=seed)
        return self._partners[recipe, seed][user]


def laid(store: CellStore, period: int, row: Row, lora: Lora) -> Adapter:
    """The adapter of a row of a period's index, as it lies in data/; elsewhere it comes from a remote."""
    remote = store if isinstance(store, Shared) else None
    read = partial(read_held, _held_in(period, row["file"]), row["cell"], remote)
    return Adapter(row["cell"], read, lora)


@lru_cache(maxsize=64)
def _held_in(period: int, file: str) -> Path:
    """One object for the many adapters of a segment."""
    return DATA / "adapt" / str(period) / file


class Experiment(Workbench):
    """The workbench of params.yaml, and what its arms have in common."""

    def __init__(self, params: Params | None = None, store: CellStore | None = None) -> None:
        self.params = params or load_params()
        super().__init__(
            self.params.model,
            self.params.prompts,
            chance=self.params.seed,
            store=store or store_of(cells_folder()),
            check=self._check_targets,
        )
        self.tell = teller(self.params) or self.tell
        reached = isinstance(self.store, Shared) or not (isinstance(self.store, Adopting) and remote_url())
        if self.params.execution.engine == "ray" and reached:  # workers elsewhere do not see a new store
            from tasks.cells.cluster.crew import Crew

            here = self.params.model_copy(update={"execution": Execution()})  # a worker has none
            self.crew = Crew(self, self.params.execution, partial(Experiment, here))

    def _check_targets(self, base: BaseModel) -> None:
        from spring.engine.roads import road_of

        # the stage `model` had other arms
        check_targets(self.params.arms, road_of(base.model).layers, model_id=self.params.model.id)

    @cached_property
    def recipes(self) -> dict[str, Arm]:
        """One arm for every training recipe, by recipe."""
        return {arm.recipe: arm for arm in self.params.arms.values() if arm.recipe is not None}

    @cached_property
    def memories(self) -> dict[str, Arm]:
        """One arm for every memory, by memory id."""
        return {arm.memory_id: arm for arm in self.params.arms.values() if arm.memory_id is not None}

    @cached_property
    def gates(self) -> dict[str, Arm]:
        """One arm for every learned gate, by gate id."""
        return {arm.gate_id: arm for arm in self.params.arms.values() if arm.gate_id is not None}

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The settings of every profile, by profile id."""
        return {fingerprint(arm.profile): arm.profile for arm in self.params.arms.values() if arm.profile}

    @cached_property
    def steers(self) -> dict[str, Arm]:
        """One arm for every set of steering vectors, by steer id."""
        return {arm.steer_id: arm for arm in self.params.arms.values() if arm.steer_id is not None}

    @cached_property
    def apart(self) -> bool:
        """Whether what an arm makes of a user depends on no other's texts and adapter, but for its gate."""
        return not any(
            arm.adapter == "swapped"
            or arm.steer is not None
            or (arm.train is not None and (arm.train.shared or arm.train.foundation is not None))
            for arm in self.params.arms.values()
        )

    def blocks(self, *tables: Path) -> list[Users]:
        """The users of some tables, in blocks that are worked through one after the other.

        One, where arms look beyond single users; larger ones, where many processes compute: all of them wait
        for a block's last cells.
        """
        if not self.apart:
            return [EVERYBODY]
        return blocks(tables, TOGETHER * (OF_A_CREW if self.crew else 1))

    def adapters(self, period: int, users: Users = EVERYBODY) -> Adapters:
        """The adapters of `users` after `period`; before period 0 there are none."""
        index = read_index(period, users, ["recipe", "user_id", "lesson", "cell", "file"])
        places = grouped(index.filter(pl.col("recipe").is_in(list(self.recipes))), "recipe", "user_id")

        def make(row: Row) -> Adapter:
            train = recipe_of(self.recipes[row["recipe"]])
            adapter = laid(self.store, period, row, train.at(row["lesson"]).lora)
            experts = train.experts
            if experts is None or experts.level == "population":
                return adapter
            shared = adapter
            if row["user_id"] is not None:
                shared = found.shared(row["recipe"])
            else:  # the adapter of users who have none: level 2 under the mean embedding
                experts = experts.model_copy(update={"level": "group"})
            return replace(adapter, over=Layered(adapter.lora, experts, shared.key, shared.read))

        found = Adapters(places, make)
        return found

    def foundation(self, how: Train) -> Adapter | None:
        """The shared adapter of period 0, for users who come later; every later state follows from it."""
        rows = read_index(0).filter((pl.col("recipe") == how.recipe) & pl.col("user_id").is_null())
        return laid(self.store, 0, rows.row(0, named=True), how.lora) if rows.height else None

    def learned_until(self, period: int) -> dict[str, datetime]:
        """The latest date that the shared adapters after `period` may know of, by recipe."""
        rows = read_index(period, columns=["recipe", "until"])
        return dict(rows.filter(pl.col("until").is_not_null()).iter_rows())
