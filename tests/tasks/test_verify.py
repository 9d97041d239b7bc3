"""`make verify`: any flipped byte among cells, DVC's cache and results is named; whole ones are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spring.store import CellStore, cell_key
from tasks.verify import main

KEY = cell_key("spring.code", number=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cell, and the results of a stage that real DVC ran: a folder, and a file outside the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPRING_CELLS", raising=False)
    with CellStore(tmp_path / ".cells").batch() as batch:
        (batch.cell(KEY) / "value").write_text("12345")
    outs = ["out", {"table": {"cache": False}}]
    command = "mkdir -p out/b && echo 1 > out/b/one && echo 2 > out/a && echo 3 > table"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"split": {"cmd": command, "outs": outs}}}))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    subprocess.run([*dvc, "repro", "-q"], check=True)
    return tmp_path


def verified(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


@pytest.mark.slow
def test_every_flipped_byte_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verified(capsys)
    assert code == 0 and "1 cells, 3 files of DVC's cache, 2 results: 0 damaged" in said
    cell = CellStore(project / ".cells").path(KEY) / "value"
    cached = sorted(file for file in (project / ".dvc/cache/files/md5").glob("??/*") if file.suffix != ".dir")
    for file, named in (
        (project / "out/b/one", "out is not what dvc.lock says"),
        (project / "table", "table is not what dvc.lock says"),
        (cached[0], f"{cached[0].relative_to(project)} is damaged"),
        (cell, f"{KEY}: value is not what was written"),
    ):
        whole = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(bytes([whole[0] ^ 1, *whole[1:]]))
        code, said = verified(capsys)
        assert code == 1 and named in said and ": 1 damaged" in said, said
        if file.exists():
            file.write_bytes(whole)
    assert verified(capsys)[0] == 0, "the cell was set aside"
    (project / "table").unlink()
    code, said = verified(capsys)
    assert code == 1 and "table is missing" in said and "dvc repro --force --single-item split" in said


def test_cells_of_earlier_versions_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPRING_CELLS", str(tmp_path / "cells"))
    monkeypatch.chdir(tmp_path)
    CellStore(tmp_path / "cells").path(KEY).mkdir(parents=True)
    code, said = verified(capsys)
    assert code == 0 and "1 cells are of an earlier version" in said
    assert list((tmp_path / "cells/bad").iterdir()) == []
