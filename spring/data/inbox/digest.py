"""Digests of an inbox's files: of bytes, and of rows in their order, by which one that grew is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

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


def digest_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_rows(raws: Iterable[RawRow]) -> str:
    """Stands for rows in their order."""
    told = Rows()
    for raw in raws:
        told.add(raw)
    return told.digest()
