"""A digest of rows in their order, by which a file that grew is recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from spring.data.rows import RawRow


class Rows:
    """Stands for rows in their order; the place in the file is no part of them."""

    def __init__(self) -> None:
        self.count, self._digest = 0, hashlib.sha256()

    def add(self, raw: RawRow) -> None:
        """One more row."""
        values = [
            raw.user_id,
            raw.interaction_id,
            raw.timestamp,
            raw.task,
            raw.query,
            raw.response,
            raw.rating,
        ]
        self._digest.update(json.dumps([*values, raw.damage], sort_keys=True).encode() + b"\n")
        self.count += 1

    def digest(self) -> str:
        """Of all so far."""
        return self._digest.hexdigest()


def digest_rows(raws: Iterable[RawRow]) -> str:
    """Stands for rows in their order."""
    told = Rows()
    for raw in raws:
        told.add(raw)
    return told.digest()
