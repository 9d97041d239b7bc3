"""Makes a Prefect server ready for this project: `python -m flows.prepare`, as often as you like.

1. waits until the server answers
2. makes the work pool: one run at a time, others wait
3. makes the automations that end runs nobody works on any more
4. tells the server about the deployments of prefect.yaml; in a live project updates run on their schedule
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.workers.process import ProcessWorker

from flows.asked import AskedError, asked_for
from flows.showing import serve_reports
from spring.settings.params import ParameterError
from tasks.cells.cluster.nodes import ClusterError, check_installed
from tasks.params import PARAMS
from tasks.tree import read_tree

POOL = "spring-pool"
SILENT = 120  # seconds without a sign of life, of which a run gives one every 30 (`flows` in prefect.toml)
PATIENCE = 60  # seconds that a cancelled run has to end
BEGUN = ("Pending", "Running", "heartbeat")


def main() -> None:
    """Does the four steps, a line each."""
    parser = argparse.ArgumentParser(prog="python -m flows.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--wait", type=float, default=120, metavar="SECONDS", help="for the server to answer")
    patience = parser.parse_args().wait
    server = get_current_settings().server.api
    address = get_current_settings().api.url or f"http://{server.host}:{server.port}/api"
    if not wait_for_server(address, patience):
        sys.exit(
            f"error: no Prefect server answers at {address} after {patience:g} seconds: start one with "
            f"`prefect server start --background`; if that says that one runs already, after "
            f"`prefect server stop`"
        )
    print(f"The server answers: {address}")
    check_execution()
    serve_reports()
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        make_pool(client)
        print(f"Work pool {POOL}: one run at a time, others wait.")
        make_automations(client)
        ask_for_life(client)
        print(f"Automations: a run that is silent for {SILENT} seconds ends as Crashed,")
        print(f"a cancelled one that has not ended in {PATIENCE} seconds as Cancelled.", flush=True)
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = {**os.environ, "PREFECT_API_URL": address, "PWD": str(Path.cwd())}
    done = subprocess.run(deploy, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(deploy[2:])} failed:\n{done.stdout}{done.stderr}")
    print(f"Deployments: {', '.join(re.findall(r'Deploying ([^ ]+) +│', done.stdout))}")
    if is_live():
        with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
            schedule(client, "update/live", active=True)
            schedule(client, "experiment/nightly", active=False)
        print("A live project: update/live runs on its schedule, experiment/nightly does not.")
    print(f"Now start a worker, and leave it running: prefect worker start --pool {POOL}")


def check_execution() -> None:
    """Exits with a line where a deployment says to compute where that cannot be: now, not in the night."""
    file = Path("prefect.yaml")
    for one in yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]:
        execution = (one.get("parameters") or {}).get("execution")
        try:
            trees = asked_for(None, None, None, None, execution) if execution else {}
            if any(tree["execution"].get("engine") == "ray" for tree in trees.values()):
                check_installed()
        except (AskedError, ClusterError) as error:
            sys.exit(f"error: {file}, deployment {one['name']}: {error}")


def is_live() -> bool:
    """Whether updates are committed here."""
    try:
        return bool(read_tree(PARAMS).get("live"))
    except (FileNotFoundError, ParameterError):
        return False


def schedule(client: SyncPrefectClient, deployment: str, *, active: bool) -> None:
    """Turns a deployment's schedules on or off."""
    identity = client.read_deployment_by_name(deployment).id
    for one in client.read_deployment_schedules(identity):
        client.update_deployment_schedule(identity, one.id, active=active)


def wait_for_server(address: str, patience: float) -> bool:
    """Whether the server answers before `patience` seconds are over."""
    until = time.monotonic() + patience
    while True:
        try:
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


def make_pool(client: SyncPrefectClient) -> None:
    """The pool of processes on this machine: one at a time, as runs share a folder."""
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=1)
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=1))


def make_automations(client: SyncPrefectClient) -> None:
    """What ends runs that nobody works on: with worker and run killed, nobody else would.

    Two, since a run that is being cancelled can become nothing but cancelled.
    """
    message = f"No sign of life for {SILENT} seconds: worker and run were killed, or the machine slept."
    crash = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    make_automation(client, "end silent runs", BEGUN, ("*",), SILENT, crash)
    message = f"Not ended {PATIENCE} seconds after it was cancelled: the worker is gone."
    cancel = ChangeFlowRunState(name=None, state=StateType.CANCELLED, message=message, force=False)
    make_automation(client, "end cancelled runs", ("Cancelling",), ("Cancelled",), PATIENCE, cancel)


def make_automation(
    client: SyncPrefectClient,
    name: str,
    after: Iterable[str],
    expect: Iterable[str],
    seconds: float,
    action: ChangeFlowRunState,
) -> None:
    """Makes an automation, or makes it anew: `action` for a run without an event of `expect` in time."""
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={f"prefect.flow-run.{event}" for event in after},
        expect={f"prefect.flow-run.{event}" for event in expect},
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    automation = AutomationCore(name=name, trigger=trigger, actions=[action])
    found = client.read_automations_by_name(name)
    if found:
        client.update_automation(found[0].id, automation)
    else:
        client.create_automation(automation)


def ask_for_life(client: SyncPrefectClient) -> None:
    """Lets the automations wait anew for all runs that have not ended.

    A server that comes back after more than a minute forgets what it was waiting for.
    """
    begun = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    only = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=begun)))
    for run in client.read_flow_runs(flow_run_filter=only):
        event = "Cancelling" if run.state_type == StateType.CANCELLING else "heartbeat"
        emit_event(
            f"prefect.flow-run.{event}",
            resource={"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
        )


if __name__ == "__main__":
    main()
