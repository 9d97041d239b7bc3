"""A store that takes over what it is asked for, and takes the place of the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from spring.store.adopting import NEW, Adopting, store_of, take_place
from spring.store.cells import CellStore
from spring.store.keys import cell_key

KEYS = [cell_key("spring.code", number=i) for i in range(5)]


def fill(store: CellStore, keys: list[str]) -> None:
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": key.encode()}


def test_what_nobody_asks_for_is_gone(tmp_path: Path) -> None:
    old = CellStore(tmp_path)
    fill(old, KEYS[:3])  # one segment, in which the first is nobody's any more
    (tmp_path / "bad/torn").touch()
    assert type(store_of(tmp_path)) is CellStore
    (tmp_path / NEW).mkdir()
    new = store_of(tmp_path)
    assert isinstance(new, Adopting)
    assert new.missing(KEYS[1:4]) == [KEYS[3]] and list(new) == KEYS[1:3]
    fill(new, [KEYS[3]])
    assert new.missing(KEYS[1:4]) == [] and new.read(KEYS[1]) == {"value": KEYS[1].encode()}
    linked = new.link(KEYS[1:4], tmp_path / "data")
    assert take_place(tmp_path) == 1
    left = CellStore(tmp_path)
    assert sorted(left) == sorted(KEYS[1:4]) and not left.missing(KEYS[1:4])
    assert not (tmp_path / NEW).exists() and not (tmp_path / "bad/torn").exists()
    assert set(linked.values()) == {file.name for file in left.segments()}
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEYS[0].encode() not in written


def test_damaged_cells_are_computed_again(tmp_path: Path) -> None:
    old = CellStore(tmp_path)
    fill(old, KEYS[:1])
    fill(old, KEYS[1:2])
    damaged = next(file for file in old.segments() if KEYS[0].encode() in file.read_bytes())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-3] + b"xyz")
    (tmp_path / NEW).mkdir()
    assert Adopting(CellStore(tmp_path)).missing(KEYS[:2]) == KEYS[:1]


def test_stopped_amid_the_swap_it_is_said_again(tmp_path: Path) -> None:
    fill(CellStore(tmp_path), KEYS[:2])
    (tmp_path / NEW).mkdir()
    new = store_of(tmp_path)
    for keys in (KEYS[:1], KEYS[1:2]):
        assert not new.missing(keys)
    real, moments = Path.unlink, []

    def stopped(path: Path, **how: bool) -> None:
        moments.append(path)
        if len(moments) == 1:
            raise KeyboardInterrupt
        real(path, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", stopped)
        with pytest.raises(KeyboardInterrupt):
            take_place(tmp_path)
    assert (tmp_path / NEW).exists()
    for _ in range(2):
        assert sorted(CellStore(tmp_path)) == sorted(KEYS[:2])
        if (tmp_path / NEW).exists():
            assert take_place(tmp_path) == 0
    assert len(CellStore(tmp_path).segments()) == 2 and not (tmp_path / NEW).exists()
