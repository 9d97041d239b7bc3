"""What bad disks and neighbours do to the cell store: damage is found, and nothing is computed twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spring import store as module
from spring.store import CellStore, cell_key

ROOT = Path(__file__).parents[1]
KEYS = [cell_key("spring.code", number=i) for i in range(3)]


def written(root: Path) -> CellStore:
    """A store with one cell of two files."""
    store = CellStore(root)
    with store.batch() as batch:
        cell = batch.cell(KEYS[0])
        (cell / "value").write_bytes(bytes(range(256)) * 8)
        (cell / "other").write_text("{}")
    return store


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda cell: (cell / "value").write_bytes((cell / "value").read_bytes()[:-1]),
    "emptied": lambda cell: (cell / "other").write_bytes(b""),
    "gone": lambda cell: (cell / "other").unlink(),
    "one more": lambda cell: (cell / "more").write_text(""),
    "no manifest": lambda cell: (cell / module.MANIFEST).unlink(),
    "half a manifest": lambda cell: (cell / module.MANIFEST).write_text("{"),
    "another manifest": lambda cell: (cell / module.MANIFEST).write_text("[]"),
    "a folder": lambda cell: ((cell / "other").unlink(), (cell / "other").mkdir()),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_cell_is_set_aside_and_missing(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = written(tmp_path).path(KEYS[0])
    assert not CellStore(tmp_path).missing(KEYS[:1])
    DAMAGES[how](cell)
    store = CellStore(tmp_path)
    assert store.missing(KEYS[:1]) == KEYS[:1] and not cell.exists()
    assert len(list((tmp_path / "bad").iterdir())) == 1
    assert f"is damaged and computed again: {KEYS[0]}" in capsys.readouterr().err
    written(tmp_path)
    assert KEYS[0] in store


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    """In every file, at every byte of the smaller ones and at many of the larger."""
    cell = written(tmp_path).path(KEYS[0])
    for file in sorted(cell.iterdir()):
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << (place % 8)
            file.write_bytes(flipped)
            assert module.damage(cell) is not None, (file.name, place)
        file.write_bytes(whole)
    assert module.damage(cell) is None


def test_cells_are_on_the_disk_before_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder of a batch is synced while it still lies in `writing`."""
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync", lambda path: synced.append(path.relative_to(tmp_path)))
    written(tmp_path)
    names = {path.name for path in synced if path.parts[0] == "writing"}
    assert names == {"value", "other", module.MANIFEST, KEYS[0]}
    assert synced[-1] == Path("complete")


# --- claims -----------------------------------------------------------------------------------------------


def test_a_claim_keeps_others_away(tmp_path: Path) -> None:
    store, other = CellStore(tmp_path), CellStore(tmp_path)
    with store.claim(KEYS[:2]) as mine, other.claim(KEYS) as theirs:
        assert (mine, theirs) == (KEYS[:2], KEYS[2:])
    with other.claim(KEYS) as theirs:
        assert theirs == KEYS
    assert not list((tmp_path / "claims").iterdir())


def test_claims_of_the_dead_and_the_silent_count_no_more(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = module._folder_name()
    holders = (f"{mine.split('-')[0]}-{process.pid}-x", mine, "elsewhere-1-x")
    for key, holder in zip(KEYS, holders, strict=True):
        (tmp_path / "claims" / key).write_text(holder)
    with store.claim(KEYS) as taken:
        assert taken == KEYS[:1]
    late = time.time() - module.EXPIRY - 1
    for key in KEYS[1:]:
        os.utime(tmp_path / "claims" / key, (late, late))
    with store.claim(KEYS) as taken:
        assert taken == KEYS


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPIRY", 0.5)
    with CellStore(tmp_path).claim(KEYS[:1]):
        time.sleep(1.0)
        with CellStore(tmp_path).claim(KEYS[:1]) as theirs:
            assert theirs == []


COMPUTE = """
import sys, time
from pathlib import Path
from spring.store import CellStore
from tasks.cells.fill import ours

store, keys = CellStore(Path(sys.argv[1])), sys.argv[2:]
sys.stdin.readline()
for some in ours(store, keys, 2):
    time.sleep(0.05)
    with store.batch() as batch:
        for key in some:
            (batch.cell(key) / "value").write_text(key)
            print(key, flush=True)
assert not store.missing(keys)
"""


def test_two_processes_compute_nothing_twice(tmp_path: Path) -> None:
    """Two clones on one store ask for the same twenty cells at once: each is computed by one of them."""
    keys = [cell_key("spring.code", number=i) for i in range(20)]
    command = [sys.executable, "-c", COMPUTE, str(tmp_path), *keys]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    done = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(done[0] + done[1]) == sorted(keys)


def test_what_a_killed_process_had_claimed_is_computed(tmp_path: Path) -> None:
    keys = [cell_key("spring.code", number=i) for i in range(6)]
    slow = COMPUTE.replace("time.sleep(0.05)", "print('begun', flush=True); time.sleep(60)")
    command = [sys.executable, "-c", slow, str(tmp_path), *keys]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]
    killed.stdin.write("\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "begun\n"
    killed.kill()
    killed.wait()
    command[2] = COMPUTE
    after = subprocess.run(command, cwd=ROOT, text=True, input="\n", capture_output=True, timeout=60)
    assert after.returncode == 0 and sorted(after.stdout.split()) == sorted(keys)
