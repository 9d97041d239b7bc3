"""The process that logs a stage while it runs: reads lines of JSON until the stage ends (tasks/live.py).

The first line says which run, every other how far the stage is. A stage that ends without having said
`finished` was killed or failed, and so is its run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tasks.tracking.runs import TrackingError, started

LATE = 60  # seconds at most to send the rest when the stage has ended


class StageFailedError(RuntimeError):
    """The stage ended without having finished."""


def main() -> None:
    """Follows one stage; what W&B refuses ends this process alone."""
    os.nice(10)  # the stage needs the processor
    about = json.loads(sys.stdin.readline())
    try:
        follow(about, (json.loads(line) for line in sys.stdin))
    except TrackingError as error:
        sys.exit(f"{time.strftime('%F %T')} {error}")
    except StageFailedError:
        pass


def follow(about: dict[str, Any], events: Iterable[dict[str, Any]]) -> None:
    """Logs events to the run that `about` describes, going on with it where an earlier attempt ended."""
    tracking = about.pop("tracking")
    with started(tracking, **about, resume=True, finish_timeout=LATE) as run:
        for event in events:
            if event.get("finished"):
                return
            run.log(numbers(event))
        raise StageFailedError


def numbers(event: dict[str, Any]) -> dict[str, float]:
    """An event as W&B has it: `train/done` of a filling called `adapt@1 train`, in its unit."""
    stage, _, part = event["what"].partition(" ")
    name = (part or stage.partition("@")[0]).replace(" ", "_")
    found = {f"{name}/{event['unit']}": event["done"], f"{name}/share": event["done"] / max(event["of"], 1)}
    return found | ({f"{name}/loss": event["loss"]} if "loss" in event else {})


if __name__ == "__main__":
    main()
