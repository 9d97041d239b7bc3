"""A flow whose parameters are edited while it runs: real DVC and Prefect, stages that are made up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kit.tracking import write_params
from prefect.testing.utilities import prefect_test_harness

from flows.experiment import StageError, dvc, experiment

ROOT = Path(__file__).parents[2]
CODE = """
from spring.code import Code
from tasks import code, stage
code.digests = lambda _: {name: Code().digest(f"tasks.{name}") for name in ("split", "model", "score_base")}
stage.run(code.main)
"""
STAGE = """
import os, re, sys
from pathlib import Path
from tasks import stage

def main():
    params = Path("params.yaml")
    Path(sys.argv[1]).write_text(str(stage.read_params()["seed"]))
    if (edit := Path(f"edit-{sys.argv[1]}")).exists():
        params.write_text(re.sub("^seed: .*", "seed: " + edit.read_text(), params.read_text(), flags=re.M))
        edit.unlink()

stage.run(main)
"""
STAGES = {
    "code": {"cmd": "python code.py", "always_changed": True, "outs": [{"data/code": {"cache": False}}]},
    "split": {
        "cmd": "python stage.py split",
        "params": ["seed"],
        "deps": ["data/code/split"],
        "outs": ["split"],
    },
    "model": {"cmd": "python stage.py model", "deps": ["split", "data/code/model"], "outs": ["model"]},
    "score_base": {
        "cmd": "python stage.py score_base",
        "params": ["seed"],
        "deps": ["model", "data/code/score_base"],
        "outs": ["score_base"],
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_params(tmp_path)
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "stage.py").write_text(STAGE, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setattr("flows.experiment.publish", lambda: None)
    subprocess.run(dvc("init", "--no-scm", "--quiet"), check=True)
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


def seeds(project: Path) -> list[str]:
    """What each stage has read."""
    return [(project / name).read_text(encoding="utf-8") for name in ("split", "score_base")]


@pytest.mark.slow
def test_a_flow_mixes_no_two_seeds(project: Path, server: None) -> None:
    """Edited between two stages that read it, by one that does not; then under one that does."""
    first = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["seed"]
    (project / "edit-model").write_text("77", encoding="utf-8")
    with pytest.raises(StageError, match=r"params\.yaml: seed changed since this run began"):
        experiment(retries=0)
    assert (project / "split").read_text(encoding="utf-8") == str(first)
    assert not (project / "score_base").exists()
    experiment(retries=0)
    assert seeds(project) == ["77", "77"]
    (project / "edit-split").write_text("78", encoding="utf-8")
    (project / "params.yaml").write_text(
        (project / "params.yaml").read_text(encoding="utf-8").replace("seed: 77", "seed: 79"),
        encoding="utf-8",
    )
    with pytest.raises(StageError, match=r"params\.yaml: seed changed while split ran"):
        experiment(retries=0)
    experiment(retries=0)
    assert seeds(project) == ["78", "78"]
