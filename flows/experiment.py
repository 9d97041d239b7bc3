"""The experiment as a Prefect flow: each stage of dvc.yaml is one task, in the order that DVC gives.

`python -m flows.experiment` runs it without a server; docs/operate.md says how to schedule and watch it.
What is up to date is for DVC to say, on content, so Prefect's own caching is off. A new period or stage in
dvc.yaml needs no change here. Settings of Prefect are in prefect.toml.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Failed, State

from spring.settings.params import ParameterError
from tasks.params import load_params

LAST_LINES = 15  # of a failed stage, in the message of its task
GRACE = 10  # seconds that a stage has to end after being asked to


class StageError(RuntimeError):
    """DVC or a stage did not end well; the message holds the last lines and says what to do."""


def name_of_run() -> str:
    """What this flow run is called. Must not raise: Prefect would show the run as pending for good."""
    try:
        params = load_params()
        what = f"{params.experiment}-seed{params.seed}"
    except ParameterError:
        what = "unusable-parameters"  # the flow's first line tells which
    return f"{what}-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"


@flow(name="experiment", flow_run_name=name_of_run)
def experiment(
    retries: int = 1, retry_delay: float = 30, stage_timeout: float = 24 * 3600
) -> State[None] | None:
    """Brings every stage up to date, then shows numbers, plots and report as artifacts.

    A stage that fails is tried again up to `retries` times, `retry_delay` seconds later; one that runs for
    more than `stage_timeout` seconds is ended and has failed. Nothing runs after a stage that failed.
    """
    load_params()
    run = run_stage.with_options(
        retries=retries, retry_delay_seconds=retry_delay, timeout_seconds=stage_timeout
    )
    ended: dict[str, State[None]] = {}
    for stage, needs in stages_in_order().items():
        ended[stage] = run(stage, wait_for=[ended[need] for need in needs], return_state=True)
        if not ended[stage].is_completed():
            error = ended[stage].result(raise_on_failure=False)
            return Failed(message=ended[stage].message, data=error)  # raised to whoever called the flow
    publish()
    return None


def stages_in_order(folder: Path = Path()) -> dict[str, list[str]]:
    """Every stage of the project in `folder` with the stages it needs, each after those: `dvc dag`."""
    command = dvc("dag", "--dot")
    drawn = subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True)
    if drawn.returncode != 0:
        raise StageError(f"DVC cannot read the stages of dvc.yaml:\n{drawn.stderr.strip()}")
    needs: dict[str, list[str]] = {}
    for first, second in re.findall(r'^"([^"]+)"(?: -> "([^"]+)")?;$', drawn.stdout, flags=re.MULTILINE):
        needs.setdefault(first, [])
        if second:
            needs.setdefault(second, []).append(first)
    return {stage: needs[stage] for stage in TopologicalSorter(needs).static_order()}


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(stage: str) -> None:
    """Runs one stage if it is out of date, its output going to the log; raises `StageError` if it fails.

    `--single-item`: what it needs was brought up to date before it, and need not be checked once more.
    """
    log, last = get_run_logger(), deque[str](maxlen=LAST_LINES)
    command = dvc("--wait-for-lock", "repro", "--single-item", stage)
    with started(command) as process:
        assert process.stdout is not None
        for line in lines(process.stdout):
            log.info(line)
            last.append(line)
        code = process.wait()
    if code != 0:
        raise StageError(
            f"Stage {stage} failed (exit code {code}). Its last lines:\n  " + "\n  ".join(last) + "\n"
            f"{why_killed(code, last)}What was finished is kept. Mend the cause and start the flow again, or "
            f"try this stage alone: dvc repro --single-item {stage}"
        )


def why_killed(code: int, last: Iterable[str]) -> str:
    """A line for a stage that the system ended (SIGKILL: -9, in a shell's words 137); else nothing.

    DVC's own code is 255 then; the stage's stands in what DVC says.
    """
    said = re.search(r"exited with (-9|137)\b", "\n".join(last))
    if code not in (-9, 137) and not said:
        return ""
    return "It was killed, most likely for memory: lower model.memory_gb, or end other programs.\n"


def dvc(*arguments: str) -> list[str]:
    """A DVC command, run by the Python that runs this."""
    return [sys.executable, "-m", "dvc", *arguments]


def environment() -> dict[str, str]:
    """That of this process, so changed that stages find the same Python and their output is not held back."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which ends with the block: after a timeout, Ctrl-C or cancellation."""
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def lines(output: IO[str]) -> Iterator[str]:
    """Lines with something on them."""
    return (line.rstrip() for line in output if line.strip())


def publish() -> None:
    """Shows data/metrics.json and data/report/ on this run's page."""
    from tasks.evaluate import read_metrics  # here: polars and more, needed only at the end
    from tasks.report import FOLDER
    from tasks.reporting.findings import tables
    from tasks.reporting.table import as_markdown

    made = tables(read_metrics(), list(load_params().arms))
    create_markdown_artifact("\n".join(as_markdown(table) for table in made), key="metrics")
    for plot in sorted((FOLDER / "plots").glob("*.svg")):
        address = f"data:image/svg+xml;base64,{base64.b64encode(plot.read_bytes()).decode()}"
        create_image_artifact(address, key=f"plot-{plot.stem}", description=f"data/report/plots/{plot.name}")
    page = (FOLDER / "report.html").resolve()  # the path is the text: browsers follow no link to a file
    create_link_artifact(page.as_uri(), link_text=str(page), key="report")


if __name__ == "__main__":
    try:
        experiment()
    except (StageError, ParameterError, FileNotFoundError, TimeoutError) as error:
        sys.exit(f"error: {error}")
