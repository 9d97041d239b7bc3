"""What bad disks and neighbours do to the cell store: damage is found, and nothing is computed twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spring.store import cells, claims, segments
from spring.store.cells import CellStore
from spring.store.disk import new_name
from spring.store.keys import cell_key
from spring.store.segments import DamagedError, Segment, is_whole, opened, whole_cells

ROOT = Path(__file__).parents[1]
KEYS = [cell_key("spring.code", number=i) for i in range(3)]


def written(root: Path) -> CellStore:
    """A store with two cells of two files, in one segment."""
    store = CellStore(root)
    with store.batch() as batch:
        for key in KEYS[:2]:
            batch[key] = {"value": bytes(range(256)) + key.encode(), "other": b"{}"}
    return store


def damage(segment: Path, content: bytes) -> None:
    """Other bytes under the name; no handle of before sees them."""
    segment.unlink()
    segment.write_bytes(content)
    opened.cache_clear()


@pytest.mark.parametrize("how", ["truncated", "emptied", "header", "gone"])
def test_a_damaged_segment_is_set_aside_and_its_cells_are_missing(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [segment] = written(tmp_path).segments()
    assert not CellStore(tmp_path).missing(KEYS[:2])
    whole = segment.read_bytes()
    if how == "gone":
        segment.unlink()
        opened.cache_clear()
    else:
        damage(segment, {"truncated": whole[:100], "emptied": b"", "header": b"x" * 8 + whole[8:]}[how])
    store = CellStore(tmp_path)
    assert store.missing(KEYS[:2]) == KEYS[:2]
    if how != "gone":
        assert len(list((tmp_path / "bad").iterdir())) == 1 and not segment.exists()
        assert "is damaged and computed again" in capsys.readouterr().err
    written(tmp_path)
    assert not store.missing(KEYS[:2])


def test_any_flipped_bit_is_found_and_costs_its_own_cell_alone(tmp_path: Path) -> None:
    """At every place: `is_whole` finds it. No cell that is not what was written is ever given out."""
    store = written(tmp_path)
    [segment] = store.segments()
    whole, there = segment.read_bytes(), {key: store.read(key) for key in KEYS[:2]}
    values = [whole.index(cell["value"]) for cell in there.values()]
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        damage(segment, bytes(flipped))
        assert not is_whole(segment), place
        left = {}
        try:
            left = whole_cells(Segment(segment))
        except DamagedError:
            assert place < min(values), "a header"
        assert all(there.get(key) == files for key, files in left.items()), place
        for key, begin in zip(there, values, strict=True):
            if begin <= place < begin + len(there[key]["value"]):
                assert left == {other: there[other] for other in there if other != key}
    damage(segment, whole)
    assert is_whole(segment)


def test_no_flipped_bit_stops_the_store(tmp_path: Path) -> None:
    """Equal cells have one place: of `[0.64]`, which is one flip from `[0,64]`, nothing else may come."""
    store = CellStore(tmp_path)
    with store.batch() as batch:
        batch |= {key: {"value": b"the same"} for key in KEYS[:2]}
    [segment] = store.segments()
    whole = segment.read_bytes()
    flips = [(place, place % 8) for place in range(len(whole))]
    flips += [(place, 1) for place in range(len(whole)) if whole[place : place + 1] == b","]
    for place, bit in flips:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        damage(segment, bytes(flipped))
        store = CellStore(tmp_path)
        missing = store.missing(KEYS[:2])
        assert all(store.read(key) == {"value": b"the same"} for key in KEYS[:2] if key not in missing)
        for left in store.segments():
            left.unlink()
        segment.write_bytes(whole)
        opened.cache_clear()
    assert CellStore(tmp_path).missing(KEYS[:2]) == []


def test_whole_neighbours_of_a_damaged_cell_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = written(tmp_path)
    [segment] = store.segments()
    whole, kept = segment.read_bytes(), store.read(KEYS[1])
    damage(segment, flipped_value(whole))
    store = CellStore(tmp_path)
    assert store.missing(KEYS[:2]) == KEYS[:1] and store.read(KEYS[1]) == kept
    assert f"{KEYS[0]}: value is not what was written" in capsys.readouterr().err
    assert [is_whole(file) for file in store.segments()] == [True]


def flipped_value(whole: bytes) -> bytes:
    """The first cell's value with its first byte turned."""
    begin = whole.index(bytes(range(256)) + KEYS[0].encode())
    return whole[:begin] + b"\x01" + whole[begin + 1 :]


def test_a_cell_that_was_damaged_after_it_was_checked_is_not_given_out(tmp_path: Path) -> None:
    store = written(tmp_path)
    assert not store.missing(KEYS[:1])
    [segment] = store.segments()
    damage(segment, flipped_value(segment.read_bytes()))
    with pytest.raises(DamagedError, match=f"{KEYS[0]}: value"):
        store.read(KEYS[0])


def test_cells_are_on_the_disk_before_they_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file while it still lies in `writing`, then the folder that names it."""
    synced: list[Path] = []
    for place in (segments, cells):
        monkeypatch.setattr(place, "sync", lambda path: synced.append(path.relative_to(tmp_path)))
    written(tmp_path)
    assert [path.parts[0] for path in synced] == ["writing", "segments"] and len(synced[0].parts) == 3


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
    mine = new_name()
    holders = (f"{mine.split('-')[0]}-{process.pid}-x", mine, "elsewhere-1-x")
    for key, holder in zip(KEYS, holders, strict=True):
        (tmp_path / "claims" / key).write_text(holder)
    with store.claim(KEYS) as taken:
        assert taken == KEYS[:1]
    late = time.time() - claims.EXPIRY - 1
    for key in KEYS[1:]:
        os.utime(tmp_path / "claims" / key, (late, late))
    with store.claim(KEYS) as taken:
        assert taken == KEYS


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "EXPIRY", 0.5)
    with CellStore(tmp_path).claim(KEYS[:1]):
        time.sleep(1.0)
        with CellStore(tmp_path).claim(KEYS[:1]) as theirs:
            assert theirs == []


COMPUTE = """
import sys, time
from pathlib import Path
from spring.store.cells import CellStore
from tasks.cells.fill import ours

store, keys = CellStore(Path(sys.argv[1])), sys.argv[2:]
sys.stdin.readline()
for some in ours(store, keys, 2):
    time.sleep(0.05)
    with store.batch() as batch:
        for key in some:
            batch[key] = {"value": key.encode()}
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
