"""What the two command lines of a live project have in common: `python -m flows.live` and `spring`.

Light to import: what an update needs is imported when one is asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

ALARM = 3  # exit code of an update that did all it had to, and refused too many new adapters


@contextmanager
def in_one_line() -> Iterator[None]:
    """What cannot be done inside the block is one line, and the exit status 1."""
    from flows.live.project import BusyError
    from flows.live.versions import LiveError
    from flows.stages import StageError
    from spring.data.rows import SourceError
    from spring.live.aliases import VersionError
    from spring.settings.params import ParameterError

    try:
        yield
    except BusyError as error:
        sys.exit(str(error))
    except (LiveError, VersionError, ParameterError, SourceError, StageError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def add_update_options(parser: argparse.ArgumentParser) -> None:
    """The options that `update` reads."""
    parser.add_argument("--now", type=moment, help="as if it were then: to go through a past stream")
    parser.add_argument("--verbose", action="store_true", help="print what the stages print")


def update(asked: argparse.Namespace) -> None:
    """Takes what is new, closes what is due, publishes, commits a version; exits with `ALARM` at an alarm."""
    from flows.live.update import run_steps, updating

    with updating(say, say if asked.verbose else lambda _: None, asked.now) as one:
        say(run_steps(one))
    if one.alarm:
        sys.exit(ALARM)


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def moment(text: str) -> datetime:
    """A point in time; without an offset in UTC."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when
