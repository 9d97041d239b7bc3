"""Which bank an adapter is put into: adapters of equal settings, on equal shared parts, are read together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spring.engine.settings import Lora
from spring.rivals.proper.levels import Proper

if TYPE_CHECKING:
    from torch import Tensor

    from spring.engine.lora import AdapterBank


@dataclass(frozen=True)
class Layered:
    """A bank on experts that all its users share; `experts.level` tells whether of level 2 or 3."""

    lora: Lora
    experts: Proper
    key: str  # of the cell of the shared part
    folder: Path = field(compare=False)  # where a copy of it lies

    @property
    def users(self) -> tuple[str, ...]:
        """None: a lesson is one user's."""
        return ()

    def bank(self, model: Any, slots: int) -> AdapterBank:
        """The bank, its slots empty."""
        from spring.rivals.proper.banks import GroupBank, UserBank
        from spring.rivals.proper.files import load_shared

        kind = GroupBank if self.experts.level == "group" else UserBank
        return kind(model, self.lora, self.experts, load_shared(self.folder), slots=slots)

    def save(self, state: Mapping[str, Tensor], folder: Path, *, base_model: str) -> None:
        """Writes what one slot holds."""
        from spring.rivals.proper.files import save_own

        save_own(state, folder, described=describe(self.lora, self.experts, base_model))


@dataclass(frozen=True)
class Founding:
    """The bank in which level 2 is learned, on a population LoRA."""

    lora: Lora
    experts: Proper
    key: str  # of the cell of the population LoRA
    users: tuple[str, ...]  # whose embeddings it holds, in their order
    folder: Path = field(compare=False)

    def bank(self, model: Any, slots: int) -> AdapterBank:
        """The bank; there is a single lesson for all users."""
        from spring.engine.peft import load_adapter
        from spring.rivals.proper.banks import GroupLessons

        assert slots == 1, "all users are in one lesson"
        population = load_adapter(self.folder)
        return GroupLessons(model, self.lora, self.experts, population, users=len(self.users))

    def save(self, state: Mapping[str, Tensor], folder: Path, *, base_model: str) -> None:
        """Writes the shared part, the population LoRA included."""
        from spring.engine.peft import load_adapter
        from spring.rivals.proper.files import save_group

        described = describe(self.lora, self.experts, base_model) | {"users": list(self.users)}
        save_group(state, load_adapter(self.folder), folder, described=described)


def describe(lora: Lora, experts: Proper, base_model: str) -> dict[str, Any]:
    """What stands in `adapter_config.json`."""
    settings = {"lora": lora.model_dump(mode="json"), "experts": experts.model_dump(mode="json")}
    return {"base_model_name_or_path": base_model, **settings}
