"""A forgetting that is killed is finished by the next command, as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from kit.forgetting import END, PROGRAM, Pair, assert_alike, holding, texts_of, with_remote
from kit.live import LiveProject

from bench.live import environment
from flows.live.forgetting.journal import JOURNAL
from tasks.verify import md5_of

pytestmark = pytest.mark.slow
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
    """Forgets bob, and is killed."""
    command = [live.python, "-c", STRIKE.format(python=live.python), module, name, str(count)]
    done = subprocess.run(
        [*command, "forget", "bob"], cwd=live.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 137, (name, done.stdout, done.stderr)


def strike_learning(live: LiveProject) -> None:
    """Forgets bob, and is killed a second after the second of its stages that learn began."""
    program = f"import os; print(os.getpid(), flush=True); {PROGRAM.format(live.python)}"
    process = subprocess.Popen(
        [live.python, "-c", program, "forget", "bob"],
        cwd=live.folder, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    while not process.stdout.readline().startswith("score_base: "):
        assert process.poll() is None
    time.sleep(1)
    os.kill(worker, signal.SIGKILL)
    process.communicate()
    assert process.returncode == 137


def names_in_cache(folder: Path) -> dict[str, str]:
    """The objects of a cache or remote, by name."""
    return {f"{file.parent.name}{file.name}": md5_of(file) for file in folder.glob("files/md5/??/*")}


def objects_of(live: LiveProject, commit: str, store: Path) -> set[str]:
    """What DVC is to have of a version, with the files of its folders as a cache lists them."""
    lock = yaml.safe_load(live.git("show", f"{commit}:dvc.lock"))["stages"]
    stages = ("ingest", "split", "score_base", "adapt@0", "consolidate@0")
    outs = [out for stage in stages for out in lock[stage]["outs"] if out["path"] != "data/ingest.json"]
    for name in ("live/parts.dvc", "live/aliases.json.dvc"):
        outs += yaml.safe_load(live.git("show", f"{commit}:{name}"))["outs"]
    names = {out["md5"] for out in outs}
    lists = [store / "files/md5" / name[:2] / name[2:] for name in names if name.endswith(".dir")]
    return names | {entry["md5"] for file in lists for entry in json.loads(file.read_text(encoding="utf-8"))}


@pytest.mark.long
def test_stopped_anywhere_it_is_finished_by_the_next(pair: Pair, tmp_path: Path) -> None:
    """One forgetting, killed at a time while its stages run, and at each of the moments."""
    live = with_remote(pair.begun, tmp_path)
    texts = texts_of(live, "bob")
    journal = live.folder / "live" / JOURNAL
    strike(live, *FIRST)
    assert journal.stat().st_mode & 0o777 == 0o600
    strike_learning(live)
    for moment in MOMENTS:
        strike(live, *moment)
        assert journal.exists()
    assert live.update(END).splitlines()[-2:] == ["Forgotten.", "Nothing is new and no period is due."]
    assert not journal.exists() and holding(tmp_path, "bob", texts) == []
    assert live.git("status", "--porcelain") == ""
    assert_alike(live, pair.never)
    kept = objects_of(live, live.git("log", "--grep=^Update: 1$", "--format=%H").strip(), tmp_path / "store")
    assert len(kept) > 15
    for here in ("project/.dvc/cache", "store"):
        found = names_in_cache(tmp_path / here)
        assert all(name.removesuffix(".dir") == md5 for name, md5 in found.items())
        assert kept <= found.keys()  # the version of before they came is there as it was
