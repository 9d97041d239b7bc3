"""What all cells are computed with: the store, the prompts and, on first use, the model and its embeddings.

Nothing here knows the arms of an experiment (tasks/steps/experiment.py does): a cell is a matter of rows,
adapters and the engine's settings alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spring.engine.device import device_name, dtype_name
from spring.engine.settings import Lora, Model
from spring.engine.weights import ModelError
from spring.method.prompts import Prompt, Prompter
from spring.store.cells import CellStore
from spring.store.keys import fingerprint
from tasks.files import DATA

if TYPE_CHECKING:
    from torch import Tensor

    from spring.engine.embedding import Embedder
    from spring.engine.lora import AdapterBank
    from spring.engine.model import BaseModel

Row = dict[str, Any]  # one interaction, by column
Tell = Callable[[dict[str, Any]], object]  # told how far a filling is, many times a second
LIBRARIES = ("torch", "transformers", "tokenizers", "numba")  # a cell is of the versions that computed it


def silent(event: dict[str, Any]) -> None:
    """Tells nobody."""


class Over(Protocol):
    """Another bank than `AdapterBank`: adapters on what lies frozen beneath (spring/rivals/proper/fits.py).

    Equal ones can be read together.
    """

    @property
    def users(self) -> tuple[str, ...]:
        """Whose texts one lesson may hold together, in their order; empty: one user's."""
        ...

    def bank(self, model: Any, slots: int) -> AdapterBank:
        """The bank, its slots empty."""
        ...

    def files(self, state: Mapping[str, Tensor], *, base_model: str) -> dict[str, bytes]:
        """What one slot holds, as the files of a cell."""
        ...


@dataclass(frozen=True)
class Chunk:
    """Cells that are computed together: by what, what their jobs share, and each one's job and amount."""

    compute: Callable[..., None]  # takes workbench, shared, jobs and meter; a module's, as it is sent by name
    shared: Any
    jobs: dict[str, Any]  # by key
    amounts: dict[str, int]  # by key: what the bar counts

    def run(self, bench: Workbench, meter: Any) -> None:
        """Computes them, into the store."""
        self.compute(bench, self.shared, self.jobs, meter)

    def only(self, keys: Sequence[str]) -> Chunk:
        """Those of the cells that have one of `keys`."""
        some = set(keys)
        jobs, amounts = (
            {key: one for key, one in whole.items() if key in some} for whole in (self.jobs, self.amounts)
        )
        return replace(self, jobs=jobs, amounts=amounts)


class Crew(Protocol):
    """Who computes chunks instead of this process (tasks/cells/cluster)."""

    per_task: int | None  # cells of a chunk; null: as many as this process would take at once

    def compute(self, chunks: Sequence[Chunk], meter: Any, what: str) -> None:
        """Returns when all their cells are in the store."""
        ...


Fit = Lora | Over  # what the adapters that are read together have in common


@dataclass(frozen=True)
class Adapter:
    """A trained adapter: the key of its cell, and what reads its files (PEFT's, unless `over` others)."""

    key: str
    read: Callable[[], Mapping[str, bytes]] = field(compare=False, repr=False)
    lora: Lora
    over: Over | None = None  # the shared part it cannot be read without


class Workbench:
    """Model settings, prompts, the experiment's seed and the cell store.

    `check` is told the model as soon as it is loaded, and may refuse it; `tell` how far each filling is.
    What is missing is computed by the `crew`; null: by this process.
    """

    tell: Tell = staticmethod(silent)
    crew: Crew | None = None

    def __init__(
        self,
        settings: Model,
        prompts: Mapping[str, Prompt],
        *,
        chance: int,
        store: CellStore,
        check: Callable[[BaseModel], None] = lambda base: None,
    ) -> None:
        self.settings, self.prompts, self.chance = settings, prompts, chance
        self.store, self.check = store, check

    @cached_property
    def base(self) -> BaseModel:
        """The frozen base model; `ModelError` if its folder holds other weights than `model` has seen."""
        from spring.engine.model import load, weights_digest

        asked, folder = self.settings, DATA / "model"
        base = load(
            folder,
            device=asked.device,
            dtype=asked.dtype,
            date=asked.date,
            chat_template_kwargs=asked.chat_template_kwargs,
        )
        # the hub's files never change; a folder of one's own may
        if Path(asked.id).is_dir() and weights_digest(folder) != base.digest:
            raise ModelError(
                f"model.id: {asked.id} has changed since the stage `model` read it, and results "
                f"would be kept as those of the model before; run `dvc repro --force model`, then go on"
            )
        self.check(base)
        return base

    @cached_property
    def prompter(self) -> Prompter:
        """The one prompt format of all arms."""
        return Prompter(self.base.tokenizer, self.prompts, self.settings.max_length, self.base.template)

    @cached_property
    def embedder(self) -> Embedder:
        """Sentence embeddings, each text's once."""
        from spring.engine.embedding import RememberingEmbedder

        return RememberingEmbedder(self.settings.embedding, device=self.settings.device)

    @cached_property
    def embedding(self) -> str:
        """What every embedding depends on, for cell keys; the model is not loaded for it."""
        from spring.engine.embedding import identity

        return identity(self.settings.embedding)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the stage `model` found out."""
        found: dict[str, Any] = json.loads((DATA / "model" / "source.json").read_text(encoding="utf-8"))
        return found

    @property
    def road(self) -> str:
        """`packed` or `padded` (spring/engine/roads.py)."""
        return "padded" if self.source.get("road", {}).get("padded") else "packed"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every result of the model depends on, for cell keys; the model is not loaded for it."""
        source = self.source
        asked = self.settings
        return {
            "model": source["digest"],
            "libraries": [version(name) for name in LIBRARIES],
            "run": [
                device_name(asked.device),
                dtype_name(asked.dtype, asked.device),
                asked.max_length,
            ],
            **asked.model_dump(mode="json", include={"date", "chat_template_kwargs"}),  # unless as usual
            **({} if self.road == "packed" else {"road": self.road}),
        }

    def asked(self, tasks: Iterable[str]) -> dict[str, Any]:
        """The prompts of the tasks that rows belong to, for cell keys."""
        return {task: self.prompts[task] for task in sorted(set(tasks))}

    @contextmanager
    def bank(self, fit: Fit | None, slots: int) -> Iterator[AdapterBank | None]:
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

    def adapter(self, key: str, lora: Lora) -> Adapter:
        """An adapter that lies in the store."""
        return Adapter(key, partial(self.store.read, key), lora)

    def seed(self, user: str | None, period: int) -> int:
        """Seed of one user and period, the same whoever else takes part; null: of all users together."""
        return int(fingerprint([self.chance, user, period]), 16)


def fit_of(adapter: Adapter | None) -> Fit | None:
    """The bank that an adapter is put into; null: none is needed."""
    return (adapter.over or adapter.lora) if adapter else None


def plain(row: Row) -> list[str]:
    """What a result depends on of a row, for cell keys."""
    return [row["task"], row["query"], row["response"]]
