"""How a stage runs under DVC: on what it read, as the only one, and as long as DVC waits for it.

DVC records what a stage depends on *after* its command: what changed meanwhile would be recorded as if it had
been used, and the old result brought back later as that of the new state. So a stage looks again at its end,
at parameters, suite, files that it depends on and code, and fails with a word where one is another.
Nor may parameters, suite or code have changed since the run began (tasks/code.py, the first stage of every
run): all stages of a run are of one state.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spring.code import Code
from tasks.files import DATA
from tasks.live import STAGE, finished
from tasks.quick_yaml import read_yaml

PARAMS = Path("params.yaml")
BEGAN = DATA / "code" / "began.yaml"  # what the run began with: `params`, and the text of the suite
DENIED = {
    errno.EACCES: "no rights",
    errno.EROFS: "a read-only disk",
    errno.ENOSPC: "a full disk",
    errno.EDQUOT: "a full quota",
    errno.EFBIG: "a limit on the size of files",
}
OWN = {"spring", "tasks"}  # packages whose errors are refusals in words, not faults
SHELLS = {"sh", "dash", "bash", "zsh", "ksh", "fish"}
State = dict[str, object]  # what a stage depends on -> what stands for its content


class ChangedError(RuntimeError):
    """Something that a stage depends on changed while it ran; the message says what, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Runs a stage's `main`; started by DVC, on one state of all that it depends on."""
    address = os.environ.get(STAGE)
    try:
        if address in (None, "code"):  # `code` is the state of the run
            main()
        else:
            run_once(main, address)
    except ChangedError as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # of libraries in Rust, too, which raise kinds of their own
        if any(kind.__module__.partition(".")[0] in OWN for kind in type(error).__mro__):
            sys.exit(f"error: {error}")  # a refusal of ours says what to do; where it was raised helps nobody
        why = DENIED.get(os_error(error)) or in_the_way(error)
        if why is None:
            raise
        sys.exit(f"error: {why}: {error}; nothing is half-written: make room or rights and start again")


def os_error(error: Exception) -> int:
    """The operating system's number of an error; 0: it is none of the system's."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\(os error (\d+)\)|code: (\d+), kind: ", str(error))
    return int(found[1] or found[2]) if found else 0


def in_the_way(error: Exception) -> str | None:
    """What stands where a folder is needed, if that is why none could be made: a file, a link to nothing."""
    if not isinstance(error, (FileExistsError, NotADirectoryError)) or error.filename is None:
        return None
    for path in (Path(error.filename), *Path(error.filename).parents):
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {path.readlink()}, which is not there"
        if path.is_file():
            return f"{path} is a file, and a folder is needed"
    return None


def run_once(main: Callable[[], None], address: str) -> None:
    """Runs `main` as the stage `address`; raises `ChangedError` where it cannot be of one state."""
    ended = watch()
    with alone(address):
        before = state_of(address)
        check_began(address, before)
        main()
        changed = [what for what, value in state_of(address).items() if before[what] != value]
    ended.set()
    if changed:
        raise ChangedError(
            f"{', '.join(changed)} changed while {address} ran, so its result is of neither state and is not "
            f"recorded. What it computed is kept: start the run again"
        )
    finished()


# --- one state --------------------------------------------------------------------------------------------


def read_params() -> dict[str, Any]:
    """params.yaml as it stands, unchecked."""
    return read_yaml(PARAMS.read_text(encoding="utf-8")) or {}


def suite_file(params: dict[str, Any]) -> Path:
    """The file of the suite that parameters name."""
    return Path(f"suites/{params.get('suite')}.yaml")


def state_of(address: str) -> State:
    """Everything that dvc.yaml says a stage depends on, as it is now."""
    name, _, key = address.partition("@")
    params = read_params()
    stage = read_yaml(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    block = stage.get("do", stage)
    variables = {"key": key, "suite": params.get("suite"), "item": (params.get("periods") or {}).get(key)}
    found: State = {f"params.yaml: {param}": value_at(params, param) for param in block.get("params", [])}
    for dep in block.get("deps", []):
        for variable, value in variables.items():
            dep = dep.replace(f"${{{variable}}}", str(value))
        path = Path(dep)
        found[dep] = text_of(path) if path.suffix == ".yaml" else stamp(path)
    found["code"] = Code().digest(f"tasks.{name}")
    return found


def stamp(path: Path) -> object:
    """What changes when a file, or any file in a folder, is written: names, sizes, times."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    states = ((file, file.stat()) for file in files if file.exists())
    return [(str(file), state.st_size, state.st_mtime_ns, state.st_ino) for file, state in states]


def text_of(path: Path) -> str | None:
    """A file's text; null: there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def value_at(params: dict[str, Any], key: str) -> object:
    """The value of a key like `model.id`."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def check_began(address: str, now: State) -> None:
    """`ChangedError` where the run began with other parameters, another suite or other code."""
    began = read_yaml(BEGAN.read_text(encoding="utf-8"))
    params, name = began["params"], address.partition("@")[0]
    then = {f"params.yaml: {key}": value_at(params, key) for key in keys_of(now)}
    then |= {str(suite_file(params)): began["suite"], "code": text_of(BEGAN.parent / name)}
    changed = [what for what, value in then.items() if what in now and _bare(now[what]) != _bare(value)]
    if changed:
        raise ChangedError(
            f"{', '.join(changed)} changed since this run began, and its earlier stages ran with what stood "
            f"there then: start the run again; what does not depend on it is kept"
        )


def keys_of(state: State) -> list[str]:
    """The keys of params.yaml in a state."""
    return [key for what in state for file, _, key in [what.partition("params.yaml: ")] if key]


def _bare(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


# --- the only one -----------------------------------------------------------------------------------------


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Waits until no other process runs this stage here: one that outlived its DVC ends soon (`watch`)."""
    import fcntl

    place = DATA / ".running"
    place.mkdir(parents=True, exist_ok=True)
    with (place / address).open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{address} is still running in another process; waiting for it to end", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def watch(every: float = 1.0) -> threading.Event:
    """Ends this process when DVC, which started it, is gone: nobody would record its result.

    What is in the store by then is kept. Set the event when all is done.
    """
    ended, starters = threading.Event(), ancestors()

    def look() -> None:
        while not ended.wait(every):
            if ancestors() != starters:
                print("DVC is gone: this stage ends; what it finished is kept", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=look, daemon=True).start()
    return ended


def ancestors() -> list[int]:
    """The processes up to DVC: the parent, and behind a shell that runs the command its parent."""
    found = [os.getppid()]
    try:
        stat = Path(f"/proc/{found[0]}/stat").read_text(encoding="utf-8")
    except OSError:  # no such files here, as on macOS, or the parent is gone
        return found
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return [*found, int(rest.split()[1])] if name in SHELLS else found
