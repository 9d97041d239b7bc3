"""The experiment as a Prefect flow: each stage of dvc.yaml is one task, in the order that DVC gives.

    python -m flows.experiment                                        params.yaml as it stands
    python -m flows.experiment --suite lambda --seeds 0 1 2           as `make ablate`
    python -m flows.experiment --name acl -S arm.decode.lmbda=0.7     as `dvc exp run`

runs it without a server; docs/prefect.md says how to schedule and watch it. A run works on a copy of the
project (workspace.py). What is up to date is for DVC to say, on content, so Prefect's own caching is off. A
new period or stage in dvc.yaml needs no change here. Settings of Prefect are in prefect.toml.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, State

from flows.asked import AskedError, asked_for
from flows.before import mend
from flows.cluster import shared_cluster
from flows.progress import Progress
from flows.showing import copy_report, name_of_folder, show
from flows.stages import StageError, follow, reproduce, stages_in_order
from flows.waiting import ended_elsewhere, superseded
from flows.workspace import FOLDER, WorkspaceError, workspace
from tasks.files import write_text
from tasks.params import PARAMS
from tasks.suites import MAIN, parse_with_suite


def name_of_run() -> str:
    """What this flow run is called: experiment, suite, seeds, time.

    Must not raise: Prefect would show the run as pending for good.
    """
    try:
        given = flow_run.get_parameters()
        names = ("name", "suite", "seeds", "overrides", "execution")
        trees = asked_for(*(given[name] for name in names))
        tree = next(iter(trees.values()))
        what = f"{tree['experiment']}-{tree.get('suite', MAIN)}-seed{'-'.join(map(str, trees))}"
    except AskedError:
        what = "unusable-parameters"  # the flow's first line tells which
    return f"{what}-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"


@flow(name="experiment", flow_run_name=name_of_run)
def experiment(
    name: str | None = None,
    suite: str | None = None,
    seeds: list[int] | None = None,
    overrides: list[str] | None = None,
    execution: dict[str, Any] | None = None,
    retries: int = 1,
    retry_delay: float = 30,
    stage_timeout: float = 24 * 3600,
) -> State[None]:
    """Brings every stage up to date, for each seed, then shows numbers, drawings and report.

    Nothing runs after a stage that failed. The parameters, as the server's page describes them:

    Args:
        name: One of experiments/, laid over the committed params.yaml. None: params.yaml as it stands.
        suite: One of suites/. None: that of params.yaml.
        seeds: Run one after the other; several are pooled. None: that of params.yaml.
        overrides: As `dvc exp run -S`, for instance arm.decode.lmbda=0.7
        execution: Where stages compute, as in {"engine": "ray", "workers": 4}. None: that of params.yaml.
        retries: How often a stage that fails is tried again.
        retry_delay: Seconds before it is.
        stage_timeout: Seconds after which a stage is ended and has failed.
    """
    try:
        trees = asked_for(name, suite, seeds, overrides, execution)
    except AskedError as error:
        return Failed(message=str(error), data=error)  # in words, without a traceback
    if superseded():
        return Completed(name="Skipped", message="The schedule's next run is due already: that one runs.")
    run = name_of_folder()
    run_again = run_stage.with_options(
        retries=retries, retry_delay_seconds=retry_delay, timeout_seconds=stage_timeout
    )
    params = parse_with_suite(next(iter(trees.values())), PARAMS.name)
    with workspace(get_run_logger().info) as place, shared_cluster(params.execution, place):
        kept = place / "data/seeds" / params.experiment
        shutil.rmtree(kept, ignore_errors=True)  # of an earlier run, perhaps with other overrides
        progress = Progress()
        for seed, tree in trees.items():
            write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), place / PARAMS)
            mend(get_run_logger().warning, root=place)
            stages = stages_in_order(place)
            progress.total = len(stages) * len(trees)
            title = "{}" if len(trees) == 1 else f"seed {seed}: {{}}"
            if (stopped := run_stages(stages, title, place, progress, run_again)) is not None:
                return stopped
            if len(trees) > 1:
                tool("tasks.seeds", "--keep", place=place)
            copy_report(f"{run}/seed-{seed}" if len(trees) > 1 else run, place / "data/report")
        if len(trees) > 1:
            tool("tasks.seeds", place=place)
            report = copy_report(run, kept)
        else:
            report = copy_report(run, place / "data/metrics.json", place / PARAMS)
        show(report, run, seeds=list(trees))
    return Completed(message=f"The report: {report.resolve()}")


def run_stages(
    stages: dict[str, list[str]],
    title: str,
    place: Path,
    progress: Progress,
    run: Task[[str, str, Path, Progress], None],
) -> State[None] | None:
    """Brings stages up to date in a folder, in order; the state that the flow ends in, where it must stop."""
    ended: dict[str, State[None]] = {}
    for stage, needs in stages.items():
        if (told := ended_elsewhere()) is not None:
            return told
        waited = [ended[need] for need in needs]
        ended[stage] = run(stage, title.format(stage), place, progress, wait_for=waited, return_state=True)
        if not ended[stage].is_completed():
            error = ended[stage].result(raise_on_failure=False)
            return Failed(message=ended[stage].message, data=error)  # raised to whoever called the flow
    return None


@task(task_run_name="{title}", cache_policy=NO_CACHE)
def run_stage(stage: str, title: str, place: Path, progress: Progress) -> None:
    """Runs one stage in a folder if it is out of date, its output going to the log."""
    log = get_run_logger()

    def hear(line: str) -> None:
        log.info(line)
        progress.hear(line)

    progress.begin(title)
    reproduce(stage, place, hear)
    progress.end()


def tool(module: str, *arguments: str, place: Path) -> None:
    """Runs a module of the project in a folder, its output going to the log."""
    command = [sys.executable, "-m", module, *arguments]
    remedy = "Mend the cause and start the flow again."
    follow(command, place, get_run_logger().info, what=f"python -m {module}", remedy=remedy)


def main() -> None:
    """Runs the flow in this process, and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m flows.experiment", description=__doc__.splitlines()[0])
    parser.add_argument("--name", help="one of experiments/")
    parser.add_argument("--suite", help="one of suites/")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds to run and pool")
    parser.add_argument(
        "-S", metavar="KEY=VALUE", dest="overrides", action="append", help="as dvc exp run -S"
    )
    asked = parser.parse_args()
    try:
        state = experiment(**vars(asked), return_state=True)
        state.result()
    except (AskedError, StageError, WorkspaceError, TimeoutError) as error:
        sys.exit(f"error: {error}")
    if not asked.seeds or len(asked.seeds) == 1:
        subprocess.run([sys.executable, "-m", "tasks.report", "--print"], cwd=FOLDER)
    print(state.message)


if __name__ == "__main__":
    main()
