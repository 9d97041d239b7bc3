"""The command `spring`: which adapters of a live project answer, changes to that, and questions.

spring status                           what is closed, the last update, who is served what
spring list | show USER                 versions and aliases, of all users or of one
spring update                           takes the inbox, closes what is due, publishes, commits
spring publish USER@PERIOD ...          makes versions live
spring rollback USER ... [--to PERIOD]  one step back, or to what was served after a period
spring rollback --all --to PERIOD       all users
spring export FOLDER                    adapters as folders that PEFT and vLLM load
spring ask USER FIELD=TEXT ...          the live version's answer
spring forget USER                      as if the person had never been here
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flows.live.commands import add_update_options, in_one_line, say, update

if TYPE_CHECKING:
    from tasks.serving.asking import Answer


def main(words: list[str] | None = None) -> None:
    """Does what is asked; what cannot be done is one line, and changes nothing."""
    asked = parser().parse_args(words)
    act: Callable[[argparse.Namespace], None] = asked.act
    with in_one_line():
        act(asked)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    shape = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(prog="spring", description=__doc__, formatter_class=shape)
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help)
        one.set_defaults(act=act)
        return one

    command("status", see, "what is closed, the last update, who is served what")
    command("list", see, "what is live, of every user")
    command("show", see, "the versions of a user").add_argument("user")
    add_update_options(
        command("update", update, "take what is new, close what is due, publish, commit a version")
    )
    one = command("publish", publish, "make versions live")
    one.add_argument("versions", nargs="+", metavar="USER@PERIOD")
    one = command("rollback", roll_back, "take versions back")
    one.add_argument("users", nargs="*", metavar="USER")
    one.add_argument("--all", action="store_true", help="all users; needs --to")
    one.add_argument("--to", type=int, metavar="PERIOD", help="to what was served after it; else one step")
    one = command("export", export, "write adapters as folders")
    one.add_argument("folder", type=Path)
    one.add_argument("--layout", choices=("peft", "vllm"), default="peft")
    one.add_argument("--arm", help="else the one that is served")
    which = one.add_mutually_exclusive_group()
    which.add_argument("--period", type=int, help="as they were after it")
    which.add_argument("--live", action="store_true", help="those that answer now; so without --period")
    one.add_argument("--user", nargs="+", metavar="ID", help="all, without it")
    one.add_argument("--base", help="what the base model is called where they are loaded")
    one = command("ask", ask, "what a user's live version answers")
    one.add_argument("user")
    one.add_argument("query", nargs="+", metavar="FIELD=TEXT", help="of the prompt")
    one.add_argument("--task", help="of the question, for users with texts of several")
    one.add_argument("--show", action="store_true", help="say what was heard, and with which weight")
    one = command("forget", forget, "as if the person had never been here")
    one.add_argument("user")
    one.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")
    one.add_argument("--verbose", action="store_true", help="print what the stages print")
    return found


def see(asked: argparse.Namespace) -> None:
    """Says what there is."""
    from flows.live.registry import Registry, listed, shown, status

    registry = Registry.here()
    views = {"status": status, "list": listed}
    lines = shown(registry, asked.user) if asked.command == "show" else views[asked.command](registry)
    print(*lines, sep="\n")


def publish(asked: argparse.Namespace) -> None:
    """Makes versions live."""
    from flows.live import registry

    registry.publish(asked.versions, say)


def roll_back(asked: argparse.Namespace) -> None:
    """Takes versions back."""
    from flows.live import registry
    from spring.live.aliases import VersionError

    if asked.all == bool(asked.users) or (asked.all and asked.to is None):
        raise VersionError("say USER ..., or --all --to PERIOD")
    if asked.all:
        registry.roll_back_all(asked.to, say)
    else:
        registry.roll_back(asked.users, asked.to, say)


def export(asked: argparse.Namespace) -> None:
    """Writes adapters."""
    from flows.live.registry import Registry
    from spring.live.aliases import VersionError
    from tasks.export import ExportError, export, find, find_live

    registry = Registry.here()
    arm = asked.arm or registry.arm[0]
    try:
        if asked.period is not None:
            registry.check_closed(asked.period)
            rows = find(registry.params, arm, asked.period, asked.user)
        elif arm != registry.arm[0]:
            raise VersionError(f"live versions are of the arm {registry.arm[0]}; of {arm} say a --period")
        else:
            users = asked.user or [user for user, one in registry.aliases.users.items() if one.live]
            rows = find_live(registry.arm[1].recipe, [registry.live(user) for user in users])
        for line in export(rows, asked.folder, asked.layout, asked.base):
            print(line)
    except ExportError as error:
        raise VersionError(str(error)) from None


def ask(asked: argparse.Namespace) -> None:
    """Asks, and prints the answer."""
    from flows.live.registry import Registry
    from spring.live.aliases import VersionError

    registry = Registry.here()
    version, (arm, _) = registry.live(asked.user), registry.arm
    from tasks.serving import asking

    try:
        task = asking.task_of(registry.params, version, asked.task)
        query = asking.query_of(asked.query, registry.params.prompts[task], task)
    except asking.AskError as error:
        raise VersionError(str(error)) from None
    answer = asking.ask(registry.params, arm, version, query, task=task)
    print(answer.text)
    if asked.show:
        print(*told(answer, str(version)), sep="\n")


def forget(asked: argparse.Namespace) -> None:
    """Forgets a person; exits with 1 where what can be reached still holds them."""
    from flows.live.forgetting.anywhere import project
    from flows.live.forgetting.command import forget

    with project(say, say if asked.verbose else lambda _: None) as update:
        if not forget(asked.user, update, dry_run=asked.dry_run):
            sys.exit(1)


def told(answer: Answer, version: str) -> list[str]:
    """What an answer was made with."""
    sigma = "none" if answer.sigma is None else f"{answer.sigma:.4g}"
    heard = sum(one.weight > 0 for one in answer.memories)
    return [
        f"-- {version}, lambda {answer.lmbda:.4g}, sigma {sigma}, {heard} of {len(answer.memories)} heard",
        *(
            f"   {one.interaction_id} of {one.timestamp:%Y-%m-%d}: score {one.score:.4g}, "
            f"weight {one.weight:.4g}: {' '.join(one.response.split())[:60]}"
            for one in answer.memories
        ),
    ]


if __name__ == "__main__":
    main()
