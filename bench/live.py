"""A small live project: four users, weeks as periods, a tiny model, the project's code in a repository."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from bench.contents import content_of, is_compared
from bench.processes import ROOT

START, WEEK = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=7)
WORDS = ("the", "a", "good", "bad", "fine", "old", "new", "red", "blue", "cup", "lamp", "works", "again")
CODE = (
    "spring",
    "tasks",
    "flows",
    "suites",
    "dvc.yaml",
    "params.yaml",
    ".gitignore",
    ".dvcignore",
    "prefect.toml",
)
# Weeks, and how many texts each user brings: bob stays away, cem comes later
BATCHES = ({"ann": 4, "bob": 5}, {"ann": 3, "cem": 4}, {"bob": 2, "cem": 3, "dee": 3})
ARMS = {"base": {"train": None, "memory": None}, "spring": {"retrieve": {"sigma": "q2"}}}
COLUMNS = (
    "task=commit",
    "user_id=who",
    "interaction_id=id",
    "response=body",
    "timestamp=when",
    "year=null",
    "month=null",
)


def write_batch(path: Path, week: int, batch: dict[str, int], *, shift: timedelta = timedelta()) -> None:
    """The texts of a week as JSON lines; `shift`: they are dated so much later."""
    lines = []
    for number, (user, count) in enumerate(sorted(batch.items())):
        for n in range(count):
            words = [
                WORDS[(week * 5 + number * 7 + n * 3 + k * (number + 2)) % len(WORDS)]
                for k in range(5 + n % 3)
            ]
            when = START + week * WEEK + (n + 0.5) * WEEK / count + shift
            row = {"who": user, "id": f"{user}-{week}-{n}", "when": when.isoformat()}
            lines.append(json.dumps(row | {"subject": f"{words[0]} {week} {n}", "body": " ".join(words)}))
    rest(path, "\n".join(lines) + "\n")


def rest(path: Path, text: str) -> None:
    """Writes a file that rests: it was written a minute ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    ago = path.stat().st_mtime - 60
    os.utime(path, (ago, ago))


def make_live(folder: Path, model: Path, *, python: str = sys.executable, sets: Iterable[str] = ()) -> None:
    """A repository with the project's code and small settings, made live; `sets`: further KEY=VALUE."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        source, ignore = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copyfile(source, folder / name)
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(small(params, model), sort_keys=False), encoding="utf-8")
    call(["git", "init", "--quiet", "--initial-branch", "main"], folder)
    call([python, "-m", "dvc", "init", "--quiet"], folder)
    shutil.copyfile(ROOT / ".dvc/config", folder / ".dvc/config")
    call(["git", "add", "."], folder)
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    call(["git", *identity, "commit", "--quiet", "--message", "start"], folder)
    columns = [f"ingest.table.{column}" for column in COLUMNS]
    calendar = ["split.every=1w", f"split.start={START:%Y-%m-%d}"]
    options = [word for option in (*columns, *calendar, *sets) for word in ("-S", option)]
    call([python, "-m", "flows.live", "begin", *options], folder)


def small(params: Path, model: Path) -> dict[str, Any]:
    """The project's parameters for a tiny model."""
    tree: dict[str, Any] = yaml.safe_load(params.read_text(encoding="utf-8"))
    tree["ingest"]["min_chars"] = 1
    tree["ingest"]["table"]["query"] = {"SUBJECT": "subject"}
    tree["model"] |= {"id": str(model), "dtype": "float32", "device": "cpu"}
    tree["arm"]["train"]["lora"] |= {"r": 2}
    tree["arm"]["decode"]["max_new_tokens"] = 6
    tree["arms"], tree["tracking"]["mode"] = ARMS, "disabled"
    return tree


# The command of an update, which says its process first, and starts DVC with the Python that it is told
RUN = """
import os, sys
from importlib import import_module
print(os.getpid(), flush=True)
sys.executable, program = sys.argv.pop(1), sys.argv.pop(1)
import_module(program).main()
"""


def update_command(
    now: datetime, python: str = sys.executable, *, program: str = "flows.live.__main__"
) -> list[str]:
    """An update as if it were `now`, by one of the programs that can: `flows.console` is `spring`."""
    return [python, "-c", RUN, python, program, "update", "--now", now.isoformat()]


def environment() -> dict[str, str]:
    """That of this process, without what would change Git or which modules are found."""
    taken = ("GIT_", "PYTHONPATH", "PREFECT_", "SPRING_CELLS")
    return {name: value for name, value in os.environ.items() if not name.startswith(taken)}


def call(command: list[str], folder: Path) -> str:
    """What a command prints; raises where it fails."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


STATE = ("ingest", "split", "score_base", "adapt", "consolidate")


def version_files(folder: Path) -> list[Path]:
    """All that an update makes and DVC versions."""
    files = [path for room in STATE for path in (folder / "data" / room).rglob("*") if path.is_file()]
    return sorted([*files, *(folder / "live/parts").glob("*"), *(folder / "live").glob("aliases.json")])


def version_bytes(folder: Path) -> dict[str, str]:
    """File -> sha256 of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in version_files(folder)
    }


def state(folder: Path) -> dict[str, str]:
    """File -> what stands for its content, without the seconds it took and how cells share files."""
    return {
        str(path.relative_to(folder)): content_of(path) for path in version_files(folder) if is_compared(path)
    }


def told(
    folder: Path, names: Iterable[str] = ("file", "digest", "new", "known", "quarantined", "part")
) -> list[Any]:
    """The ledger, without times."""
    ledger = (folder / "live/ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return [[json.loads(line)[name] for name in names] for line in ledger]
