"""A forgetting that is killed is finished by the next command, as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from kit.forgetting import END, PROGRAM, Pair, assert_alike, holding, texts_of, with_remote
from kit.live import LiveProject

from bench.live import call, environment, version_bytes
from flows.live.forgetting.journal import JOURNAL
from tasks.verify import differs, md5_of

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


def test_stopped_anywhere_it_is_finished_by_the_next(pair: Pair, tmp_path: Path) -> None:
    """One forgetting, killed at a time while its stages run, and at each of the moments."""
    live = with_remote(pair.begun, tmp_path)
    texts = texts_of(live, "bob")
    first = live.git("log", "--grep=^Update: 1$", "--format=%H").strip()
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
        assert len(version_bytes(folder)) > 10
