"""What a week of bad luck does to stages and the store: `python -m bench.faults [--tries 25] [--seed 0]`.

A small experiment on a tiny model is run undisturbed; then its stages again and again, each time with one
fault at a random moment, and once more without. What must hold: the end is that of the undisturbed run, bit
for bit, and whatever went wrong was told. With `--keep` the figures of these kinds go to
bench/results/faults.json.

    kill    the stage is killed (SIGKILL)
    flip    a bit of a segment of the store is flipped, or the segment cut off
    full    no file may grow beyond some size, as on a full disk
    edit    a parameter that the stage reads is edited while it runs
    dvc     the stage runs under DVC, which is killed
    tables  tables of text, whole and damaged, are read (bench/fuzz.py)
    parquet damaged parquet files are read
    update  an update of a live project is killed (bench/updates.py)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from tqdm import tqdm

from bench import updates
from bench.contents import content_of, is_compared
from bench.fuzz import KINDS
from bench.machine import RESULTS
from bench.processes import BEFORE, ROOT, Stage, child, dvc, finish, start
from bench.tiny import save_tiny
from spring.store.cells import CellStore
from tasks.files import write_json

WORDS = ("the", "a", "good", "bad", "fine", "old", "new", "red", "blue", "cup", "lamp", "works", "again")
STAGES: tuple[Stage, ...] = tuple((name, t) for t in (0, 1) for name in ("adapt", "consolidate", "generate"))
RESULT = RESULTS / "faults.json"
MOST = 3  # attempts after which a stage has not recovered
STARTS = 2.5  # seconds that DVC and then a stage of its own take to begin


# --- the experiment ---------------------------------------------------------------------------------------


def prepare() -> None:
    """Three users who write short texts, two periods, and the arms of the default experiment."""
    save_tiny(Path("tiny"))
    rows = []
    for u, n in product(range(3), range(16)):
        text = " ".join(WORDS[(u * 7 + n * 3 + k * (u + 2)) % len(WORDS)] for k in range(4 + (n + u) % 5))
        known = {"who": f"user {u}", "when": f"2024-01-{n + 1:02}T00:00:00+00:00"}
        rows.append(known | {"subject": f"{WORDS[n % len(WORDS)]} {WORDS[u]} {n}", "body": text})
    pl.DataFrame(rows).write_csv("table.csv")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    columns: dict[str, Any] = {"path": "table.csv", "task": "commit", "user_id": "who", "response": "body"}
    columns |= {"timestamp": "when", "interaction_id": None, "year": None, "month": None}
    tree["periods"] = {"0": "base", "1": 0}
    tree["ingest"] |= {"source": "table", "min_interactions": 4, "min_chars": 1}
    tree["ingest"]["table"] |= columns | {"query": {"SUBJECT": "subject"}}
    tree["model"] |= {"id": "tiny", "dtype": "float32", "device": "cpu"}
    tree["arm"]["decode"]["max_new_tokens"] = 6
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
    shutil.copytree(ROOT / "suites", "suites")
    dvc(Path(), "init", "--no-scm", "-q").wait()


def outputs(stage: Stage, folder: Path) -> Path:
    """Where a stage of a period writes."""
    return folder / "data" / stage[0] / str(stage[1])


def result(stage: Stage, folder: Path) -> str:
    """What stands for all that a stage has written, without the seconds it took: to the last bit."""

    def work() -> None:
        digest = hashlib.sha256()
        files = (path for path in outputs(stage, Path()).rglob("*") if path.is_file())
        files = (path for path in files if is_compared(path))
        for file in sorted(path for path in files if not path.name.startswith(".writing-")):
            # what a killed writer began is no output: DVC clears a stage's folder before it runs
            digest.update(f"{file} {content_of(file)}\n".encode())
        print(digest.hexdigest())

    looking = child(work, folder)
    finish(looking)
    return looking.said()


# --- faults -----------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One stage, set back to before it ran, and what it must end as."""

    stage: Stage
    folder: Path
    expected: str  # its `result`
    seconds: float  # that it takes undisturbed
    chance: random.Random

    def again(self) -> tuple[bool, int]:
        """Whether the stage ends as it must, and after how many attempts."""
        for attempt in range(1, MOST + 1):
            if start(self.stage, self.folder).wait() == 0:
                return result(self.stage, self.folder) == self.expected, attempt
        return False, MOST


def kill(case: Case) -> str:
    """The stage is killed."""
    stage = start(case.stage, case.folder)
    time.sleep(case.chance.uniform(0, 1.1 * case.seconds))
    os.kill(stage.pid, signal.SIGKILL)
    return "killed" if stage.wait() < 0 else "too late"


def flip(case: Case) -> str:
    """Bad bytes in the store, after the stage has run and before it runs again."""
    finish(start(case.stage, case.folder))
    segments = CellStore(case.folder / ".cells").segments()
    if not segments:
        return "no cells"
    file = case.chance.choice(segments)
    whole = bytearray(file.read_bytes())
    if case.chance.random() < 0.5:
        whole[case.chance.randrange(len(whole))] ^= 1 << case.chance.randrange(8)
        file.write_bytes(whole)
    else:
        file.write_bytes(whole[: case.chance.randrange(len(whole))])
    shutil.rmtree(outputs(case.stage, case.folder))
    again = start(case.stage, case.folder)
    finish(again)
    return "told" if "is damaged and computed again" in again.said() else "silent"


def full(case: Case) -> str:
    """A file that cannot grow: a stage that does not end well says so."""
    sizes = (file.stat().st_size for file in (case.folder / "data").rglob("*.parquet"))
    stage = start(case.stage, case.folder, limit=int(max(sizes) * case.chance.uniform(0.001, 1)))
    if stage.wait() == 0:
        return "fits"
    return "told" if "error: a limit on the size of files" in stage.said() else "silent"


def edit(case: Case) -> str:
    """A parameter changes under the stage: it must not end well, but for one that had ended before."""
    params = case.folder / "params.yaml"
    before = params.read_text(encoding="utf-8")
    tree = yaml.safe_load(before)
    tree["seed"] += 1
    stage = start(case.stage, case.folder)
    time.sleep(case.chance.uniform(0, 0.9 * case.seconds))
    params.write_text(yaml.safe_dump(tree), encoding="utf-8")
    ended = stage.wait()
    params.write_text(before, encoding="utf-8")
    if ended == 0:
        return "too late"
    return "told" if "params.yaml: seed changed" in stage.said() else "silent"


def kill_dvc(case: Case) -> str:
    """DVC is killed, its stage lives on, and DVC is started again at once: cells that are there stay."""
    words = ("repro", "--single-item", "@".join(map(str, case.stage)))
    first = dvc(case.folder, *words)
    time.sleep(case.chance.uniform(0, STARTS + 1.1 * case.seconds))
    first.send_signal(signal.SIGKILL)
    killed = first.wait() < 0
    there = held_cells(case.folder)
    again = dvc(case.folder, *words)
    said, _ = again.communicate()
    if again.returncode != 0 or result(case.stage, case.folder) != case.expected:
        return "silent: " + said[-500:]
    if {key: cell for key, cell in held_cells(case.folder).items() if key in there} != there:
        return "silent: a cell was written again"
    return "killed" if killed else "too late"


def held_cells(folder: Path) -> dict[str, dict[str, bytes]]:
    """The cells that are there; the seconds in them tell whether they are the same as before."""
    store = CellStore(folder / ".cells")
    return {key: store.read(key) for key in store}


FAULTS: dict[str, Callable[[Case], str]] = {
    "kill": kill, "flip": flip, "full": full, "edit": edit, "dvc": kill_dvc,
}  # fmt: skip


UPDATE = "update"
ALL = [*FAULTS, *KINDS, UPDATE]


def run(folder: Path, kinds: list[str], *, tries: int, seed: int) -> dict[str, dict[str, Any]]:
    """Kind of fault -> how often it was tried, how the stage ended, and what came of it afterwards."""
    found = {kind: fuzz(kind, tries, seed) for kind in kinds if kind in KINDS}
    asked = [kind for kind in kinds if kind in FAULTS]
    struck = strike(folder, asked, tries, seed) if asked else {}
    if UPDATE in kinds:
        found[UPDATE] = updates.strike(folder / UPDATE, tries=tries, seed=seed)
    return {**struck, **found}


def fuzz(kind: str, tries: int, seed: int) -> dict[str, Any]:
    """Sources under damage, in a process that may use polars."""
    command = [sys.executable, "-m", "bench.fuzz", kind, str(tries), str(seed)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    ends = json.loads(done.stdout)
    wrong = ends.pop("wrong", 0)
    return {"tries": sum(ends.values()) + wrong, "ends": ends, "most_attempts": None, "wrong": wrong}


def strike(folder: Path, kinds: list[str], tries: int, seed: int) -> dict[str, dict[str, Any]]:
    """Faults of `FAULTS` upon stages of a small experiment."""
    home, chance = folder / "home", random.Random(seed)
    home.mkdir()
    finish(child(prepare, home))
    for stage in BEFORE:
        finish(start(stage, home))
    expected, seconds, states = {}, {}, {}
    for stage in STAGES:
        states[stage] = folder / f"before-{stage[0]}-{stage[1]}"
        shutil.copytree(home, states[stage], ignore=shutil.ignore_patterns(".cells"))
        began = time.perf_counter()
        finish(start(stage, home))
        seconds[stage] = time.perf_counter() - began
        expected[stage] = result(stage, home)
    found = {}
    for kind in kinds:
        ends, attempts, wrong = Counter[str](), 0, 0
        for _ in tqdm(range(tries), desc=kind, unit="try"):
            stage = chance.choice(STAGES)
            shutil.rmtree(home)
            shutil.copytree(states[stage], home)
            case = Case(stage, home, expected[stage], seconds[stage], chance)
            end = FAULTS[kind](case)
            ends[end] += 1
            same, needed = case.again()
            attempts, wrong = max(attempts, needed), wrong + (not same)
        found[kind] = {"tries": tries, "ends": dict(ends), "most_attempts": attempts, "wrong": wrong}
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = ["| Fault | Tried | How it ended | Runs until well, at most | Another result |"]
    lines.append("|---|---:|---|---:|---:|")
    for kind, one in found.items():
        ends = ", ".join(f"{count} {end}" for end, count in sorted(one["ends"].items()))
        attempts = one["most_attempts"] or "-"
        lines.append(f"| {kind} | {one['tries']} | {ends} | {attempts} | {one['wrong']} |")
    return "\n".join(lines)


def kept_faults() -> dict[str, dict[str, Any]]:
    """What was kept of earlier runs, also of other kinds."""
    found: dict[str, dict[str, Any]] = json.loads(RESULT.read_text(encoding="utf-8"))["faults"]
    return found


def main() -> None:
    """Tries every kind of fault and prints a table; exit status 1 where one was silent or left its mark."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=25, help="of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--keep", action="store_true", help="write them into bench/results/faults.json")
    arguments = parser.parse_args()
    slow = ["transformers.models.llama.modeling_llama", "bm25s"]
    for module in slow + [f"tasks.{name}" for name, _ in (*BEFORE, *STAGES)]:
        import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), arguments.kinds, tries=arguments.tries, seed=arguments.seed)
    print(table(found))
    if arguments.keep:
        seeded = {kind: {"seed": arguments.seed, **one} for kind, one in found.items()}
        write_json({"faults": {**kept_faults(), **seeded}}, RESULT)
    if any(one["wrong"] or any(end.startswith("silent") for end in one["ends"]) for one in found.values()):
        sys.exit("error: a fault was silent, or a stage ended otherwise than undisturbed")


if __name__ == "__main__":
    main()
