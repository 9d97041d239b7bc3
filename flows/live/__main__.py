"""A live project from the command line, without Prefect.

python -m flows.live begin -S KEY=VALUE ...    makes this clone a live project (docs/live.md)
python -m flows.live update                    takes the inbox, closes what is due, commits a version
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from flows.live.begin import begin
from flows.live.project import BusyError
from flows.live.update import run_steps, updating
from flows.live.versions import LiveError
from flows.stages import StageError
from spring.data.rows import SourceError
from spring.live.aliases import VersionError
from spring.settings.params import ParameterError

ALARM = 3  # exit code of an update that did all it had to, and refused too many new adapters


def main() -> None:
    """Begins or updates."""
    parser = argparse.ArgumentParser(prog="python -m flows.live", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("begin", help="make this clone a live project")
    start.add_argument(
        "-S", metavar="KEY=VALUE", dest="sets", action="append", default=[], help="of params.yaml"
    )
    start.add_argument("--branch", default="live", help="of Git, for the updates")
    start.add_argument("--inbox", default="inbox", help="where files are dropped; or one file that grows")
    again = commands.add_parser("update", help="take what is new, close what is due, commit a version")
    again.add_argument("--now", type=moment, help="as if it were then: to go through a past stream")
    again.add_argument("--verbose", action="store_true", help="print what the stages print")
    asked = parser.parse_args()
    try:
        if asked.command == "begin":
            begin(asked.sets, branch=asked.branch, inbox=asked.inbox, say=print)
            return
        with updating(say, say if asked.verbose else lambda _: None, asked.now) as update:
            say(run_steps(update))
        if update.alarm:
            sys.exit(ALARM)
    except BusyError as error:
        sys.exit(str(error))
    except (LiveError, ParameterError, SourceError, StageError, VersionError) as error:
        sys.exit(f"error: {error}")


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def moment(text: str) -> datetime:
    """A point in time; without an offset in UTC."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


if __name__ == "__main__":
    main()
