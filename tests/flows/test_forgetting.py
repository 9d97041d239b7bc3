"""A person is forgotten: what is left is, to the last bit, a project that never had them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from kit.forgetting import END, Pair, assert_alike, holding, said, spring, texts_of, with_remote

from bench.live import rest, state
from spring.store.cells import CellStore
from spring.store.remote import REMOTE
from spring.store.shared import Shared

pytestmark = pytest.mark.slow


def test_nothing_is_left_of_a_person(pair: Pair, tmp_path: Path) -> None:
    live = with_remote(pair.begun, tmp_path)
    cells = {REMOTE: f"file://{tmp_path}/cells"}
    before = Shared(live.folder / ".cells", cells[REMOTE])  # puts them, as stages would have
    there, never = before.remote, set(CellStore(pair.never.folder / ".cells"))
    assert set(before) - never, "of bob, and of all together with him"
    texts = texts_of(live, "bob")
    assert len(holding(tmp_path, "bob", texts)) > 50  # the search finds
    for place in (live.folder, tmp_path / "store"):
        (place / "notes.txt").write_text("ask bob", encoding="utf-8")
    stored = {file: file.read_bytes() for file in (tmp_path / "store/files").rglob("*") if file.is_file()}

    head = live.git("rev-parse", "HEAD")
    lines = said(live, "forget", "bob", "--dry-run", **cells)
    assert lines[0] == "rows of bob: 7 taken, 7 in 3 files of the inbox"
    assert "learned from all together, and would be learned again for all: together" in lines
    assert lines[-1] == "Nothing was changed."
    done = spring(live, "forget", "bo", **cells)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody is called bo; did you mean bob?" in done.stderr
    with (live.folder / "live/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (
            spring(live, "forget", "bob", **cells).stderr == "Another update is at work; nothing was done.\n"
        )
    assert live.git("rev-parse", "HEAD") == head and live.git("status", "--porcelain") == "?? notes.txt\n"
    assert state(live.folder) == state(pair.begun.folder) != state(pair.never.folder)

    done = spring(live, "forget", "bob")
    assert done.returncode == 1 and f"set {REMOTE} to it" in done.stderr  # or it would keep what it has
    done = spring(live, "forget", "bob", **cells)
    assert done.returncode == 1  # somebody's own file still does
    assert f"beyond reach: {there.url}: from other machines' folders they go" in done.stdout
    assert set(there.listed("segments")) == {
        path.name for path in (live.folder / ".cells/segments").iterdir()
    }
    assert done.stdout.count("still holds them") == 2
    for place, name in ((live.folder, "notes.txt"), (tmp_path / "store", str(tmp_path / "store/notes.txt"))):
        assert f"still holds them: {name}\n" in done.stdout
        (place / "notes.txt").unlink()
    assert holding(tmp_path, "bob", texts) == []
    assert "bob" not in live.git("log", "-1", "--format=%B%an%ae")
    assert live.git("status", "--porcelain") == ""
    assert_alike(live, pair.never)

    # a habit brings nothing back; from a clone that has all in its cache it would, and they go again
    live.dvc("push", "--quiet", "--all-commits")
    assert holding(tmp_path, "bob", texts) == []
    for file in (file for file in stored if not file.exists()):
        file.write_bytes(stored[file])
    assert holding(tmp_path / "store", "bob", texts) != []

    # it stays so
    assert live.update(END) == "Nothing is new and no period is due."
    assert said(live, "forget", "bob", **cells)[-1] == "Forgotten." and holding(tmp_path, "bob", texts) == []
    assert [line.split(",")[0] for line in said(live, "list")] == ["live ann@1", "live bobby@2", "live cem@2"]
    assert said(live, "rollback", "ann")[0] == "rolled back: ann@0"
    late = live.folder / "inbox/late.jsonl"
    weeks = [(pair.begun.folder / f"inbox/week-{week}.jsonl").read_text(encoding="utf-8") for week in (1, 2)]
    rest(late, "".join(weeks))
    assert "taken: late.jsonl, 0 new rows, 8 known; quarantined: forgotten 7" in live.update(END)
    late.unlink()
    assert holding(tmp_path / "project", "bob", texts) == []
