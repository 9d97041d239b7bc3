"""`make verify`: any flipped byte among cells, DVC's cache and results is named; whole ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spring.store.cells import CellStore
from spring.store.keys import cell_key
from spring.store.remote import REMOTE
from spring.store.segments import opened
from spring.store.shared import open_store
from tasks.verify import main

KEY = cell_key("spring.code", number=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell that a result links to, and the results of a stage that real DVC ran, one outside the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    store = CellStore(tmp_path / ".cells")
    with store.batch() as batch:
        batch[KEY] = {"value": b"12345"}
    outs = ["data/out", {"data/table": {"cache": False}}]
    [segment] = store.segments()
    command = "mkdir -p data/out/b && echo 1 > data/out/b/one && echo 3 > data/table"
    command += f" && ln {segment} data/out/{segment.name}"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"split": {"cmd": command, "outs": outs}}}))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    subprocess.run([*dvc, "config", "cache.type", "hardlink,copy"], check=True)
    subprocess.run([*dvc, "repro", "-q"], check=True)
    return tmp_path


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    opened.cache_clear()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def flip(file: Path, place: int = 0) -> None:
    """Turns a bit where the file lies, as a bad disk does: all its names see it."""
    whole = bytearray(file.read_bytes())
    whole[place] ^= 1
    file.chmod(0o644)
    file.write_bytes(whole)


@pytest.mark.slow
def test_every_flipped_byte_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verified(capsys)
    assert code == 0 and "1 cells in 1 files, 3 files of DVC's cache, 2 results: 0 damaged" in said
    flip(project / "data/table")
    code, said = verified(capsys)
    assert code == 1 and "data/table is not what dvc.lock says" in said and ": 1 damaged" in said
    flip(project / "data/table")
    assert verified(capsys)[0] == 0
    (project / "data/table").unlink()
    code, said = verified(capsys)
    assert code == 1 and "table is missing" in said and "dvc repro --force --single-item split" in said


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "link"), reason="no links here")
def test_a_damaged_adapter_is_gone_under_all_its_names_and_made_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the store, in DVC's cache and in data/ it is one file, on disks that have links."""
    [segment] = CellStore(project / ".cells").segments()
    names = [file for file in project.rglob("*") if file.is_file() and file.samefile(segment)]
    assert len(names) == 3
    flip(segment, -1)
    code, said = verified(capsys)
    assert code == 1 and f"{segment.name} is not what was written" in said
    assert f"data/out/{segment.name} is damaged and removed: `make repro` computes it again" in said
    [cached] = [file for file in names if ".dvc" in file.parts]
    assert f"{cached.relative_to(project)} is damaged and set aside" in said
    assert (
        not [file for file in names if file.exists()] and len(list((project / ".cells/bad").iterdir())) == 2
    )
    assert KEY not in CellStore(project / ".cells")
    with CellStore(project / ".cells").batch() as batch:  # as the stage would
        batch[KEY] = {"value": b"12345"}
    again = subprocess.run([sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=True)
    assert "Running stage 'split'" in again.stdout
    assert verified(capsys)[0] == 0


@pytest.mark.slow
def test_a_damaged_file_of_the_cache_alone_is_set_aside(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "unprotect", "data/out"], check=True)  # copies
    [cached] = [f for f in (project / ".dvc/cache/files/md5").glob("??/*") if f.read_bytes() == b"1\n"]
    flip(cached)
    code, said = verified(capsys)
    assert code == 1 and f"{cached.relative_to(project)} is damaged and set aside" in said
    assert not cached.exists() and (project / "data/out/b/one").exists()
    subprocess.run([sys.executable, "-m", "dvc", "commit", "-q", "--force"], check=True)
    assert cached.exists() and verified(capsys)[0] == 0


def test_what_is_damaged_in_the_remote_is_put_again_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where it is not here, it is set aside, and its whole cells kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(REMOTE, f"file://{tmp_path}/far")
    for folder in ("one", "two"):
        monkeypatch.setenv("SPRING_CELLS", folder)
        if folder == "one":
            with open_store(Path(folder)).batch() as batch:
                batch[KEY] = {"value": b"12345"}
        code, said = verified(capsys)
        assert code == 0 and "1 of the remote" in said
        [there] = (tmp_path / "far/segments").iterdir()
        flip(there, -1)
        code, said = verified(capsys)
        assert code == 1 and f"{there.name} is not what was written: " in said and ": 1 damaged" in said
        assert there.exists() == (folder == "one")
    assert verified(capsys)[0] == 0 and open_store(Path("one")).missing([KEY]) == []
