"""A store that takes over from another just those cells that it is asked for.

While a person is forgotten all stages run again on one: what nobody asks for any more, of theirs or unknown,
never gets into it, and then it takes the place of the old (`take_place`).

STORE/forgetting/   the new store, inside the old one; that it is there says that stages work with it

A remote (spring/store/shared.py) has nothing of the new store until it takes the place of the old.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from spring.store.cells import LIMIT, CellStore, StoreError
from spring.store.disk import link, new_name
from spring.store.far import place_of, urls_of
from spring.store.remote import REMOTE, remote_url
from spring.store.segments import Files
from spring.store.shared import Shared, open_store

NEW = "forgetting"


class Adopting(CellStore):
    """The new store in `old`; what is lacking in both is computed into the new one."""

    def __init__(self, old: CellStore) -> None:
        super().__init__(old.root / NEW)
        self.old = old

    def missing(self, keys: Iterable[str], *, seen: float = 0.0) -> list[str]:
        """Those keys that neither has; others are taken over, in order."""
        lacking = list(dict.fromkeys(super().missing(keys, seen=seen)))
        unknown = set(self.old.missing(lacking))
        cells: dict[str, Files] = {}
        room = LIMIT
        for key in lacking:
            if key in unknown:
                continue
            cells[key] = self.old.read(key)
            room -= sum(map(len, cells[key].values()))
            if room < 0:
                self._publish(cells)
                cells, room = {}, LIMIT
        if cells:
            self._publish(cells)
        return super().missing(lacking) if lacking else []


def store_of(root: Path) -> CellStore:
    """The store at `root`, or the new one in it while somebody is forgotten."""
    store = open_store(root)
    return Adopting(store) if (root / NEW).is_dir() else store


def check_remotes(root: Path) -> None:
    """`StoreError` where cells were put into a remote that is not named now: there they would stay."""
    if others := sorted({*urls_of(root)} - {remote_url()}):
        raise StoreError(
            f"cells of {root} were put into {others[0]}, and must be forgotten there: set {REMOTE} to it; "
            f"if it is no more, remove {place_of(root, others[0])}"
        )


def take_place(root: Path) -> int:
    """Puts the new store's segments in place of the old one's; how many cells went. May be said again."""
    old, new = open_store(root), CellStore(root / NEW)
    gone = len(set(old) - set(new))
    kept = new.segments()
    for file in kept:
        link(file, root / "segments" / file.name)
    if isinstance(old, Shared):
        old.keep_only(file.name for file in kept)
    for file in set(old.segments()) - {root / "segments" / file.name for file in kept}:
        file.unlink()
    shutil.rmtree(root / "bad", ignore_errors=True)
    done = (root / NEW).rename(root / "writing" / new_name())  # whole until here, and then nobody's
    shutil.rmtree(done)
    return gone
