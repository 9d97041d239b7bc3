"""What DVC keeps, in its cache and in a remote, of versions that held a person.

A version of an output (a file, or a folder with all its files) that holds them goes as a whole; what another
version, that does not, has in common with it stays.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.live.forgetting.search import Search
from flows.live.versions import git, remote

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

NAMED = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)\b")


class Objects:
    """The objects of the current project's versions."""

    def __init__(self, search: Search) -> None:
        from dvc.repo import Repo  # here: it takes a second

        self.search, self._held = search, dict[str, bool]()
        repo = Repo()
        self.cache: HashFileDB = repo.cache.local
        self.remote, self.unreached = reach(repo)
        self.runs = Path(self.cache.path).parents[1] / "runs"
        self.is_own = Path(self.cache.path).is_relative_to(Path.cwd())

    @property
    def remote_folder(self) -> Path | None:
        """Where the remote lies, if that is a folder here, with what else somebody has put there."""
        if self.remote is None or self.remote.fs.protocol != "local":
            return None
        objects = Path(self.remote.path)
        return objects.parents[1] if objects.parts[-2:] == ("files", "md5") else objects

    def doomed(self) -> set[str]:
        """The objects that must go: of every version that held them, and of none that does not."""
        kept: set[str] = set()
        gone: set[str] = set()
        for name in self.named:
            (gone if self.version_holds(name) else kept).update(self.files_of(name))
        for store in self.listed:
            gone |= {name for name in set(store.all()) - kept - gone if self.holds(name)}
        return gone - kept

    @cached_property
    def named(self) -> set[str]:
        """What any commit names, of any branch, and what the files here do."""
        blobs = {
            line.split()[2]
            for commit in git("rev-list", "--all").split()
            for line in git("ls-tree", "-r", commit).splitlines()
            if line.endswith((".dvc", "\tdvc.lock"))
        }
        texts = [git("cat-file", "blob", blob) for blob in sorted(blobs)]
        here = [
            path.read_text(encoding="utf-8")
            for path in [Path("dvc.lock"), *Path().glob("*/*.dvc")]
            if path.is_file()
        ]
        return {name for text in (*texts, *here) for name in NAMED.findall(text)}

    @property
    def listed(self) -> Iterator[HashFileDB]:
        """Stores whose objects can all be listed in no time, and are of this project alone or lie here."""
        if self.is_own:
            yield self.cache
        if self.remote is not None and self.remote_folder is not None:
            yield self.remote

    def files_of(self, name: str) -> list[str]:
        """An object and, of a folder's list, those that it names."""
        if not name.endswith(".dir"):
            return [name]
        listed = self.content(name)
        return [name, *(entry["md5"] for entry in json.loads(listed))] if listed is not None else [name]

    def version_holds(self, name: str) -> bool:
        """Whether a version of an output holds them."""
        return any(self.holds(file) for file in self.files_of(name))

    def holds(self, name: str) -> bool:
        """Whether an object holds them; of one that is nowhere there is nothing to fear."""
        if name not in self._held:
            with tempfile.TemporaryDirectory() as folder:
                file = self.file(name, Path(folder))
                self._held[name] = file is not None and self.search.holds(file)
        return self._held[name]

    def content(self, name: str) -> bytes | None:
        """The bytes of an object; null where it is nowhere."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.file(name, Path(folder))
            return file.read_bytes() if file is not None else None

    def file(self, name: str, folder: Path) -> Path | None:
        """An object as a file: where it lies, or fetched into `folder`; null where it is nowhere."""
        path = Path(self.cache.oid_to_path(name))
        if path.exists():
            return path
        if self.remote is None or not self.remote.exists(name):
            return None
        at = self.remote.oid_to_path(name)
        if self.remote_folder is not None:
            return Path(at)
        self.remote.fs.get_file(at, str(folder / name))
        return folder / name

    def remove(self, names: Iterable[str]) -> tuple[int, str]:
        """Removes objects here and in the remote; how many, and why the remote's stay where they do.

        Folders' lists go last: stopped in between, the next look still knows what they name.
        """
        order = sorted(names, key=lambda name: (name.endswith(".dir"), name))
        count, why = 0, self.unreached
        for store in filter(None, (self.cache, self.remote)):
            try:
                for name in order:
                    if store.exists(name):
                        store.delete(name)
                        count += 1
            except Exception as error:  # of as many kinds as there are remotes
                if store is self.cache:
                    raise
                why = in_short(error)
        shutil.rmtree(self.runs, ignore_errors=True)  # which results came of which inputs: only spares runs
        return count, why


def reach(repo: Repo) -> tuple[HashFileDB | None, str]:
    """The remote; none where there is none, or with why it cannot be asked."""
    try:
        if (name := remote()) is None:
            return None, ""
        store = repo.cloud.get_remote_odb(name)
        store.fs.exists(store.path)
    except Exception as error:  # of as many kinds as there are remotes
        return None, in_short(error)
    return store, ""


def in_short(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def stale_stages(stages: dict[str, Any], objects: Objects) -> list[str]:
    """The stages of a parsed dvc.lock whose results held them, and were not made again."""
    return [
        name
        for name, stage in stages.items()
        if any("md5" in out and objects.version_holds(out["md5"]) for out in stage.get("outs", []))
    ]
