"""One Ray for all stages of a run that each would begin one: joined by all, and gone however the run ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest
import yaml
from kit.live import LiveProject, after
from kit.prefect_server import becomes, worker
from kit.toy import ended
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling

from flows.experiment import experiment
from flows.stages import StageError
from spring.store.cells import CellStore

pytest.importorskip("ray", reason="the extra `cluster` is not installed: ray is missing")
pytestmark = pytest.mark.slow
ROOT, PYTHON = Path(__file__).parents[2], sys.executable
JOIN = """
import os, sys, time
from pathlib import Path
import ray
from tasks.cells.cluster.nodes import connect
from tasks.params import load_params

connect(load_params().execution.address)
raylet = ray.get(ray.remote(num_cpus=0)(lambda: os.getppid()).remote())
place = Path("{place}")
(place / sys.argv[1]).write_text(f"{{ray.get_runtime_context().gcs_address}} {{raylet}}")
if sys.argv[1] == "second" and (place / "end").exists():
    exec((place / "end").read_text())
"""
STAGES = {
    "first": {"cmd": "python join.py first && touch one", "deps": ["join.py"], "outs": ["one"]},
    "second": {"cmd": "python join.py second && touch two", "deps": ["one", "join.py"], "outs": ["two"]},
}
RAY = {"engine": "ray", "address": None, "workers": 1}


@pytest.fixture
def project(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stages that join a cluster, and note where it is and who its raylet is."""
    shutil.rmtree(toy / "tasks")  # the project's own are used
    (toy / "notes").mkdir()
    (toy / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}), encoding="utf-8")
    (toy / "join.py").write_text(JOIN.format(place=toy / "notes"), encoding="utf-8")
    (toy / ".gitignore").write_text("/.prefect/\n/notes/\n/one\n/two\n", encoding="utf-8")
    monkeypatch.setattr(sys, "executable", PYTHON)  # a process that can be ended with its group
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(Path(path).resolve()) for path in paths if path))
    return toy


def noted(project: Path) -> list[list[str]]:
    """Address and raylet of every stage that ran since this was last asked."""
    files = sorted((project / "notes").glob("[fs]*"))
    found = [file.read_text(encoding="utf-8").split() for file in files]
    for file in files:
        file.unlink()
    return found


def test_stages_share_one_that_ends_with_the_run(project: Path, server: str) -> None:
    experiment(execution=RAY)
    first, second = noted(project)
    assert first == second and ended(int(first[1]))
    experiment(execution=RAY)
    assert noted(project) == []  # up to date

    (project / "notes/end").write_text("sys.exit(3)", encoding="utf-8")
    (project / "join.py").write_text((project / "join.py").read_text() + "\n", encoding="utf-8")
    with pytest.raises(StageError, match="Stage second failed"):
        experiment(execution=RAY, retries=0)
    first, second = noted(project)
    assert first == second and ended(int(first[1]))
    assert "SPRING_CLUSTER" not in os.environ


def test_it_ends_with_a_run_that_is_cancelled(project: Path, server: str) -> None:
    """A deployment's run is told by its parameters, as a schedule of prefect.yaml tells it."""
    shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    tree["deployments"] = tree["deployments"][:1]
    tree["deployments"][0]["parameters"]["execution"] = RAY
    (project / "prefect.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (project / "notes/end").write_text("time.sleep(600)", encoding="utf-8")
    done = subprocess.run([PYTHON, "-m", "flows.prepare"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("experiment/nightly")
        run = client.create_flow_run_from_deployment(deployment.id).id
        with worker(project, dict(os.environ)):
            assert becomes((project / "notes/second").exists, 240)
            client.set_flow_run_state(run, Cancelling(), force=True)
            assert becomes(lambda: client.read_flow_run(run).state_type == StateType.CANCELLED, 60)
            first, second = noted(project)
            assert first == second and ended(int(first[1]))


def test_an_update_has_one_for_all_its_stages(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And learns what an update without it does: the same cells with the same adapters, bit for bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    learned, sessions = [], []
    for name, sets in {"alone": (), "ray": ("execution.engine=ray", "execution.workers=1")}.items():
        with tempfile.TemporaryDirectory(prefix="ray") as place:  # a short path: it holds sockets
            monkeypatch.setenv("RAY_TMPDIR", place)
            live = LiveProject(tmp_path / name, tiny_model_folder, Path(PYTHON), sets)
            live.drop(0)
            live.update(after(1))
            sessions.append(len(list(Path(place).glob("ray/session_[0-9]*"))))
        index = pl.read_parquet(live.folder / "data/adapt/0/index.parquet")
        store = CellStore(live.folder / ".cells")
        learned.append({key: store.read(key)["adapter_model.safetensors"] for key in index["cell"]})
    assert learned[0] == learned[1] and len(learned[0]) == 2
    assert sessions == [0, 1]
