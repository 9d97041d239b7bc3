"""Where a remote is, and who works on what there: places of fsspec's, refusals in one line, claims."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from spring.store import claims, disk, remote, remote_claims
from spring.store.cells import CellStore, StoreError
from spring.store.keys import cell_key
from spring.store.remote import REMOTE, Remote, in_words, remote_url
from spring.store.remote_claims import RemoteClaims, latest_of
from spring.store.shared import Shared, open_store

KEYS = [cell_key("spring.code", number=i) for i in range(4)]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://AKIA:secret@bucket/cells", r"is s3://\.\.\. with credentials"),
        ("s3://AKIA:sec/ret@bucket/cells", r"is s3://\.\.\. with credentials"),
        ("abfs://cells@account.example/a?sig=secret", r"is abfs://\.\.\. with credentials"),
        ("s3://bucket/cells#secret", r"is s3://\.\.\. with credentials"),
        ("bucket/secret", "must be the URL of one file system, as in s3://bucket/prefix"),
        ("simplecache::s3://bucket/secret", "must be the URL of one file system"),
    ],
)
def test_urls_with_secrets_are_refused_and_not_told(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REMOTE, url)
    with pytest.raises(StoreError, match=f"^{REMOTE} {told}") as refused:
        remote_url()
    assert "secret" not in str(refused.value) and "sec/ret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["s3://bucket/cells", "abfs://cells@account.example/a", "sftp://me@host/cells", "file:///a"]
)
def test_urls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REMOTE, f" {url}/ ")
    assert remote_url() == url


def test_without_one_the_store_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", " "):
        monkeypatch.setenv(REMOTE, value) if value is not None else monkeypatch.delenv(REMOTE, raising=False)
        assert type(open_store(tmp_path)) is CellStore
    monkeypatch.setenv(REMOTE, f"file://{tmp_path}/far")
    assert type(open_store(tmp_path)) is Shared


def test_what_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for url, told in (
        ("nowhere://bucket/cells", "ValueError: Protocol not known: nowhere: see to network"),
        (f"file://{tmp_path}/file/cells", "NotADirectoryError: "),
    ):
        with pytest.raises(StoreError, match=f"^{REMOTE} is {url}: {told}") as refused:
            Shared(tmp_path / "cells", url)
        assert "\n" not in str(refused.value)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        StoreError, match=f"^{REMOTE} is gs://bucket/cells: ImportError: Please install gcsfs"
    ):
        Shared(tmp_path / "cells", "gs://bucket/cells")


def test_secrets_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcdefghi")
    monkeypatch.setitem(conf, "abfs", {"sas_token": "0123456789", "account_name": "visible"})
    error = OSError("no: https://visible.example/a?sig=x&y 'abcdefghi'\n 0123456789")
    assert in_words(error) == "OSError: no: https://visible.example/a?... '***' ***"


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Remote(f"file://{tmp_path}/far")
    monkeypatch.setattr(there.fs, "get_file", lambda *_: Path("/dev/full").write_bytes(b"x"))
    with pytest.raises(OSError, match="No space left"):
        there.get("segments/x", tmp_path / "x")


# --- claims -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> list[RemoteClaims]:
    """Of two machines: they share the remote alone."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name / "claims").mkdir(parents=True)
        made.append(RemoteClaims(tmp_path / name / "claims", Remote(f"file://{tmp_path}/far")))
    return made


def test_a_claim_keeps_other_machines_away(two: list[RemoteClaims], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two
    with one.hold(KEYS[:2]) as mine, other.hold(KEYS) as theirs:
        assert (mine, theirs) == (KEYS[:2], KEYS[2:])
    with other.hold(KEYS) as theirs:
        assert theirs == KEYS[2:], "not asked for again so soon"
    monkeypatch.setattr(remote_claims, "LOOK", 0.0)
    other._due.clear()
    with other.hold(KEYS) as theirs:
        assert theirs == KEYS
    assert one.remote.listed("claims") == {}


def from_elsewhere(patch: pytest.MonkeyPatch) -> str:
    """A name of a process that lives on another machine."""
    with patch.context() as elsewhere:
        elsewhere.setattr(disk.platform, "node", lambda: "another")
        return disk.new_name()


def test_claims_of_the_dead_and_the_silent_are_taken_over(
    two: list[RemoteClaims], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first's holder is gone, the second's lives elsewhere, the third's has been silent for long."""
    one, other = two
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = f"{disk.new_name().split('-')[0]}-{process.pid}-x"
    living, silent = from_elsewhere(monkeypatch), from_elsewhere(monkeypatch)
    for key, holder in zip(KEYS, (dead, living, silent), strict=False):
        one.remote.create(f"claims/{key}.3", holder.encode())
        one.remote.create(f"claims/beat-{holder}", b"")
    listed = Remote.listed

    def long_ago(there: Remote, folder: str) -> dict[str, remote.Entry]:
        found = listed(there, folder)
        ages = {f"beat-{silent}": claims.EXPIRY, f"beat-{living}": claims.EXPIRY - 5}
        return {name: remote.Entry(e.size, e.time - ages.get(name, 0)) for name, e in found.items()}

    monkeypatch.setattr(Remote, "listed", long_ago)
    with one.hold(KEYS) as mine:
        assert mine == [KEYS[0], *KEYS[2:]]
        assert latest_of(one.remote.listed("claims")) == {KEYS[0]: 4, KEYS[1]: 3, KEYS[2]: 4, KEYS[3]: 0}
        with other.hold(KEYS) as theirs:
            assert theirs == []
    assert set(one.remote.listed("claims")) == {f"{KEYS[1]}.3", f"beat-{living}"}


def test_of_many_that_take_over_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Remote(f"file://{tmp_path}/far")
    silent = from_elsewhere(monkeypatch)
    there.create(f"claims/{KEYS[0]}.0", silent.encode())
    monkeypatch.setattr(remote_claims, "silent", lambda holder, *_: holder == silent)
    begin, end, found = threading.Barrier(8), threading.Barrier(8), list[str]()

    def take(name: str) -> None:
        (tmp_path / name / "claims").mkdir(parents=True)
        mine = RemoteClaims(tmp_path / name / "claims", Remote(f"file://{tmp_path}/far"))
        begin.wait()
        with mine.hold(KEYS[:1]) as taken:
            found.extend(taken)
            end.wait()

    threads = [threading.Thread(target=take, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == KEYS[:1] and there.listed("claims") == {}


def test_a_claim_is_renewed(two: list[RemoteClaims], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "EXPIRY", 0.5)
    monkeypatch.setattr(remote_claims, "LOOK", 0.0)
    one, other = two
    with one.hold(KEYS[:1]):
        time.sleep(1.0)
        with other.hold(KEYS[:1]) as theirs:
            assert theirs == []


def test_where_nothing_is_exclusive_that_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that overwrites all the same: both compute, what is there first is kept."""

    class Careless(MemoryFileSystem):
        protocol = "careless"
        store: ClassVar = {}
        pseudo_dirs: ClassVar = [""]

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **how: object) -> None:
            super().pipe_file(path, value)

    one, other = (Shared(tmp_path / name, "memory://careless") for name in ("one", "two"))
    for store in (one, other):
        store.remote.fs = Careless()
    for _ in range(2):
        with one.claim(KEYS) as mine, other.claim(KEYS) as theirs:
            assert mine == theirs == KEYS
    assert capsys.readouterr().err.count("cannot make an object only if there is none") == 2
    assert one.remote.listed("claims") == {}
