"""Which bank an adapter is put into: adapters of equal settings, on equal shared parts, are read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spring.engine.settings import Lora
from spring.rivals.proper.levels import Proper

if TYPE_CHECKING:
    from torch import Tensor

    from spring.engine.lora import AdapterBank

Read = Callable[[], Mapping[str, bytes]]  # gives the files of an adapter


@dataclass(frozen=True)
class Layered:
    """A bank on experts that all its users share; `experts.level` tells whether of level 2 or 3."""

    lora: Lora
    experts: Proper
    key: str  # of the cell of the shared part
    read: Read = field(compare=False)  # reads it

    @property
    def users(self) -> tuple[str, ...]:
        """None: a lesson is one user's."""
        return ()

    def bank(self, model: Any, slots: int) -> AdapterBank:
        """The bank, its slots empty."""
        from spring.rivals.proper.banks import GroupBank, UserBank
        from spring.rivals.proper.files import read_shared

        kind = GroupBank if self.experts.level == "group" else UserBank
        return kind(model, self.lora, self.experts, read_shared(self.read()), slots=slots)

    def files(self, state: Mapping[str, Tensor], *, base_model: str) -> dict[str, bytes]:
        """What one slot holds."""
        from spring.rivals.proper.files import own_files

        return own_files(state, self.lora, described=describe(self.lora, self.experts, base_model))


@dataclass(frozen=True)
class Founding:
    """The bank in which level 2 is learned, on a population LoRA."""

    lora: Lora
    experts: Proper
    key: str  # of the cell of the population LoRA
    users: tuple[str, ...]  # whose embeddings it holds, in their order
    read: Read = field(compare=False)

    def bank(self, model: Any, slots: int) -> AdapterBank:
        """The bank; there is a single lesson for all users."""
        from spring.engine.peft import read_adapter
        from spring.rivals.proper.banks import GroupLessons

        assert slots == 1, "all users are in one lesson"
        population = read_adapter(self.read())
        return GroupLessons(model, self.lora, self.experts, population, users=len(self.users))

    def files(self, state: Mapping[str, Tensor], *, base_model: str) -> dict[str, bytes]:
        """The shared part, the population LoRA included."""
        from spring.engine.peft import read_adapter
        from spring.rivals.proper.files import group_files

        described = describe(self.lora, self.experts, base_model) | {"users": list(self.users)}
        return group_files(state, read_adapter(self.read()), self.lora, described=described)


def describe(lora: Lora, experts: Proper, base_model: str) -> dict[str, Any]:
    """What stands in `adapter_config.json`."""
    settings = {"lora": lora.model_dump(mode="json"), "experts": experts.model_dump(mode="json")}
    return {"base_model_name_or_path": base_model, **settings}
