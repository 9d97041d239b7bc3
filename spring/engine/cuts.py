"""Texts that were cut: counted while a process runs, and told once when it ends. No text is kept or told."""

from __future__ import annotations

import hashlib
import logging
from atexit import register

log = logging.getLogger(__name__)


class Cuts:
    """How many different texts were longer than they may be.

    rule: a sentence on what is done with them; how many, and the tokens of the longest, are put behind it.
    """

    def __init__(self, rule: str) -> None:
        self.rule, self.longest = rule, 0
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, text: str, tokens: int) -> None:
        """Notes that `text`, of so many tokens, was cut."""
        if not self._seen:
            register(self.tell)
        self._seen.add(hashlib.sha256(text.encode()).digest()[:16])
        self.longest = max(self.longest, tokens)

    def tell(self) -> None:
        """Says it; by way of logging, so that it is seen where Python's warnings are off."""
        log.warning("%s: %d, the longest of %d tokens", self.rule, len(self), self.longest)
