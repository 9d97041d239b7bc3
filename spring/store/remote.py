"""An object store behind cell stores: objects under one URL, reached through fsspec.

`SPRING_CELLS_REMOTE` names it, as in s3://bucket/prefix. Endpoint and credentials are those of fsspec's and
the cloud's own configuration, on every machine its own: none is in the URL, nor in what is told of errors.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from spring.store.cells import StoreError
from spring.store.disk import new_name

REMOTE = "SPRING_CELLS_REMOTE"
QUICK = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}  # S3: s3fs tries, too
STREAMS = 16  # requests at once
SAID = 300  # characters of a library's error
SECRET = re.compile("key|secret|token|password|credential|connection|sas|sig", re.IGNORECASE)
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # errors of this machine's
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")  # as file systems call it
TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
One = TypeVar("One")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Entry:
    """An object: its bytes, and when it was written, by the clock of the store."""

    size: int
    time: float


def remote_url() -> str | None:
    """The URL that the environment names; `StoreError` for one that cannot be used, null without one."""
    url = os.environ.get(REMOTE, "").strip().rstrip("/")
    if not url:
        return None
    scheme, is_url, rest = url.partition("://")
    if not is_url or "::" in url:
        raise StoreError(f"{REMOTE} must be the URL of one file system, as in s3://bucket/prefix")
    user, at, _ = rest.partition("@")
    if re.search(r"[?#]", rest) or (at and re.search("[:/]", user)) or urlsplit(url).password:
        raise StoreError(
            f"{REMOTE} is {scheme}://... with credentials or options, which would be kept as plain text: "
            f"leave them to fsspec's or the cloud's own configuration (docs/scale.md)"
        )
    return url


class Remote:
    """The objects below a URL; `StoreError` where it cannot be reached or used."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._told():
            from fsspec.config import conf  # here: only who has a remote needs it
            from fsspec.core import url_to_fs

            how: dict[str, Any] = {"use_listings_cache": False}
            if url.startswith("s3://") and "config_kwargs" not in conf.get("s3", {}):
                how["config_kwargs"] = QUICK
            self.fs, self.root = url_to_fs(url, **how)
            self._begin()

    def _begin(self) -> None:
        """Makes folders, where paths are absolute; elsewhere there are none, but the bucket must be there."""
        bucket = self.root.partition("/")[0]
        if not bucket:
            for name in ("segments", "claims", "gone", "writing"):
                self.fs.makedirs(self._path(name), exist_ok=True)
            return
        try:
            self.fs.ls(self.root)
        except FileNotFoundError:  # empty, or no bucket
            if not self.fs.exists(bucket):
                raise StoreError(f"{REMOTE} is {self.url}: there is no {bucket}: make it first") from None

    def listed(self, folder: str) -> dict[str, Entry]:
        """The objects of a folder, by name."""
        with self._told():
            try:
                found = self.fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:  # empty
                return {}
        files = (entry for entry in found if entry["type"] == "file")
        named = {entry["name"].rsplit("/", 1)[-1]: Entry(entry["size"], time_of(entry)) for entry in files}
        return {name: entry for name, entry in named.items() if name}

    def has(self, name: str) -> bool:
        """Whether an object is there."""
        with self._told():
            return bool(self.fs.exists(self._path(name)))

    def entry(self, name: str) -> Entry:
        """An object's entry; `FileNotFoundError` without it."""
        with self._told():
            found = self.fs.info(self._path(name))
        return Entry(found["size"], time_of(found))

    def read(self, name: str, size: int | None = None) -> bytes:
        """An object's content, or its first bytes; `FileNotFoundError` without it."""
        with self._told():
            return bytes(self.fs.cat_file(self._path(name), start=None if size is None else 0, end=size))

    def get(self, name: str, file: Path) -> None:
        """Fetches an object; `FileNotFoundError` without it."""
        with self._told():
            self.fs.get_file(self._path(name), str(file))

    def write(self, name: str, content: bytes) -> None:
        """Writes an object of a few bytes, over one that is there."""
        with self._told(writing=True):
            self.fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object of a few bytes unless there is one; whether it did."""
        with self._told(writing=True):
            try:
                if self._is_local:
                    with self.fs.open(self._path(name), "xb") as file:
                        file.write(content)
                else:
                    self.fs.pipe_file(self._path(name), content, mode="create")
            except OSError as error:
                if not is_there(error):
                    raise
                return False
        return True

    @property
    def may_create(self) -> bool:
        """Whether `create` may be what it says: fsspec's usual way looks first, and others come between."""
        from fsspec import AbstractFileSystem

        own = self.fs.async_impl or type(self.fs).pipe_file is not AbstractFileSystem.pipe_file
        return bool(own or self._is_local)

    def put(self, file: Path, name: str, *, again: bool = False) -> None:
        """Puts a file under a name that tells its content: what is there stays, unless cut or `again`."""
        path, size = self._path(name), file.stat().st_size
        with self._told(writing=True):
            if self._is_local:  # a file is seen while it is written, but not before it has its name
                if again or not self.fs.exists(path) or self.fs.info(path)["size"] != size:
                    self.fs.put_file(str(file), part := self._path(f"writing/{new_name()}"))
                    self.fs.mv(part, path)
                return
            if not again:
                try:
                    self.fs.put_file(str(file), path, mode="create")
                    return
                except OSError as error:
                    if not is_there(error):
                        raise
                if self.fs.info(path)["size"] == size:
                    return
            self.fs.put_file(str(file), path)

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are gone already are."""
        paths = [self._path(name) for name in names]
        if not paths:
            return
        with self._told():
            if self.fs.async_impl:  # many with one request, where that is known
                with suppress(FileNotFoundError):
                    self.fs.rm(paths)
                return
            for path in paths:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(path)

    @property
    def _is_local(self) -> bool:
        return bool(getattr(self.fs, "local_file", False))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _told(self, *, writing: bool = False) -> Iterator[None]:
        """What goes wrong inside, in one line; that an object is not there is an answer to who reads."""
        try:
            yield
        except StoreError:
            raise
        except ImportError as error:
            raise StoreError(
                f"{REMOTE} is {self.url}: {in_words(error)}: for S3 run `.venv/bin/pip install -c "
                f"constraints.txt -e '.[objects]'`"
            ) from None
        except Exception as error:  # of as many kinds as there are file systems
            if isinstance(error, FileNotFoundError) and not writing:
                raise
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            raise StoreError(
                f"{REMOTE} is {self.url}: {in_words(error)}: see to network, endpoint, bucket and rights, or "
                f"unset it to go on with what lies here; what is computed is kept, and put there later"
            ) from None


def is_there(error: OSError) -> bool:
    """Whether an object could not be made because there is one, or somebody makes it at the moment."""
    said = getattr(error.__cause__, "response", None) or {}  # of S3, where its copies say less than it does
    return isinstance(error, FileExistsError) or said.get("Error", {}).get("Code") in TAKEN


def time_of(entry: dict[str, Any]) -> float:
    """When an object was written, in seconds since 1970; now, where a file system does not say."""
    value = next((entry[name] for name in TIMES if entry.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value is None:
        return time.time()
    return value.timestamp() if isinstance(value, datetime) else float(value)


def at_once(act: Callable[[One], Found], items: Iterable[One]) -> list[Found]:
    """What `act` gives for each, in order, many at a time."""
    items = list(items)
    if len(items) < 2:
        return [act(one) for one in items]
    with ThreadPoolExecutor(STREAMS) as pool:
        return list(pool.map(act, items))


def in_words(error: BaseException) -> str:
    """What a library says, on one line, without secrets: queries of URLs, and values of settings named so."""
    said = " ".join(str(error).split()) or "no reason is given"
    said = re.sub(r"\?[^\s\"']*", "?...", said)
    for secret in sorted(secrets(), key=len, reverse=True):
        said = said.replace(secret, "***")
    said = said if len(said) <= SAID else f"{said[:SAID]}..."
    return f"{type(error).__name__}: {said}"


def secrets() -> set[str]:
    """Values of the environment and of fsspec's configuration whose names say that they are secret."""
    from fsspec.config import conf

    pairs = [*os.environ.items(), *(pair for settings in conf.values() for pair in settings.items())]
    return {str(value) for name, value in pairs if SECRET.search(name) and len(str(value)) >= 8}
