"""The update of a live project as a Prefect flow: each step of flows/live/update.py is one task.

    python -m flows.live update      does the same without Prefect

It works in the project itself, unlike experiments: what it makes is the project's next version. docs/live.md
says how to schedule it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows.live.project import BusyError
from flows.live.update import STEPS, Update, outcome, updating
from flows.live.versions import LiveError
from flows.showing import copy_report, serve_reports
from flows.waiting import ended_elsewhere, superseded
from spring.settings.params import ParameterError

PAGES = "live"  # of .prefect/reports: pages of updates together, so that their links hold


def name_of_run() -> str:
    """What this flow run is called; must not raise, see flows/experiment.py."""
    return f"update-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}"


@flow(name="update", flow_run_name=name_of_run)
def update(retries: int = 1, retry_delay: float = 60) -> State[None]:
    """Takes the inbox, closes the periods that are over, learns them, and commits a version.

    Args:
        retries: How often a step that fails is tried again; a step does only what is not done.
        retry_delay: Seconds before it is.
    """
    if superseded():
        return Completed(name="Skipped", message="The schedule's next run is due already: that one runs.")
    log = get_run_logger()
    step_again = run_step.with_options(retries=retries, retry_delay_seconds=retry_delay)
    try:
        with updating(log.info, log.info) as one:
            for step in STEPS:
                if (told := ended_elsewhere()) is not None:
                    return told
                ended = step_again(step, one, return_state=True)
                if not ended.is_completed():
                    error = ended.result(raise_on_failure=False)
                    return Failed(message=str(error), data=error)
            if one.made is not None and one.page is not None:
                show(one.page)
            if one.alarm:  # all was done and is committed: somebody should look
                return Failed(name="Alarm", message=one.alarm)
            return Completed(message=outcome(one))
    except BusyError as error:
        return Completed(name="Skipped", message=str(error))
    except (LiveError, ParameterError) as error:
        return Failed(message=str(error), data=error)


@task(task_run_name="{step}", cache_policy=NO_CACHE)
def run_step(step: str, one: Update) -> None:
    """One step of an update."""
    getattr(one, step)()


def show(page: Path) -> None:
    """The page of an update, served beside the server's own."""
    copy_report(PAGES, page)
    serve_reports()
    create_markdown_artifact(
        f"[Open the page](/reports/{PAGES}/{page.name})", key="update", description="What an update did"
    )
