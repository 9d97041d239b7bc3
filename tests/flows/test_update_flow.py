"""The update as a deployment: a real Prefect server and worker, real Git and DVC."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from kit.live import LiveProject
from kit.prefect_server import ROOT, becomes, worker
from kit.warm import Warm
from prefect.client.orchestration import get_client

from bench.live import environment


@pytest.mark.long
def test_a_deployment_updates_a_live_project(
    tmp_path: Path, tiny_model_folder: Path, warm_python: Warm, server: str
) -> None:
    """Its schedule is on, that of experiments off; a second run finds nothing to do."""
    year = datetime.now(UTC).year
    every = f"split.every={year - 2024}y"  # the second period is not over
    made = LiveProject(tmp_path / "live", tiny_model_folder, warm_python.folder / "python", sets=[every])
    for week in (0, 1):
        made.drop(week)
    (made.folder / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    clean = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")} | environment()
    prepared = subprocess.run(
        [sys.executable, "-m", "flows.prepare"], cwd=made.folder, env=clean, capture_output=True, text=True
    )
    assert prepared.returncode == 0, prepared.stderr
    assert "A live project: update/live runs on its schedule, experiment/nightly does not." in prepared.stdout
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("update/live")
        active = {
            name: [one.active for one in client.read_deployment_by_name(name).schedules]
            for name in ("update/live", "experiment/nightly")
        }
        assert active == {"update/live": [True], "experiment/nightly": [False]}
        first, second = (client.create_flow_run_from_deployment(deployment.id).id for _ in range(2))

    def state_of(run: object) -> tuple[str | None, str | None]:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state  # type: ignore[arg-type]
            return (state.name, state.message) if state else (None, None)

    with worker(made.folder, clean):
        assert becomes(lambda: state_of(second)[0] in ("Completed", "Failed", "Crashed"), 300)
    assert state_of(first) == ("Completed", "The page: live/pages/00001.html")
    assert state_of(second) == ("Completed", "Nothing is new and no period is due.")
    assert made.git("log", "-1", "--format=%s") == "Update 1: 2 files with 16 new rows, period 0 closed\n"
    page = httpx.get(f"{server.removesuffix('/api')}/reports/live/00001.html")
    assert "<title>Update 1</title>" in page.text
    with get_client(sync_client=True) as client:
        steps = {task.name for task in client.read_task_runs() if task.flow_run_id == first}
    assert steps == {"resume", "take", "close", "learn", "judge", "publish", "describe", "commit", "push"}
    tree = yaml.safe_load((made.folder / "params.yaml").read_text(encoding="utf-8"))
    assert tree["ingest"]["inbox"]["until"] == f"{year}-01-01T00:00:00+00:00"
