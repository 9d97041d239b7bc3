"""What the stages that need the model share: the model, loaded only if a cell is missing, and the store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from tqdm import tqdm

from spring.engine.strict import fingerprint
from spring.settings.arm import Arm, Profile
from spring.settings.params import Params
from spring.settings.train import Lora, Train
from spring.store import CellStore
from tasks.cells.banks import Fit, Founding, Layered
from tasks.files import DATA, load_params, read_parquet

if TYPE_CHECKING:
    from spring.engine.embedding import Embedder
    from spring.engine.lora import AdapterBank
    from spring.engine.model import BaseModel
    from spring.method.prompts import Prompter

Row = dict[str, Any]  # one interaction, by column
Job = TypeVar("Job")
Group = TypeVar("Group", bound=Hashable)
Done = Callable[[int], object]  # told how much was done
LIBRARIES = ("torch", "transformers", "tokenizers")  # a cell is of the versions that computed it
BUFFER, WORDS = 1_000, 2_000  # streams of chance beside that of training, added to the period
Place = tuple[str, str | None]  # recipe and user; the user is null for what all users share

INDEX: dict[str, Any] = {  # of data/adapt/{t}/index.parquet
    "recipe": pl.String,
    "user_id": pl.String,  # null: one adapter for all users
    "period": pl.Int32,
    "cell": pl.String,
    "folder": pl.String,
    "chosen": pl.List(pl.String),
    "items": pl.Int32,
    "steps": pl.Int32,
    "tokens": pl.Int64,
    "seconds": pl.Float64,
    "seconds_score": pl.Float64,  # of deciding what to learn
    "until": pl.Datetime("us", "UTC"),  # of a lesson for all users: its latest possible item
}


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: the key of its cell, and its folder (PEFT's, unless it lies `over` experts)."""

    key: str
    folder: Path
    lora: Lora
    over: Layered | None = None  # the shared part it cannot be read without


@dataclass(frozen=True)
class Adapters:
    """The adapters after a period, by recipe and user; the user is null for one that all users share."""

    found: dict[Place, Adapter]

    def of(self, recipe: str | None, user: str) -> Adapter | None:
        """The adapter that `user` has under `recipe`; null without one."""
        if recipe is None:
            return None
        return self.found.get((recipe, user)) or self.found.get((recipe, None))


def by_user(rows: pl.DataFrame) -> dict[str, list[Row]]:
    """Rows of each user, in order."""
    return {str(key[0]): part.to_dicts() for key, part in rows.group_by(["user_id"], maintain_order=True)}


def read_index(period: int) -> pl.DataFrame:
    """What was learned in a period (`INDEX`); nothing before period 0."""
    if period < 0:
        return pl.DataFrame(schema=INDEX)
    return read_parquet(DATA / "adapt" / str(period) / "index.parquet")


def read_chosen(period: int) -> dict[Place, set[str]]:
    """What every recipe learned of every user in a period (user null: one lesson for all)."""
    rows = read_index(period).select("recipe", "user_id", "chosen").iter_rows()
    return {(recipe, user): set(ids) for recipe, user, ids in rows}


@dataclass
class Workbench:
    """Parameters, cell store and, on first use, the model with its prompts and embeddings."""

    params: Params = field(default_factory=load_params)
    store: CellStore = field(
        default_factory=lambda: CellStore(Path(os.environ.get("SPRING_CELLS", ".cells")))
    )

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base model; `ModelError` if its folder holds other weights than `model` has seen."""
        from spring.engine.device import ModelError
        from spring.engine.model import load, weights_digest
        from spring.settings.targets import check_targets, layers_of

        asked, folder = self.params.model, DATA / "model"
        base = load(folder, device=asked.device, dtype=asked.dtype)
        # the hub's files never change; a folder of one's own may
        if Path(asked.id).is_dir() and weights_digest(folder) != base.digest:
            raise ModelError(
                f"model.id: {asked.id} has changed since the stage `model` read it, and results "
                f"would be kept as those of the model before; run `dvc repro --force model`, then go on"
            )
        check_targets(self.params.arms, layers_of(base.model), model_id=asked.id)  # `model` had other arms
        return base

    @cached_property
    def prompter(self) -> Prompter:
        """The one prompt format of all arms."""
        from spring.method.prompts import Prompter

        return Prompter(self.base.tokenizer, self.params.prompts, self.params.model.max_length)

    @cached_property
    def embedder(self) -> Embedder:
        """Sentence embeddings, each text's once."""
        from spring.engine.embedding import RememberingEmbedder

        return RememberingEmbedder(self.params.model.embedding, device=self.params.model.device)

    @cached_property
    def embedding(self) -> str:
        """What every embedding depends on, for cell keys; the model is not loaded for it."""
        from spring.engine.embedding import identity

        return identity(self.params.model.embedding)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every result of the model depends on, for cell keys; the model is not loaded for it."""
        from spring.engine.device import pick_device, pick_dtype

        source = json.loads((DATA / "model" / "source.json").read_text(encoding="utf-8"))
        model = self.params.model
        device = pick_device(model.device)
        return {
            "model": source["digest"],
            "libraries": [version(name) for name in LIBRARIES],
            "run": [device.type, str(pick_dtype(model.dtype, device)), model.max_length],
        }

    def asked(self, rows: Iterable[Row]) -> dict[str, Any]:
        """The prompts of the tasks that `rows` belong to, for cell keys."""
        return {task: self.params.prompts[task] for task in sorted({row["task"] for row in rows})}

    @contextmanager
    def bank(self, fit: Fit | Founding | None, slots: int) -> Iterator[AdapterBank | None]:
        """An adapter bank on the model inside the block; null when no adapter is needed."""
        if fit is None or slots == 0:
            yield None
            return
        from spring.engine.lora import AdapterBank

        model = self.base.model
        bank = AdapterBank(model, fit, slots=slots) if isinstance(fit, Lora) else fit.bank(model, slots)
        try:
            yield bank
        finally:
            bank.detach(model)

    def seed(self, user: str | None, period: int) -> int:
        """Seed of one user and period, the same whoever else takes part; null: of all users together."""
        return int(fingerprint([self.params.seed, user, period]), 16)

    # --- the arms -----------------------------------------------------------------------------------------

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

    def adapters(self, period: int) -> Adapters:
        """The adapters after `period`; before period 0 there are none."""
        found: dict[Place, Adapter] = {}
        folder = DATA / "adapt" / str(period)
        for row in read_index(period).iter_rows(named=True):
            arm = self.recipes.get(row["recipe"])
            if arm is not None:
                lora = recipe_of(arm).at(period).lora
                found[row["recipe"], row["user_id"]] = Adapter(row["cell"], folder / row["folder"], lora)
        return Adapters({place: self._layered(place, found) for place in found})

    def _layered(self, place: Place, found: dict[Place, Adapter]) -> Adapter:
        """An adapter with the shared part it lies on, if its recipe has levels."""
        (recipe, user), adapter = place, found[place]
        experts = recipe_of(self.recipes[recipe]).experts
        if experts is None or experts.level == "population":
            return adapter
        if user is None:  # the adapter of users who have none: level 2 under the mean embedding
            experts = experts.model_copy(update={"level": "group"})
        shared = found[recipe, None]
        return replace(adapter, over=Layered(adapter.lora, experts, shared.key, shared.folder))

    def learned_until(self, period: int) -> dict[str, datetime]:
        """The latest date that the shared adapters after `period` may know of, by recipe."""
        rows = read_index(period).filter(pl.col("until").is_not_null())
        return dict(rows.select("recipe", "until").iter_rows())


def fill(
    bench: Workbench,
    jobs: Sequence[Job],
    *,
    key: Callable[[Workbench, Job], str],
    compute: Callable[[Workbench, Group, dict[str, Job], Done], None],
    group: Callable[[Job], Group],
    at_once: int,
    amount: Callable[[Job], int],
    what: str,
    unit: str,
) -> list[str]:
    """Keys of the cells of all jobs, in order; those that are missing are computed.

    Cells of one group are computed together, `at_once` of them at a time. `amount` of a job is what the bar
    counts, in `unit`.
    """
    keys = [key(bench, job) for job in jobs]
    named = dict(zip(keys, jobs, strict=True))
    groups: dict[Group, list[str]] = {}
    for name in bench.store.missing(named):
        groups.setdefault(group(named[name]), []).append(name)
    if groups:
        total = sum(amount(named[name]) for members in groups.values() for name in members)
        with progress(total, what, unit) as done:
            for shared, members in groups.items():
                for start in range(0, len(members), at_once):
                    some = {name: named[name] for name in members[start : start + at_once]}
                    compute(bench, shared, some, done)
    return keys


def fit_of(adapter: Adapter | None) -> Fit | None:
    """The bank that an adapter is put into; null: none is needed."""
    return (adapter.over or adapter.lora) if adapter else None


def plain(row: Row) -> list[str]:
    """What a result depends on of a row, for cell keys."""
    return [row["task"], row["query"], row["response"]]


def recipe_of(arm: Arm) -> Train:
    """The training block of an arm that has one."""
    assert arm.train is not None
    return arm.train


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Done]:
    """A bar with rate and estimate; in a log, a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=unit == "tok", mininterval=interval, dynamic_ncols=True
    ) as bar:
        yield bar.update


def user_folder(user: str | None) -> str:
    """A folder name for any user id: readable, unique, safe on every file system; null: all users."""
    if user is None:
        return "population"  # no user's: theirs end in a fingerprint
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in user.lower())[:40].strip("-")
    return f"{readable or 'user'}-{fingerprint(user)}"
