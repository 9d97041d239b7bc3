"""What is scored or learned, as token ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A prompt and the response that is scored or learned, as token ids; the slot and steer that read it."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    slot: int = -1
    user: int = -1  # who wrote it, where one lesson holds texts of several users
    steer: int = -1

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def reader(self) -> tuple[int, int]:
        """Texts with the same reader can share their beginning."""
        return self.slot, self.steer
