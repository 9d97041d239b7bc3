"""Runs of a Prefect server that hold a person, who is to be forgotten: a real server, real runs and logs."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest
from kit.prefect_server import becomes
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Log
from prefect.states import Completed, Running

from flows.live.forgetting.server import forget_runs
from spring.live.traces import Traces

pytestmark = pytest.mark.slow
TEXT = "what nobody but bob has ever written about his red lamp"
THEIRS = Traces.of("bob", [], ["bob-0-1"], [TEXT], ["bobby", "ann"])


@flow(name="update")
def update() -> None:
    """Stands for a flow of a project."""


def deploy(client: SyncPrefectClient, folder: Path, name: str) -> UUID:
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    return client.create_deployment(client.create_flow(update), name, pull_steps=pull)


def logs_of(client: SyncPrefectClient, run: UUID) -> list[Log]:
    return client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))


def test_runs_that_hold_them_go_and_no_others(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with get_client(sync_client=True) as client:
        here, elsewhere = deploy(client, tmp_path, "here"), deploy(client, tmp_path / "b", "elsewhere")

        def run(
            name: str, said: str, *, deployment: UUID = here, shown: str | None = None, ended: bool = True
        ) -> UUID:
            made = client.create_flow_run_from_deployment(deployment, name=name, state=Running())
            client.create_logs(
                [{"name": "x", "level": 20, "message": said, "timestamp": made.created.isoformat(),
                  "flow_run_id": str(made.id)}]
            )  # fmt: skip
            if shown is not None:
                artifact = {"key": "shown", "type": "markdown", "data": shown, "flow_run_id": str(made.id)}
                client.request("POST", "/artifacts/", json=artifact).raise_for_status()
            if ended:
                client.set_flow_run_state(made.id, Completed(), force=True)
            return made.id

        going = [
            run("named", "learned: bob, bobby", shown="[Open the page](/a.html)"),
            run("quoted", "a line", shown=f"| bobby | {TEXT} |"),
        ]
        staying = [
            run("of others", "learned: bobby, ann", shown="| ann |"),
            run("at work", "learned: bob", ended=False),
            run("of another project", "learned: bob", deployment=elsewhere),
        ]
        removed, left = forget_runs(THEIRS)
        assert sorted(removed) == ["run named of Prefect", "run quoted of Prefect"]
        assert sorted(left) == [
            "Prefect: run at work has not ended, and holds them",
            "Prefect: run of another project, of no deployment of this folder, holds them",
        ]
        assert {one.id for one in client.read_flow_runs()} == set(staying)
        assert {one.flow_run_id for one in client.read_artifacts()} == {staying[0]}
        assert becomes(lambda: not any(logs_of(client, one) for one in going), 30)
        assert all(logs_of(client, one) for one in staying)
        assert forget_runs(THEIRS) == ([], left)
        assert TEXT not in json.dumps([one.model_dump(mode="json") for one in client.read_artifacts()])
