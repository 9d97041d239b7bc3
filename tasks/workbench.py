"""What the stages that need the model share: the model, loaded only if a cell is missing, and the store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from tqdm import tqdm

from spring.params import Arm, Lora, Params, Train, fingerprint
from spring.store import CellStore
from tasks.files import DATA, load_params

if TYPE_CHECKING:
    from spring.embedding import Embedder
    from spring.engine.lora import AdapterBank
    from spring.model import BaseModel
    from spring.prompts import Prompter

Row = dict[str, Any]  # one interaction, by column


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: the key of its cell, and the PEFT folder it lies in."""

    key: str
    folder: Path
    lora: Lora


@dataclass
class Workbench:
    """Parameters, cell store and, on first use, the model with its prompts and embeddings."""

    params: Params = field(default_factory=load_params)
    store: CellStore = field(
        default_factory=lambda: CellStore(Path(os.environ.get("SPRING_CELLS", ".cells")))
    )

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base model."""
        from spring.model import load

        return load(DATA / "model", device=self.params.model.device, dtype=self.params.model.dtype)

    @cached_property
    def prompter(self) -> Prompter:
        """The one prompt format of all arms."""
        from spring.prompts import Prompter

        return Prompter(self.base.tokenizer, self.params.prompts, self.params.model.max_length)

    @cached_property
    def embedder(self) -> Embedder:
        """Sentence embeddings."""
        from spring.embedding import Embedder

        return Embedder(self.params.model.embedding, device=self.params.model.device)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every result of the model depends on, for cell keys; the model is not loaded for it."""
        from spring.device import pick_device, pick_dtype

        source = json.loads((DATA / "model" / "source.json").read_text(encoding="utf-8"))
        model = self.params.model
        device = pick_device(model.device)
        return {
            "model": source["digest"],
            "run": [device.type, str(pick_dtype(model.dtype, device)), model.max_length],
        }

    def asked(self, rows: Iterable[Row]) -> dict[str, Any]:
        """The prompts of the tasks that `rows` belong to, for cell keys."""
        return {task: self.params.prompts[task] for task in sorted({row["task"] for row in rows})}

    @contextmanager
    def bank(self, lora: Lora | None, slots: int) -> Iterator[AdapterBank | None]:
        """An adapter bank on the model inside the block; null when no adapter is needed."""
        if lora is None or slots == 0:
            yield None
            return
        from spring.engine.lora import AdapterBank

        bank = AdapterBank(self.base.model, lora, slots=slots)
        try:
            yield bank
        finally:
            bank.detach(self.base.model)

    def seed(self, user: str, period: int) -> int:
        """Seed of one user and period, the same whoever else takes part."""
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

    def adapters(self, period: int) -> dict[tuple[str, str], Adapter]:
        """The adapters after `period`, by (recipe, user)."""
        folder = DATA / "adapt" / str(period)
        index = pl.read_parquet(folder / "index.parquet")
        found = {}
        for row in index.iter_rows(named=True):
            arm = self.recipes.get(row["recipe"])
            if arm is not None:
                train = recipe_of(arm)
                found[row["recipe"], row["user_id"]] = Adapter(
                    row["cell"], folder / row["folder"], train.lora
                )
        return found


def missing(bench: Workbench, keys: Sequence[str]) -> list[int]:
    """Positions of the keys whose cells must be computed, in order; equal keys once."""
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    return [i for i, key in enumerate(keys) if first[key] == i and key not in bench.store]


def recipe_of(arm: Arm) -> Train:
    """The training block of an arm that has one."""
    assert arm.train is not None
    return arm.train


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], object]]:
    """A bar with rate and estimate; in a log, a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=unit == "tok", mininterval=interval, dynamic_ncols=True
    ) as bar:
        yield bar.update


def user_folder(user: str) -> str:
    """A folder name for any user id: readable, unique, safe on every file system."""
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in user.lower())[:40].strip("-")
    return f"{readable or 'user'}-{fingerprint(user)}"
