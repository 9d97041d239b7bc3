"""The cell store: batches are all or nothing, whatever kills the process; keys stand for all that matters."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from spring.code import code_digest
from spring.engine.settings import Lora
from spring.store import cells as module
from spring.store import disk
from spring.store.cells import CellStore, StoreError
from spring.store.keys import cell_key
from spring.store.segments import DamagedError, Segment, write_segment

ROOT = Path(__file__).parents[1]
KEYS = [cell_key("spring.code", number=i) for i in range(3)]
IMPORTS = """
import os, signal, sys
from pathlib import Path
from spring.store.cells import CellStore
from spring.store.keys import cell_key
"""
HELPERS = """
store, keys = CellStore(Path(sys.argv[1])), [cell_key("spring.code", number=i) for i in range(3)]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def write():
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": key.encode()}
"""


def child(root: Path, code: str, *, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", IMPORTS + before + HELPERS + code, str(root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(root: Path, code: str, *, before: str = "") -> None:
    process = child(root, code, before=before)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors


def write(store: CellStore, keys: list[str], value: str | None = None) -> None:
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": (value or key).encode()}


def leftovers(root: Path) -> list[str]:
    return [p.name for name in ("writing", "claims") for p in (root / name).iterdir()]


def assert_all_there(root: Path) -> None:
    store = CellStore(root)
    assert store.missing(KEYS) == []
    assert [store.read(key)["value"].decode() for key in KEYS] == KEYS
    assert leftovers(root) == []


# --- batches ----------------------------------------------------------------------------------------------


def test_cells_become_visible_at_the_end_of_their_batch(tmp_path: Path) -> None:
    store, reader = CellStore(tmp_path), CellStore(tmp_path)
    assert reader.missing(KEYS) == KEYS
    with store.batch() as batch:
        for key in KEYS[:2]:
            batch[key] = {"value": key.encode()}
        assert reader.missing(KEYS) == KEYS
    assert reader.missing([KEYS[2], KEYS[0], KEYS[1]]) == [KEYS[2]]
    assert KEYS[0] in reader and KEYS[2] not in reader
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_batch_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    store = CellStore(tmp_path)
    with pytest.raises(error), store.batch() as batch:  # noqa: PT012
        batch[KEYS[0]] = {"value": b"half"}
        raise error
    assert store.missing(KEYS) == KEYS and leftovers(tmp_path) == []
    write(store, KEYS)
    assert_all_there(tmp_path)


def test_the_first_of_equal_cells_stays(tmp_path: Path) -> None:
    first, second = CellStore(tmp_path), CellStore(tmp_path)
    with first.batch() as batch:
        batch[KEYS[0]] = {"value": b"outer"}
        write(second, KEYS[:2], "inner")
        batch[KEYS[2]] = {"value": b"outer"}
    assert [first.read(key)["value"] for key in KEYS] == [b"inner", b"inner", b"outer"]
    assert leftovers(tmp_path) == []


def test_some_files_of_a_cell_and_the_lengths_of_all(tmp_path: Path) -> None:
    """What is not asked for is not read: damage of another file shows where the cell is looked for."""
    store, files = (
        CellStore(tmp_path),
        {"curve": b"[1, 2]", "empty": b"", "twin": b"[1, 2]", "weights": b"w" * 99},
    )
    with store.batch() as batch:
        batch[KEYS[0]] = files
    lengths = {name: len(content) for name, content in files.items()}
    assert store.read_some(KEYS[0], ("curve", "other")) == ({"curve": files["curve"]}, lengths)
    assert store.read_some(KEYS[0], ()) == ({}, lengths) and store.read(KEYS[0]) == files
    for ask in (store.read, lambda key: store.read_some(key, ())):
        with pytest.raises(KeyError):
            ask(KEYS[1])
    (segment,) = store.segments()
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"w" * 99, b"w" * 98 + b"v"))
    assert store.read_some(KEYS[0], ("curve",)) == ({"curve": files["curve"]}, lengths)
    with pytest.raises(DamagedError, match="weights is not what was written"):
        store.read_some(KEYS[0], ("curve", "weights"))


def test_an_empty_batch(tmp_path: Path) -> None:
    write(CellStore(tmp_path), [])
    assert leftovers(tmp_path) == []


def test_keys_must_be_keys(tmp_path: Path) -> None:
    for bad in ("../" * 21 + "x", "ab" * 31, "ab" * 33, "", " ".join(["ab" * 16] * 2), "AB" * 32):
        with pytest.raises(ValueError, match="cell_key"):
            write(CellStore(tmp_path), [bad])


def test_a_store_of_an_earlier_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(StoreError, match=f"{tmp_path} holds cells of an earlier version.*delete"):
        CellStore(tmp_path)


# --- crashes ----------------------------------------------------------------------------------------------


def test_killed_inside_a_batch(tmp_path: Path) -> None:
    killed(tmp_path, "with store.batch() as batch:\n    batch[keys[0]] = {'value': b'x'}\n    die()")
    store = CellStore(tmp_path)
    assert store.missing(KEYS) == KEYS and leftovers(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_batch_becomes_visible(tmp_path: Path, when: str) -> None:
    """All of it is there or nothing is; the next process clears what was begun."""
    code = {
        "before": "cells.write_segment = lambda new, folder: (write_segment(new, folder), die())\n",
        "after": "cells.sync = die\n",
    }[when]
    imports = "from spring.store import cells\nfrom spring.store.segments import write_segment\n"
    killed(tmp_path, imports + code + "write()")
    assert len(list((tmp_path / "writing").iterdir())) == 1
    store = CellStore(tmp_path)
    assert store.missing(KEYS) == (KEYS if when == "before" else []) and leftovers(tmp_path) == []
    write(store, KEYS)
    assert_all_there(tmp_path)


@pytest.mark.parametrize("point", ["_publish", "_segment"])
def test_killed_while_packing(tmp_path: Path, point: str) -> None:
    """What was two segments stays two or is one; nothing is lost, and the next packing finishes it."""
    write(CellStore(tmp_path), KEYS[:1])
    write(CellStore(tmp_path), KEYS[1:])
    killed(tmp_path, f"store._look()\nCellStore.{point} = die\nstore.pack(keys)")
    (tmp_path / "claims/pack").unlink(missing_ok=True)
    store = CellStore(tmp_path)
    assert store.missing(KEYS) == []
    store.pack(KEYS)
    assert len(store.segments()) == 1
    assert_all_there(tmp_path)


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Its batch in progress is neither read nor cleared."""
    code = "from spring.store import cells\nfrom spring.store.segments import write_segment\n"
    code += (
        "def late(new, folder):\n    written = write_segment(new, folder)\n    print('ready', flush=True)\n"
    )
    code += "    sys.stdin.readline()\n    return written\ncells.write_segment = late\nwrite()"
    process = child(tmp_path, code)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    assert CellStore(tmp_path).missing(KEYS) == KEYS
    assert len(leftovers(tmp_path)) == 1
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert_all_there(tmp_path)


def test_processes_that_race_for_the_same_keys(tmp_path: Path) -> None:
    """Three processes write the same keys 20 times over, open the store each time, and pack."""
    code = """
sys.stdin.readline()
for turn in range(20):
    store = CellStore(Path(sys.argv[1]))
    keys = [cell_key("spring.code", number=i, turn=turn) for i in range(3)]
    write()
    store.pack([cell_key("spring.code", number=i, turn=t) for t in range(turn + 1) for i in range(3)])
    assert not store.missing(keys)
"""
    processes = [child(tmp_path, code) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    store = CellStore(tmp_path)
    for turn in range(20):
        for key in [cell_key("spring.code", number=i, turn=turn) for i in range(3)]:
            assert store.read(key)["value"].decode() == key
    assert leftovers(tmp_path) == []


def test_a_cell_that_two_segments_hold_is_there_when_one_of_them_goes(tmp_path: Path) -> None:
    """As in the moment between the writing of a packed segment and the end of those that are packed."""
    store, other = CellStore(tmp_path), CellStore(tmp_path)
    names = [other._publish({key: {"value": key.encode()} for key in (KEYS[0], KEYS[i])}) for i in (1, 2)]
    assert store.missing(KEYS[1:]) == []
    known = store._where[KEYS[0]]
    (tmp_path / "segments" / known).unlink()
    gone = KEYS[1 + names.index(known)]
    write(store, [gone])
    store.pack(KEYS)
    assert CellStore(tmp_path).missing(KEYS) == []


# --- segments ---------------------------------------------------------------------------------------------

MANY = [cell_key("spring.code", number=i) for i in range(40)]


def test_small_segments_of_the_keys_asked_for_are_packed(tmp_path: Path, monkeypatch: Any) -> None:
    """Forty cells of a thousand bytes and half as many of names: seven or eight fit into a segment."""
    monkeypatch.setattr(module, "LIMIT", 12_000)
    store, other = CellStore(tmp_path), cell_key("spring.code", number=-1)
    for key in MANY:
        with store.batch() as batch:
            batch[key] = {"value": key.encode() * 16}
    write(store, [other, MANY[0][:-1] + ("1" if MANY[0].endswith("0") else "0")])
    reader = CellStore(tmp_path)
    assert not reader.missing(MANY) and len(store.segments()) == 41
    store.pack(MANY)
    assert len(store.segments()) < 10
    assert [reader.read(key)["value"].decode() for key in MANY] == [key * 16 for key in MANY], "packed away"
    sizes = [path.stat().st_size for path in store.segments()]
    assert max(sizes) <= module.LIMIT and other in CellStore(tmp_path)
    before = store.segments()
    store.pack([*MANY, other])
    assert other in store and set(before) - set(store.segments()) == set(), "it holds what was not asked for"


def test_equal_cells_in_equal_order_give_equal_bytes(tmp_path: Path) -> None:
    """Whoever wrote them: the names of segments can be compared. Equal files of cells lie there once."""
    names = []
    for place in ("one", "two"):
        store = CellStore(tmp_path / place)
        with store.batch() as batch:
            for key in MANY:
                batch[key] = {"same": b"s" * 5000, "own": key.encode()}
        names.append([path.name for path in store.segments()])
    assert names[0] == names[1] and len(names[0]) == 1
    assert store.segments()[0].stat().st_size < 2 * 5000 + 40 * 500
    tensors = load_file(store.segments()[0])  # anybody's safetensors
    assert sorted(bytes(tensor) for tensor in tensors.values()) == sorted(
        [b"s" * 5000, *(key.encode() for key in MANY)]
    )


def test_a_list_of_cells_is_some_bytes_a_cell(tmp_path: Path) -> None:
    """Three files of a cell: 3 x (16 digest + 16 place + 2 name) + 32 key + 4 + 4 = 142 bytes."""
    cells = {cell_key("spring.code", number=i): dict.fromkeys("abc", f"{i}".encode()) for i in range(2000)}
    segment = Segment(write_segment(cells, tmp_path))
    assert segment.keys == list(cells) and [segment.read(key) for key in cells] == list(cells.values())
    arrays = [value for value in vars(segment).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == 2000 * 142
    others = [value for value in vars(segment).values() if not isinstance(value, np.ndarray)]
    assert not any(len(value) > 3 for value in others if isinstance(value, list | dict | str | bytes))
    with pytest.raises(KeyError):
        segment.read(cell_key("spring.code", number=-1))


def test_packing_holds_one_cell_at_a_time(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    for key in MANY:
        with store.batch() as batch:
            batch[key] = {"value": key.encode() * 2000}  # 128 kB, 5 MB in all
    tracemalloc.start()
    store.pack(MANY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store.segments()) == 1 and peak < 800_000
    assert CellStore(tmp_path).read(MANY[7]) == {"value": MANY[7].encode() * 2000}


def test_links_have_no_bytes_of_their_own(tmp_path: Path, monkeypatch: Any) -> None:
    store = CellStore(tmp_path / "store")
    write(store, KEYS)
    files = store.link(KEYS, tmp_path / "data")
    [segment] = store.segments()
    assert set(files.values()) == {segment.name}
    assert (tmp_path / "data" / segment.name).samefile(segment)
    assert store.link(KEYS, tmp_path / "data") == files
    monkeypatch.setattr(module.os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    store.link(KEYS, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / segment.name).read_bytes() == segment.read_bytes()


# --- keys -------------------------------------------------------------------------------------------------


def test_key_by_hand() -> None:
    """sha256 of the store's format, the digest of the code and the sorted JSON."""
    code = code_digest("spring.code")
    expected = hashlib.sha256(f'4 {code} {{"a": [1, null], "b": "x"}}'.encode()).hexdigest()
    assert cell_key("spring.code", b="x", a=(1, None)) == expected


def test_key_changes_with_any_part() -> None:
    lora = Lora(r=8, alpha=8, dropout=0.05, target_modules=("q_proj",))
    parts: dict[str, Any] = {"lora": lora, "rows": [["a", "b"]], "parent": None, "seed": 1}
    changes: list[dict[str, Any]] = [
        {"lora": lora.model_copy(update={"dropout": 0.1})},
        {"rows": [["a"], ["b"]]},
        {"rows": [["ab"]]},
        {"parent": "None"},
        {"seed": "1"},
        {"seed": True},
        {"more": None},
    ]
    keys = {cell_key("spring.code", **{**parts, **change}) for change in [{}, *changes]}
    keys.add(cell_key("spring.words", **parts))
    assert len(keys) == len(changes) + 2
    assert cell_key("spring.code", **{name: parts[name] for name in reversed(parts)}) in keys


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON)
def test_equal_keys_only_for_equal_parts(left: Any, right: Any) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (cell_key("spring.code", part=left) == cell_key("spring.code", part=right)) == same


def test_names_tell_the_process() -> None:
    mine = disk.new_name().split("-")[0]
    assert disk.alive(Path(disk.new_name())) and disk.alive(Path(f"{mine}-{os.getpid()}-x"))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not disk.alive(Path(f"{mine}-{process.pid}-x"))
    assert not disk.alive(Path(f"{os.getpid()}-x"))  # as earlier versions named them


def test_what_another_machine_writes_is_left_alone_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes cannot be seen from here; what it left for longer is cleared."""
    CellStore(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(disk.platform, "node", lambda: "another")
        begun = tmp_path / "writing" / disk.new_name()
    begun.mkdir()
    CellStore(tmp_path)
    assert begun.exists()
    yesterday = time.time() - disk.DAY - 1
    os.utime(begun, (yesterday, yesterday))
    CellStore(tmp_path)
    assert not begun.exists()
