"""What several processes, also of several machines, must agree on at a shared disk."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
import uuid
from pathlib import Path

DAY = 86400  # seconds


def sync(path: Path) -> None:
    """Has the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where it cannot have one; one that is there stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def new_name() -> str:
    """A new name that tells which process of which machine writes there."""
    return f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex}"


def alive(path: Path) -> bool:
    """Whether the process that writes `path` still runs; on another machine, if it wrote within a day."""
    machine, _, rest = path.name.partition("-")
    pid, _, unique = rest.partition("-")
    if not unique:  # named by an earlier version
        return False
    if machine != _machine():
        try:
            return time.time() - path.stat().st_mtime < DAY
        except FileNotFoundError:  # it is done
            return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]
