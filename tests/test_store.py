"""The cell store: batches are all or nothing, whatever kills the process; keys stand for all that matters."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spring import store as module
from spring.code import code_digest
from spring.engine.settings import Lora
from spring.store import CellStore, cell_key

ROOT = Path(__file__).parents[1]
KEYS = [cell_key("spring.code", number=i) for i in range(3)]
IMPORTS = """
import os, signal, sys
from pathlib import Path
from spring.store import CellStore, cell_key
"""
HELPERS = """
store, keys = CellStore(Path(sys.argv[1])), [cell_key("spring.code", number=i) for i in range(3)]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def write():
    with store.batch() as batch:
        for key in keys:
            (batch.cell(key) / "value").write_text(key)
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
            (batch.cell(key) / "value").write_text(value or key)


def leftovers(root: Path) -> list[str]:
    return [p.name for name in ("writing", "complete") for p in (root / name).iterdir()]


def assert_all_there(root: Path) -> None:
    store = CellStore(root)
    assert store.missing(KEYS) == []
    assert [(store.path(key) / "value").read_text() for key in KEYS] == KEYS
    assert leftovers(root) == []


# --- batches ----------------------------------------------------------------------------------------------


def test_cells_become_visible_at_the_end_of_their_batch(tmp_path: Path) -> None:
    store, reader = CellStore(tmp_path), CellStore(tmp_path)
    assert reader.missing(KEYS) == KEYS
    with store.batch() as batch:
        for key in KEYS[:2]:
            (batch.cell(key) / "value").write_text(key)
        assert reader.missing(KEYS) == KEYS
    assert reader.missing([KEYS[2], KEYS[0], KEYS[1]]) == [KEYS[2]]
    assert KEYS[0] in reader and KEYS[2] not in reader
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_batch_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    store = CellStore(tmp_path)
    with pytest.raises(error), store.batch() as batch:  # noqa: PT012
        (batch.cell(KEYS[0]) / "value").write_text("half")
        raise error
    assert store.missing(KEYS) == KEYS and leftovers(tmp_path) == []
    write(store, KEYS)
    assert_all_there(tmp_path)


def test_the_first_of_equal_cells_stays(tmp_path: Path) -> None:
    first, second = CellStore(tmp_path), CellStore(tmp_path)
    with first.batch() as batch:
        (batch.cell(KEYS[0]) / "value").write_text("outer")
        write(second, KEYS[:2], "inner")
        (batch.cell(KEYS[2]) / "value").write_text("outer")
    assert [(first.path(key) / "value").read_text() for key in KEYS] == ["inner", "inner", "outer"]
    assert leftovers(tmp_path) == []


def test_an_empty_batch(tmp_path: Path) -> None:
    write(CellStore(tmp_path), [])
    assert leftovers(tmp_path) == []


def test_keys_must_be_keys(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="cell_key"):
        CellStore(tmp_path).path("../" * 21 + "x")


# --- crashes ----------------------------------------------------------------------------------------------


def test_killed_inside_a_batch(tmp_path: Path) -> None:
    """Nothing is visible, and the next process clears what was begun."""
    killed(
        tmp_path,
        "with store.batch() as batch:\n    (batch.cell(keys[0]) / 'value').write_text('x')\n    die()",
    )
    assert len(leftovers(tmp_path)) == 1
    store = CellStore(tmp_path)
    assert store.missing(KEYS) == KEYS and leftovers(tmp_path) == []


def test_killed_before_publishing(tmp_path: Path) -> None:
    """The batch was complete: the next process publishes it."""
    store = CellStore(tmp_path)
    killed(tmp_path, "CellStore._publish = die\nwrite()")
    assert store.missing(KEYS) == KEYS
    assert len(leftovers(tmp_path)) == 1
    assert_all_there(tmp_path)


@pytest.mark.parametrize("published", [1, 2])
def test_killed_while_publishing(tmp_path: Path, published: int) -> None:
    store = CellStore(tmp_path)
    code = "path, calls = CellStore.path, []\ndef slow(self, key):\n    calls.append(key)\n"
    code += (
        f"    return path(self, key) if len(calls) <= {published} else die()\nCellStore.path = slow\nwrite()"
    )
    killed(tmp_path, code)
    assert len(store.missing(KEYS)) == 3 - published
    assert_all_there(tmp_path)


def test_killed_while_recovering(tmp_path: Path) -> None:
    """A process dies with a complete batch, and so does the one that recovers it."""
    killed(tmp_path, "CellStore._publish = die\nwrite()")
    killed(tmp_path, "", before="CellStore._publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n")
    assert len(leftovers(tmp_path)) == 1
    assert_all_there(tmp_path)


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Its batch in progress, and one that it has completed but not published yet."""
    wait = "print('ready', flush=True)\nsys.stdin.readline()\n"
    code = (
        "publish = CellStore._publish\ndef late(self, complete):\n    "
        + wait.replace("\n", "\n    ")
        + "publish(self, complete)\nCellStore._publish = late\n"
        "with store.batch() as batch:\n    for key in keys:\n        "
        "(batch.cell(key) / 'value').write_text(key)\n    " + wait.replace("\n", "\n    ")
    )
    process = child(tmp_path, code)
    assert process.stdout is not None and process.stdin is not None
    for _ in range(2):
        assert process.stdout.readline() == "ready\n"
        assert CellStore(tmp_path).missing(KEYS) == KEYS
        assert len(leftovers(tmp_path)) == 1
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert_all_there(tmp_path)


def test_two_processes_recover_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another store recovers the batch just after this one found it: one of them does it, none fails."""
    killed(tmp_path, "CellStore._publish = die\nwrite()")
    original = module._alive
    others: list[Path] = []

    def alive(folder: Path) -> bool:
        if not others:
            others.append(folder)
            CellStore(tmp_path)
        return original(folder)

    monkeypatch.setattr(module, "_alive", alive)
    CellStore(tmp_path)
    assert others
    assert_all_there(tmp_path)


def test_processes_that_race_for_the_same_keys(tmp_path: Path) -> None:
    """Three processes write the same keys 20 times over, and open the store each time."""
    code = """
sys.stdin.readline()
for turn in range(20):
    store = CellStore(Path(sys.argv[1]))
    keys = [cell_key("spring.code", number=i, turn=turn) for i in range(3)]
    write()
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
            assert (store.path(key) / "value").read_text() == key
    assert leftovers(tmp_path) == []


# --- keys -------------------------------------------------------------------------------------------------


def test_key_by_hand() -> None:
    """sha256 of the sorted JSON, the store's format and the digest of the code included."""
    code = code_digest("spring.code")
    expected = hashlib.sha256(
        f'{{"a": [1, null], "b": "x", "code": "{code}", "format": 2}}'.encode()
    ).hexdigest()
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
    keys.add(cell_key("spring.store", **parts))
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
    mine = module._folder_name().split("-")[0]
    assert module._alive(Path(module._folder_name())) and module._alive(Path(f"{mine}-{os.getpid()}-x"))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not module._alive(Path(f"{mine}-{process.pid}-x"))
    assert not module._alive(Path(f"{os.getpid()}-x"))  # as earlier versions named them


def test_what_another_machine_writes_is_left_alone_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes cannot be seen from here; what it completed and left for longer is published."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module.platform, "node", lambda: "another")
        elsewhere.setattr(CellStore, "_publish", lambda *_: None)
        with CellStore(tmp_path).batch() as batch:
            for key in KEYS:
                (batch.cell(key) / "value").write_text(key)
    assert CellStore(tmp_path).missing(KEYS) == KEYS
    [left] = leftovers(tmp_path)
    yesterday = time.time() - module.DAY - 1
    os.utime(tmp_path / "complete" / left, (yesterday, yesterday))
    assert_all_there(tmp_path)
