"""Runs that need not go on: what the server says of this one, and of the next of its schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import State


def ended_elsewhere() -> State[None] | None:
    """The state of this run if others have ended it while it went on: cancelled, or silent for too long."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run.get_id())).state
    except httpx.HTTPError:  # a server that is away for a moment ends no run
        return None
    return state if state and state.is_final() else None


def superseded() -> bool:
    """Whether this run was scheduled, and a later one of the same deployment's schedule is due as well."""
    with get_client(sync_client=True) as client:
        mine = client.read_flow_run(UUID(flow_run.get_id()))
        if mine.deployment_id is None or not mine.auto_scheduled:
            return False
        later = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[mine.deployment_id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate(
                {"after_": mine.expected_start_time, "before_": datetime.now(UTC)}
            ),
        )
        return any(run.auto_scheduled for run in client.read_flow_runs(flow_run_filter=later))
