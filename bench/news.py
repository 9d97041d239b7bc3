"""What an update costs when few of many users have news: `python -m bench.news --users 1000 --news 100`.

Two live projects on a tiny model, one of all users and one of those alone that will have news, are brought to
the end of a first week. Then both get the same news of the second and are updated at the same time, so that
what else runs on the machine burdens both. An update should cost what its news cost, and leave all files as
they are but for those that it always writes anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.live import START, WEEK, environment, make_live, update_command, write_batch
from bench.tiny import save_tiny

TEXTS = 5  # of a user and week
STAGE = re.compile(r"([\w@]+): ([\d.]+) s")
DRIFT = "{base: null, before: null}"
GATE = f"+live.gate={{margin: 0.02, level: 0.2, items: 16, least: 1, drift: {DRIFT}, alarm: 1.0}}"
KEPT = (".cells/segments", "data", "live/parts", "live/verdicts")  # whose files are looked at


def main() -> None:
    """Prints a JSON object: seconds, what each stage took, files that were changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--news", type=int, default=100)
    parser.add_argument("--gate", action="store_true", help="with the gate")
    parser.add_argument("--keep", type=Path, help="a folder where the two projects stay")
    asked = parser.parse_args()
    sets = [GATE] if asked.gate else []
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.keep or Path(folder), asked.users, asked.news, sets)
    print(json.dumps(found, indent=2))


def measure(folder: Path, users: int, news: int, sets: list[str]) -> dict[str, Any]:
    """The two projects, their first week and the news of a second."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tiny(folder / "tiny")
    everyone = [f"user-{i:05}" for i in range(users)]
    few = everyone[:: users // news][:news]
    homes = {"all": folder / "all", "few": folder / "few"}
    for name, some in (("all", everyone), ("few", few)):
        make_live(homes[name], folder / "tiny", sets=sets)
        write_batch(homes[name] / "inbox/first.jsonl", 0, dict.fromkeys(some, TEXTS))
    first = at_once(homes, weeks=1)
    before = {name: listing(home) for name, home in homes.items()}
    for home in homes.values():
        write_batch(home / "inbox/second.jsonl", 1, dict.fromkeys(few, TEXTS))
    second = at_once(homes, weeks=2)
    changed = {name: difference(before[name], listing(home)) for name, home in homes.items()}
    ratio = {what: second["all"][what] / second["few"][what] for what in ("seconds", "cpu_seconds")}
    return {"first": first, "second": second, "ratio": ratio, "changed": changed}


def at_once(homes: dict[str, Path], *, weeks: int) -> dict[str, dict[str, Any]]:
    """Updates the projects at the same time."""
    with ThreadPoolExecutor() as pool:
        jobs = {name: pool.submit(update, home, weeks) for name, home in homes.items()}
        return {name: job.result() for name, job in jobs.items()}


def update(home: Path, weeks: int) -> dict[str, Any]:
    """Seconds of an update at the end of a week, of each stage, and of processors."""
    command = update_command(START + weeks * WEEK + timedelta(hours=2))
    began = time.monotonic()
    environ = environment() | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=home, env=environ, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)  # of its children too, those it has waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        sys.exit(f"error: an update of {home} failed:\n{text[-3000:]}")
    return {
        "seconds": time.monotonic() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "stages": {stage: float(seconds) for stage, seconds in STAGE.findall(text)},
    }


def listing(home: Path) -> dict[str, str]:
    """File -> sha256 of its bytes."""
    files = (path for room in KEPT for path in (home / room).rglob("*") if path.is_file())
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def difference(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str]]:
    """Files that have other bytes than before, and those that are gone."""
    both = before.keys() & after.keys()
    return {
        "other bytes": sorted(file for file in both if before[file] != after[file]),
        "gone": sorted(before.keys() - after.keys()),
    }


if __name__ == "__main__":
    main()
