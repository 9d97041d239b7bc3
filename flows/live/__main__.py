"""A live project from the command line, without Prefect.

python -m flows.live begin -S KEY=VALUE ...    makes this clone a live project (docs/live.md)
python -m flows.live update                    takes the inbox, closes what is due, commits a version
"""

from __future__ import annotations

import argparse

from flows.live.begin import begin
from flows.live.commands import add_update_options, in_one_line, update


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
    add_update_options(
        commands.add_parser("update", help="take what is new, close what is due, commit a version")
    )
    asked = parser.parse_args()
    with in_one_line():
        if asked.command == "begin":
            begin(asked.sets, branch=asked.branch, inbox=asked.inbox, say=print)
        else:
            update(asked)


if __name__ == "__main__":
    main()
