"""What a Prefect server was told of this project's runs: those that hold a person go, logs and artifacts too.

Of a run no single line of its log can be removed. This project's are those that its deployments have started
(the folder in `pull`, prefect.yaml); of others with a person in them the server's owner is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.live.forgetting.objects import in_short
from spring.live.traces import Traces

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Artifact, FlowRun

PAGE = 200  # things that a server gives at once
WHERE = "PREFECT_API_URL"  # of the environment: the server that runs report to


def forget_runs(traces: Traces) -> tuple[list[str], list[str]]:
    """Removes runs that hold them; which those were, and what stays and why."""
    address = os.environ.get(WHERE)
    if not address:
        return [], []
    import httpx  # here, as what follows: they take a second
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
            if (error := client.api_healthcheck()) is not None:
                raise error
            return _forget(client, traces)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        why = in_short(error)
        return [], [f"Prefect: logs and artifacts of the server {address} may name users ({why})"]


def _forget(client: SyncPrefectClient, traces: Traces) -> tuple[list[str], list[str]]:
    removed, left = [], []
    own = {one.id for one in _pages(client.read_deployments) if _is_here(one.pull_steps)}
    for runs in _batches(client):
        texts, artifacts = _texts(client, runs)
        for run in runs:
            if not any(map(traces.in_text, texts[run.id])):
                continue
            if run.deployment_id not in own:
                left.append(f"Prefect: run {run.name}, of no deployment of this folder, holds them")
            elif run.state is None or not run.state.is_final():
                left.append(f"Prefect: run {run.name} has not ended, and holds them")
            else:
                for artifact in artifacts[run.id]:
                    client.delete_artifact(artifact.id)
                client.delete_flow_run(run.id)
                removed.append(f"run {run.name} of Prefect")
    return removed, left


def _pages(read: Callable[..., list[Any]], **which: Any) -> Iterator[Any]:
    """All that a server has, in its pages."""
    offset = 0
    while found := read(limit=PAGE, offset=offset, **which):
        yield from found
        offset += len(found)


def _batches(client: SyncPrefectClient) -> Iterator[list[FlowRun]]:
    """All runs, listed before any is removed."""
    from prefect.client.schemas.sorting import FlowRunSort

    runs = list(_pages(client.read_flow_runs, sort=FlowRunSort.ID_DESC))
    for first in range(0, len(runs), PAGE):
        yield runs[first : first + PAGE]


def _is_here(steps: list[dict[str, Any]] | None) -> bool:
    """Whether a deployment works in this folder."""
    folders = [step["directory"] for entry in steps or () for step in entry.values() if "directory" in step]
    return any(Path(folder).resolve() == Path.cwd().resolve() for folder in folders)


def _texts(
    client: SyncPrefectClient, runs: list[FlowRun]
) -> tuple[dict[UUID, list[str]], dict[UUID, list[Artifact]]]:
    """What each run was called, given and has said; its artifacts."""
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        LogFilter,
        LogFilterFlowRunId,
    )

    ids = [run.id for run in runs]
    texts = {
        run.id: [run.name, _as_text(run.parameters), str(run.state and run.state.message)] for run in runs
    }
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=ids))
    for log in _pages(client.read_logs, log_filter=logs):
        texts[log.flow_run_id].append(log.message)
    artifacts: dict[UUID, list[Artifact]] = {run: [] for run in ids}
    of_runs = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=ids))
    for one in _pages(client.read_artifacts, artifact_filter=of_runs):
        artifacts[one.flow_run_id].append(one)
        texts[one.flow_run_id] += [str(one.description), _as_text(one.data)]
    return texts, artifacts


def _as_text(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
