"""`spring forget USER`: begins, or finishes what was stopped, and says what is left."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.live.forgetting.journal import Journal, end_journal, read_journal
from flows.live.forgetting.leftovers import Left, some
from flows.live.forgetting.objects import Objects
from flows.live.forgetting.person import Known, find, tables
from flows.live.forgetting.search import Search, cells_of, files_under
from flows.live.forgetting.steps import finish, made_stages
from flows.live.project import BusyError
from flows.live.versions import LiveError
from flows.workspace import FOLDER
from spring.data.forgotten import read_forgotten
from spring.data.values import name_user
from spring.live.aliases import VersionError
from spring.live.traces import Traces
from spring.settings.arm import recipe_of
from spring.settings.params import Params
from spring.store.adopting import check_remotes
from spring.store.cells import StoreError
from tasks.files import cells_folder
from tasks.serving.registry import read_aliases

if TYPE_CHECKING:
    from flows.live.update import Update

Say = Callable[[str], None]


def forget(user: str, update: Update, *, dry_run: bool) -> bool:
    """Forgets a person of the current live project; whether nothing that can be reached holds them still.

    Raises `VersionError` for somebody who is not known, `LiveError` where an update was stopped.
    """
    kept, user = update.versions.kept, name_user(user)
    begun = read_journal(kept)
    with cells_reached():
        check_remotes(cells_folder())
    if begun is not None:
        if dry_run:
            raise LiveError("a forgetting was stopped: say it without --dry-run, or spring update, to end it")
        clear = end(update, begun)
        if begun.traces.user == user:
            return clear
    journal = begin(user, update, dry_run=dry_run)
    if dry_run:
        return True
    journal.write(kept)
    return end(update, journal)


def end(update: Update, journal: Journal) -> bool:
    """Finishes what was begun, and says what is left."""
    with no_experiment(), cells_reached():
        check_remotes(cells_folder())
        left = finish(update, journal)
    end_journal(update.versions.kept)
    for line in told(left, journal.traces):
        update.say(line)
    return not left.files


@contextmanager
def cells_reached() -> Iterator[None]:
    """`LiveError` where the remote of the cells cannot be used."""
    try:
        yield
    except StoreError as error:
        raise LiveError(str(error)) from None


@contextmanager
def no_experiment() -> Iterator[None]:
    """No flow of an experiment works in its copy of the project; `BusyError` where one does."""
    lock = FOLDER.with_suffix(".lock")
    if not lock.exists():
        yield
        return
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"An experiment is at work in {FOLDER}; nothing was forgotten yet.") from None
        yield


def end_begun(update: Update) -> None:
    """The first step of every update: a forgetting that was stopped is finished."""
    begun = read_journal(update.versions.kept)
    if begun is not None:
        end(update, begun)


def begin(user: str, update: Update, *, dry_run: bool) -> Journal:
    """What there is of a person; changes nothing."""
    kept = update.versions.kept
    try:
        traces, known = find(user, update.params, kept)
    except VersionError:
        if user not in read_forgotten(kept):
            raise
        update.say(f"{user} was forgotten before: what is left is looked for by the id alone")
        traces = Traces.of(user, (), (), (), ())
        search = Search(traces, frozenset())
        learned = not any(map(search.holds, files_under(Path("data"))))
        return Journal(traces, search.cells, made_stages(), learned)
    if update.params.live is not None and update.versions.differing():
        raise LiveError("an update was stopped before its version was made: spring update ends it")
    tabled = [*files_under(Path("data")), *files_under(Path(".dvc/cache"))]
    journal = Journal(traces, frozenset(cells_of(traces, iter(tabled))), made_stages())
    if dry_run:
        describe(journal, known, update)
    return journal


def describe(journal: Journal, known: Known, update: Update) -> None:
    """Says what would go."""
    user, say = journal.traces.user, update.say
    files = len(list(tables(update.params))) if update.params.live else 0
    more = len(known.theirs) - known.taken
    served = read_aliases(update.versions.kept).users.get(user)
    objects = Objects(Search(journal.traces, journal.cells))
    say(f"rows of {user}: {known.taken} taken, {more} in {files} files of the inbox")
    say(f"versions of {user}: {len(served.trail) if served else 0} served, {len(journal.cells)} adapters")
    say(f"DVC: {len(objects.doomed())} objects of versions that hold {user} would go")
    if shared := learned_together(update.params):
        say(f"learned from all together, and would be learned again for all: {', '.join(shared)}")
    say("Nothing was changed.")


def learned_together(params: Params) -> list[str]:
    """The arms whose users learn from each other."""
    found = []
    for name, arm in params.arms.items():
        if arm.train is not None:
            how = recipe_of(arm)
            if how.shared or how.foundation is not None or how.experts is not None:
                found.append(name)
    return found


def told(left: Left, traces: Traces) -> list[str]:
    """What is left, a line each."""
    lines = []
    if left.removed:
        lines.append(f"removed: {some(left.removed)}")
    if not traces.is_telling:
        lines.append("The id is too short to be looked for outside tables: a search of files went by texts")
    lines += [f"beyond reach: {line}" for line in left.beyond]
    lines += [f"still holds them: {name}" for name in left.files]
    lines.append(
        "Forgotten." if not left.files else "Forgotten, but for what is named above: remove that by hand."
    )
    return lines
