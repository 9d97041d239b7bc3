"""Who was forgotten: marks that know a person again, and name nobody to who does not know the id already.

FOLDER/forgotten.json   {"salt": ..., "marks": [HMAC-SHA256 of a user's id under the salt, ...]}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from spring.data.rows import Opened, RawRow, Skip, SourceError
from spring.data.values import name_user

FORGOTTEN = "forgotten.json"
REASON = "forgotten"  # what counts of a row of theirs


@dataclass(frozen=True)
class Forgotten:
    """People whose rows are not taken any more."""

    salt: str = ""
    marks: frozenset[str] = frozenset()

    def __contains__(self, user: str | None) -> bool:
        return bool(self.marks) and user is not None and _mark(self.salt, name_user(user)) in self.marks

    def with_user(self, user: str) -> Forgotten:
        """With one more; the salt is drawn with the first."""
        salted = self if self.salt else replace(self, salt=secrets.token_hex(32))
        return replace(salted, marks=salted.marks | {_mark(salted.salt, name_user(user))})

    def text(self) -> str:
        """The file: the order of marks is theirs, and says nothing of who came first."""
        return json.dumps({"salt": self.salt, "marks": sorted(self.marks)}, indent=2) + "\n"


@lru_cache(maxsize=4096)  # each is asked for with every row
def _mark(salt: str, user: str) -> str:
    return hmac.new(bytes.fromhex(salt), user.encode(), hashlib.sha256).hexdigest()


def read_forgotten(folder: Path) -> Forgotten:
    """Those of a folder; none without the file. Raises SourceError for one that is damaged."""
    file = folder / FORGOTTEN
    if not file.exists():
        return Forgotten()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        found = Forgotten(str(kept["salt"]), frozenset(map(str, kept["marks"])))
        bytes.fromhex(found.salt)
    except (ValueError, LookupError, TypeError) as error:
        raise SourceError(f"{file} is damaged ({error}): git checkout -- {file} brings it back") from None
    return found


def without(rows: Iterable[RawRow | Skip | Opened], forgotten: Forgotten) -> Iterator[RawRow | Skip | Opened]:
    """Rows, with a `Skip` in place of those of people who were forgotten."""
    for row in rows:
        yield Skip(REASON) if isinstance(row, RawRow) and row.user_id in forgotten else row
