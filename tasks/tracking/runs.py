"""One run of W&B: quiet, light, under an explicit mode and time limit, and once only.

Imports nothing of the project: a process of its own (live.py) starts with it while a stage computes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb

FOLDER = Path("wandb")
STAGING = "WANDB_DATA_DIR"  # W&B's variable: where copies of artifacts' files lie until they are sent
DELETED = "previously created and deleted"  # what W&B says of such a run's id
ATTEMPTS = 9
LONG = 600.0  # seconds to send all of a run
# Read when wandb is imported. Without it even an offline run looks up the address of an error collector.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


class TrackingError(RuntimeError):
    """W&B could not take a run; the message says why."""


@contextmanager
def started(
    tracking: Mapping[str, Any],
    *,
    id: str,
    name: str,
    group: str,
    job_type: str,
    config: dict[str, Any],
    resume: bool = False,
    finish_timeout: float = LONG,
) -> Iterator[wandb.Run]:
    """A run that is finished when the block ends; what was recorded offline under its id before is replaced.

    `tracking` is the block of params.yaml. `resume` goes on with what the server has under this id; otherwise
    that is overwritten. Raises `TrackingError` where W&B does not take it within `init_timeout` seconds; what
    is not sent `finish_timeout` seconds after the end stays in the folder wandb/, which is told alike.
    """
    import wandb  # here: it takes a second, and is not needed where tracking is disabled

    settings = wandb.Settings(
        init_timeout=tracking["init_timeout"],
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
        silent=True,  # also: never ask for a key at the terminal, where a night's run would wait
        console="off",
        save_code=False,
        disable_code=True,
        x_disable_stats=True,
    )
    wandb.setup(settings)  # first: `init` alone would apply `silent` too late
    earlier = offline_records(id) if tracking["mode"] == "offline" else []
    run = opened(
        tracking,
        id=id,
        name=name,
        group=group,
        job_type=job_type,
        config=config,
        resume="allow" if resume else None,
        settings=settings,
    )
    try:
        with run, staging(Path(run.dir).parent / "staged"):
            yield run
    except (wandb.errors.Error, TimeoutError) as error:
        raise TrackingError(
            f"W&B took not all of run {name}: {error}; `wandb sync {Path(run.dir).parent}` sends the rest"
        ) from error
    for folder in earlier:
        if folder.resolve() != Path(run.dir).parent.resolve():  # of the same second, it is the same folder
            shutil.rmtree(folder)


def opened(tracking: Mapping[str, Any], *, id: str, name: str, **how: Any) -> wandb.Run:
    """The run under its id, or that and a number: an id that was deleted W&B never takes again."""
    import wandb

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return wandb.init(
                project=tracking["project"],
                entity=tracking["entity"],
                id=id if attempt == 1 else f"{id}-{attempt}",
                name=name,
                tags=list(tracking["tags"]),
                mode=tracking["mode"],
                dir=str(Path.cwd()),  # W&B's own process may have been started elsewhere
                **how,
            )
        except wandb.errors.Error as error:
            if attempt == ATTEMPTS or DELETED not in str(error):
                raise TrackingError(
                    f"W&B took no run {name} (tracking.mode: {tracking['mode']}): {error}"
                ) from error
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def staging(folder: Path) -> Iterator[None]:
    """Inside the block, copies lie with the run, and go with it; W&B's own choice is the home folder."""
    before = os.environ.get(STAGING)
    os.environ[STAGING] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[STAGING]
        else:
            os.environ[STAGING] = before


def offline_records(id: str) -> list[Path]:
    """Folders of offline runs under this id that have not been sent."""
    folders = sorted(FOLDER.glob(f"offline-run-*-{id}"))
    return [folder for folder in folders if not list(folder.glob("*.synced"))]
