"""A person is forgotten: what is left is, to the last bit, a project that never had them."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from kit.live import LiveProject, after
from kit.warm import Warm

from bench.live import CODE, call, environment, rest, state, told, version_bytes, write_batch
from flows.live.forgetting.journal import JOURNAL
from tasks.verify import differs, md5_of

pytestmark = pytest.mark.slow
WEEKS = (  # bob's id stands in that of another; cem comes with the second
    {"ann": 4, "bob": 5, "bobby": 3},
    {"ann": 3, "bob": 2, "cem": 4},
)
PROGRAM = "import sys; sys.executable = '{}'; import flows.console; flows.console.main()"
TOGETHER = "+arms.together={train: {scope: population, data: current}, memory: null}"


def drop(project: LiveProject, week: int, *, without: str = "") -> None:
    """Puts the texts of a week into the inbox."""
    file = project.folder / f"inbox/week-{week}.jsonl"
    write_batch(file, week, WEEKS[week])
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    rest(file, "".join(line for line in lines if json.loads(line)["who"] != without))


def make(folder: Path, model: Path, python: Path, *, without: str = "") -> LiveProject:
    """Two weeks, an update each."""
    made = LiveProject(folder, model, python, sets=[TOGETHER])
    for week in range(2):
        drop(made, week, without=without)
        made.update(after(week + 1))
    return made


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, warm_python: Warm
) -> LiveProject:
    """A live project that nobody changes."""
    folder = tmp_path_factory.mktemp("forgetting") / "project"
    return make(folder, tiny_model_folder, warm_python.folder / "python")


def copy(begun: LiveProject, folder: Path) -> LiveProject:
    """A copy with a remote that has all versions."""
    made = LiveProject.__new__(LiveProject)
    made.folder, made.python = folder / "project", begun.python
    shutil.copytree(begun.folder, made.folder, symlinks=True)
    made.dvc("remote", "add", "--local", "--default", "store", str(folder / "store"))
    made.dvc("push", "--quiet", "--all-commits")
    return made


def spring(project: LiveProject, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, however it ends; DVC starts in no time."""
    command = [project.python, "-c", PROGRAM.format(project.python), *words]
    return subprocess.run(command, cwd=project.folder, env=environment(), capture_output=True, text=True)


def said(project: LiveProject, *words: str) -> list[str]:
    """The lines of a command that ends well."""
    done = spring(project, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def texts_of(project: LiveProject, user: str) -> set[bytes]:
    """What a user wrote and nobody else, and the ids of that, by the files in the inbox."""
    rows = [json.loads(line) for file in (project.folder / "inbox").glob("*") for line in file.open()]
    others = " ".join(row["body"] for row in rows if row["who"] != user)
    found = {row["body"] for row in rows if row["who"] == user and row["body"] not in others}
    found |= {row["id"] for row in rows if row["who"] == user}
    assert len(found) > 5
    return {text.encode() for text in found}


def holding(folder: Path, user: str, texts: set[bytes]) -> list[str]:
    """Files that hold a user, by means of this test's own; in Git only what updates have committed counts."""
    found = []
    for file in (file for file in folder.rglob("*") if file.is_file()):
        name, data = str(file.relative_to(folder)), file.read_bytes()
        if name.startswith(("project/.git/", *(f"project/{code}" for code in CODE))):
            continue
        if data.startswith(b"PAR1"):
            data = json.dumps(pl.read_parquet(file).to_dicts(), default=str).encode()
            if f'"{user}"'.encode() in data:
                found.append(name)
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        words = b"bobby" not in data and user.encode() in data and not name.endswith(".safetensors")
        if words or any(text in data for text in texts):
            found.append(name)
    return found


def everything(project: LiveProject) -> dict[str, str]:
    """All that is served and what it follows from, without seconds and how cells share files."""
    before = Path.cwd()
    os.chdir(project.folder)
    try:
        return state(Path())
    finally:
        os.chdir(before)


def test_nothing_is_left_of_a_person(begun: LiveProject, tmp_path: Path, tiny_model_folder: Path) -> None:
    live = copy(begun, tmp_path)
    texts = texts_of(live, "bob")
    assert len(holding(tmp_path, "bob", texts)) > 50  # the search finds
    (live.folder / "notes.txt").write_text("ask bob", encoding="utf-8")

    head = live.git("rev-parse", "HEAD")
    lines = said(live, "forget", "bob", "--dry-run")
    assert (
        lines[0] == "rows of bob: 7 taken, 7 in 2 files of the inbox" and lines[-1] == "Nothing was changed."
    )
    assert "learned from all together, and would be learned again for all: together" in lines
    for words, expected in (
        (("bo",), "nobody is called bo; did you mean bob?"),
        (("Bob",), "nobody is called Bob"),
    ):
        done = spring(live, "forget", *words)
        assert (done.returncode, done.stdout) == (1, "") and expected in done.stderr
    with (live.folder / "live/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert spring(live, "forget", "bob").stderr == "Another update is at work; nothing was done.\n"
    assert live.git("rev-parse", "HEAD") == head and live.git("status", "--porcelain") == "?? notes.txt\n"
    assert everything(live) == everything(begun)

    done = spring(live, "forget", "bob")
    assert done.returncode == 1  # somebody's own file still does
    assert "still holds them: notes.txt" in done.stdout and done.stdout.count("still holds them") == 1
    (live.folder / "notes.txt").unlink()
    assert holding(tmp_path, "bob", texts) == []
    assert "bob" not in live.git("log", "-1", "--format=%B%an%ae")
    assert live.git("status", "--porcelain") == ""

    never = make(tmp_path / "never/project", tiny_model_folder, Path(live.python), without="bob")
    assert everything(live) == everything(never)
    for name in ("live/ledger.jsonl", "data/ingest.json", "live/aliases.json"):
        assert (live.folder / name).read_bytes() == (never.folder / name).read_bytes()
    assert list((live.folder / "inbox").iterdir())
    for file in (live.folder / "inbox").iterdir():
        assert file.read_bytes() == (never.folder / "inbox" / file.name).read_bytes()

    # to the very last byte, seconds too: a project that never had them, over the cells that are left
    again = LiveProject(tmp_path / "again/project", tiny_model_folder, Path(live.python), sets=[TOGETHER])
    shutil.copytree(live.folder / ".cells", again.folder / ".cells")
    for week in range(2):
        drop(again, week, without="bob")
    again.update(after(2))
    found, there = version_bytes(again.folder), version_bytes(live.folder)
    assert found.pop("live/aliases.json") and there.pop("live/aliases.json")  # one update, not two
    assert found == there
    names = [{file.name for file in (one.folder / ".cells/segments").iterdir()} for one in (live, again)]
    assert names[0] == names[1]  # nothing had to be computed, and nothing is there that nobody asks for

    # it stays so
    assert live.update(after(2)) == "Nothing is new and no period is due."
    assert said(live, "forget", "bob")[-1] == "Forgotten."
    assert [line.split(",")[0] for line in said(live, "list")] == ["live ann@1", "live bobby@0", "live cem@1"]
    assert said(live, "rollback", "ann")[0] == "rolled back: ann@0"
    rest(
        live.folder / "inbox/late.jsonl",
        "".join((begun.folder / f"inbox/week-{w}.jsonl").read_text() for w in (0, 1)),
    )
    assert "taken: late.jsonl, 0 new rows, 14 known; quarantined: forgotten 7" in live.update(after(2))
    (live.folder / "inbox/late.jsonl").unlink()
    assert holding(tmp_path / "project", "bob", texts) == []


def names_in_cache(folder: Path) -> dict[str, str]:
    """The objects of a cache or remote, by name."""
    return {f"{file.parent.name}{file.name}": md5_of(file) for file in folder.glob("files/md5/??/*")}


# ends itself, as kill -9 would, where a step begins that is the so-manieth call of its name
STRIKE = """
import importlib, os, signal, sys
sys.executable, module, name, count = {python!r}, *sys.argv[1:4]
del sys.argv[1:4]
place = importlib.import_module(module)
owner, _, function = name.rpartition(".")
owner = getattr(place, owner) if owner else place
real, calls = getattr(owner, function), []
def struck(*given, **named):
    calls.append(given)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(owner, function, struck)
import flows.console
flows.console.main()
"""
FIRST = ("spring.data.inbox.removing", "Cleared.replace", 1)  # the ledger is new, the inbox is not
MOMENTS = (  # after the stages
    ("flows.live.forgetting.steps", "leave_out", 1),
    ("spring.store.adopting", "CellStore.segments", 2),  # amid the swap of cells
    ("dvc_objects.db", "ObjectDB.delete", 7),
    ("flows.live.forgetting.leftovers", "remove", 1),
    ("flows.live.forgetting.command", "end_journal", 1),
)


def strike(live: LiveProject, module: str, name: str, count: int) -> None:
    """Forgets cem, and is killed."""
    command = [live.python, "-c", STRIKE.format(python=live.python), module, name, str(count)]
    done = subprocess.run(
        [*command, "forget", "cem"], cwd=live.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 137, (name, done.stdout, done.stderr)


def test_stopped_anywhere_it_is_finished_by_the_next(begun: LiveProject, tmp_path: Path) -> None:
    """One forgetting, killed at a time while its stages run, and at each of the moments."""
    live = copy(begun, tmp_path)
    texts = texts_of(live, "cem")
    first = live.git("log", "--grep=^Update: 1$", "--format=%H").strip()
    journal, words = live.folder / "live" / JOURNAL, ["forget", "cem"]
    strike(live, *FIRST)
    assert journal.stat().st_mode & 0o777 == 0o600
    program = PROGRAM.format(live.python)
    process = subprocess.Popen(
        [live.python, "-c", f"import os; print(os.getpid(), flush=True); {program}", *words],
        cwd=live.folder, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    while not process.stdout.readline().startswith("score_base: "):
        assert process.poll() is None
    time.sleep(1)
    os.kill(worker, signal.SIGKILL)
    process.communicate()
    for moment in MOMENTS:
        strike(live, *moment)
        assert journal.exists()
    assert live.update(after(2)).splitlines()[-2:] == ["Forgotten.", "Nothing is new and no period is due."]
    assert not journal.exists() and holding(tmp_path, "cem", texts) == []
    assert live.git("status", "--porcelain") == ""

    once = copy(begun, tmp_path / "once")
    assert said(once, "forget", "cem")[-1] == "Forgotten."
    assert everything(live) == everything(once) and told(live.folder) == told(once.folder)
    for here in ("project/.dvc/cache", "store"):
        assert all(name.removesuffix(".dir") == md5 for name, md5 in names_in_cache(tmp_path / here).items())

    # what never held them is there as it was: the version of before they came, here and in the remote
    for folder in (live.folder, tmp_path / "clone"):
        if folder != live.folder:
            call(["git", "clone", "--quiet", str(live.folder), str(folder)], tmp_path)
            shutil.copyfile(live.folder / ".dvc/config.local", folder / ".dvc/config.local")
        call(["git", "checkout", "--quiet", first], folder)
        call([live.python, "-m", "dvc", "pull", "--quiet", "--force", "--allow-missing"], folder)
        lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        for stage in ("ingest", "split", "score_base", "adapt@0", "consolidate@0"):
            for out in lock[stage]["outs"]:
                assert differs(folder / out["path"], out["md5"]) is None
        assert len(version_bytes(folder)) > 20
