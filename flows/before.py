"""What is seen to before DVC runs: the parameters, and files that a run left half-written.

`python -m flows.before` checks params.yaml, in words, and mends. DVC writes dvc.lock and NAME.dvc in place:
ended in the middle, it leaves what it refuses to read from then on. Such a file becomes that of the last
commit again, or goes; stages that were finished since run again and find their cells.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tasks.files import write_text
from tasks.quick_yaml import read_yaml
from tasks.stage import BEGAN, read_params, suite_file, text_of

LOCK, RUNNING = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
RESTED = 5.0  # seconds since it was last written to: nobody is at it


def is_torn(path: Path, text: str) -> bool:
    """Whether DVC refuses to read this. It writes from the first line to the last: the end tells most."""
    try:
        tree = json.loads(text) if path.name == RUNNING.name else read_yaml(text)
    except (yaml.YAMLError, ValueError):
        return True
    if path.name == RUNNING.name:
        return not isinstance(tree, dict)
    lock = path.name == LOCK.name
    if text.endswith("\n") and _ends_well(tree, lock=lock):
        return False
    return not (lock and _suits_dvc(tree))  # a note of data that was added has one output, whole or not


def _ends_well(tree: Any, *, lock: bool) -> bool:
    """Whether what stands last is a whole output."""
    try:
        stage = list(tree["stages"].values())[-1] if lock else tree
        return {"md5", "size", "path"} <= stage["outs"][-1].keys()
    except (AttributeError, IndexError, KeyError, TypeError):
        return False


def _suits_dvc(tree: Any) -> bool:
    """Whether DVC's own rules let a lock pass; it takes half a second to import them."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(tree)
    except Invalid:
        return False
    return True


def mend(say: Callable[[str], object], files: Iterable[Path] = (), *, root: Path = Path()) -> None:
    """Puts right dvc.lock, DVC's note of who is running, and `files` (NAME.dvc) of a project."""
    for name in (LOCK, RUNNING, *files):
        path = root / name
        while (text := _text(path)) is not None and is_torn(path, text):
            if 0 <= (rested := time.time() - path.stat().st_mtime) < RESTED:  # clocks are set back, too
                time.sleep(RESTED - rested)
                continue
            before = None if name == RUNNING else committed(name, root)
            if before is None:
                path.unlink(missing_ok=True)
            else:
                write_text(before, path)
            said = "is that of the last commit again" if before is not None else "was removed"
            say(f"{name} was half-written by a run that was ended, and {said}")
            break


def committed(name: Path, root: Path) -> str | None:
    """What the last commit has of a file; null: nothing, or nothing whole, or there is no Git."""
    try:
        text = at_head(name, root)
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return None if text is None or is_torn(name, text) else text


def at_head(name: Path, root: Path = Path()) -> str | None:
    """A file of a project as the last commit has it; null: it has none."""
    command = ["git", "show", f"HEAD:./{name.as_posix()}"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    return None if done.returncode else done.stdout


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def are_as_before() -> bool:
    """Whether the run before began with the same parameters and suite: its stages have checked them."""
    try:
        began, now = read_yaml(BEGAN.read_text(encoding="utf-8")), read_params()
        return bool(began["params"] == now and began["suite"] == text_of(suite_file(now)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return False


def main() -> None:
    """Stops where the parameters cannot be used."""
    if not are_as_before():
        from tasks import params  # slow to import

        params.main()
    mend(lambda line: print(line, file=sys.stderr))


if __name__ == "__main__":
    main()
