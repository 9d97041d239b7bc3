"""A store that takes over from another just those cells that it is asked for.

While a person is forgotten all stages run again on one: what nobody asks for any more, of theirs or unknown,
never gets into it, and then it takes the place of the old (`take_place`).

STORE/forgetting/   the new store, inside the old one; that it is there says that stages work with it
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from spring.store.cells import LIMIT, CellStore
from spring.store.disk import link, new_name
from spring.store.segments import Files

NEW = "forgetting"


class Adopting(CellStore):
    """The new store in `old`; what is lacking in both is computed into the new one."""

    def __init__(self, old: CellStore) -> None:
        super().__init__(old.root / NEW)
        self.old = old

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those keys that neither has; others are taken over, in order."""
        lacking = list(dict.fromkeys(super().missing(keys)))
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
    store = CellStore(root)
    return Adopting(store) if (root / NEW).is_dir() else store


def take_place(root: Path) -> int:
    """Puts the new store's segments in place of the old one's; how many cells went. May be said again."""
    old, new = CellStore(root), CellStore(root / NEW)
    gone = len(set(old) - set(new))
    kept = new.segments()
    for file in kept:
        link(file, root / "segments" / file.name)
    for file in set(old.segments()) - {root / "segments" / file.name for file in kept}:
        file.unlink()
    shutil.rmtree(root / "bad", ignore_errors=True)
    done = (root / NEW).rename(root / "writing" / new_name())  # whole until here, and then nobody's
    shutil.rmtree(done)
    return gone
