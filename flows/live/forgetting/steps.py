"""The steps of a forgetting; each does only what is not done, and all can be said again after a stop."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.live.closing import Calendar
from flows.live.forgetting.journal import Journal
from flows.live.forgetting.leftovers import Left, clean
from flows.live.forgetting.objects import Objects, stale_stages
from flows.live.forgetting.person import cleared, theirs
from flows.live.forgetting.search import Search
from flows.live.publishing import note_aliases
from flows.live.stage_clock import StageClock
from flows.live.versions import LEFT, remote
from flows.stages import StageError, stages_in_order
from spring.data.forgotten import FORGOTTEN, read_forgotten
from spring.data.inbox.files import SEEN
from spring.data.inbox.ledger import PARTS
from spring.data.inbox.rewriting import rewrite
from spring.live.aliases import VersionError
from spring.live.traces import Traces
from spring.store.adopting import NEW, take_place
from spring.store.remote import remote_url
from tasks.files import cells_folder, write_text
from tasks.serving.registry import read_aliases, read_lessons, served_arm, write_aliases

if TYPE_CHECKING:
    from flows.live.update import Update

ASK_NOTHING = ("code", "ingest", "split", "model")  # stages that ask for no cell


def keep_out(update: Update, traces: Traces) -> None:
    """Notes that no row of theirs is taken any more."""
    kept = update.versions.kept
    forgotten = read_forgotten(kept)
    if traces.user not in forgotten:
        write_text(forgotten.with_user(traces.user).text(), kept / FORGOTTEN)


def take_out(update: Update, traces: Traces) -> None:
    """Takes their rows out of the ledger, the parts, and the files of the inbox, in this order."""
    if update.params.live is None:  # sources are somebody's own; ingest leaves the rows out
        return
    kept = update.versions.kept
    files = cleared(update.params, kept, traces, lambda name: neutral(name, traces))
    rows = rewrite(kept, files, theirs(traces), lambda name: neutral(name, traces))
    for file in files.values():
        if file.changed:
            file.replace()
    for name in (SEEN, ".asked.json"):
        (kept / name).unlink(missing_ok=True)
    changed = sum(file.changed for file in files.values())
    update.say(f"taken out: {rows} rows of the parts, and what {changed} files of the inbox had")


def neutral(name: str, traces: Traces) -> str:
    """The name of a file, or a place in it, without theirs."""
    if not traces.in_text(name):
        return name
    for word in sorted({*traces.names, *traces.ids}, key=len, reverse=True):
        name = re.sub(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", "forgotten", name)
    return name


def made_stages() -> tuple[str, ...]:
    """The stages whose results are there, each after those that it needs."""
    known = locked()
    return tuple(name for name in stages_in_order() if name in known and is_there(known[name]))


def learn_again(update: Update, stages: Collection[str]) -> None:
    """Runs stages again, over a store that takes over only what they ask for."""
    if not {"ingest", "split"} & set(stages):  # nothing was learned yet
        return
    (cells_folder() / NEW).mkdir(parents=True, exist_ok=True)
    clock = StageClock(update.say, update.hear)
    update.dvc("repro", "split", hear=clock.hear)
    asking = [name for name in stages if name not in ASK_NOTHING]
    if asking:
        update.dvc("repro", "--force", "--single-item", *asking, hear=clock.hear)
    clock.stop()


def locked() -> dict[str, Any]:
    """The stages that dvc.lock knows."""
    from dvc.utils.serialize import load_yaml  # here: DVC takes a second

    return dict(load_yaml("dvc.lock").get("stages", {})) if Path("dvc.lock").exists() else {}


def leave_out(names: Collection[str]) -> None:
    """Takes stages out of dvc.lock."""
    from dvc.utils.serialize import modify_yaml

    if names:
        with modify_yaml("dvc.lock") as lock:
            for name in names:
                del lock["stages"][name]


def is_there(stage: dict[str, Any]) -> bool:
    """Whether all results of a stage are."""
    return all(Path(out["path"]).exists() for out in stage.get("outs", []))


def serve_others(update: Update, traces: Traces) -> None:
    """Takes them out of the aliases; what others were served is served of the lessons that there are now."""
    if update.params.live is None:
        return
    try:
        _, arm = served_arm(update.params)
    except VersionError:
        return
    kept, closed = update.versions.kept, Calendar(update.params).closed
    before = read_aliases(kept)
    if closed and before.users:
        write_aliases(before.without(traces.user).learned_anew(read_lessons(arm.recipe, closed)), kept)
        note_aliases(update)


def commit(update: Update, search: Search) -> None:
    """Makes what is left a version; of stages that were not run again dvc.lock loses what held them."""
    versions = update.versions
    leave_out(stale_stages(locked(), Objects(search)))
    if update.params.live is None:
        update.say(f"not committed, that is yours: dvc.lock, data/ingest.json, {versions.kept / FORGOTTEN}")
        return
    if (versions.kept / PARTS).is_dir():
        update.dvc("add", "--quiet", str(versions.kept / PARTS))
    if versions.differing():
        made = versions.commit(f"Forgotten: a person, of all that was taken and learned\n\n{LEFT}: 1\n")
        update.say(f"version {made[:10]}: without them")
    versions.align(update.say)


def prune(update: Update, search: Search, left: Left) -> None:
    """Swaps the cells, removes all objects that held them, here and in the remote, and pushes the version."""
    if (cells_folder() / NEW).is_dir():
        update.say(f"cells: {take_place(cells_folder())} that nobody else asks for are gone")
    if url := remote_url():
        left.beyond.append(
            f"{url}: from other machines' folders they go when the store is next opened there; a bucket that "
            f"keeps old versions has them still"
        )
    objects, target = Objects(search), remote()
    count, why = objects.remove(objects.doomed())
    update.say(f"DVC: {count} objects of versions that held them are gone")
    if why:
        left.beyond.append(f"DVC's remote {target}: what it has of them stays ({why})")
    if update.params.live is not None:
        try:
            update.push()
        except StageError as error:
            said = " ".join(str(error).split())[:200]
            left.beyond.append(f"DVC's remote {target}: not pushed, the next update does ({said})")
    if folder := objects.remote_folder:
        left.files += outside(folder, search)


def outside(folder: Path, search: Search) -> list[str]:
    """Files of a remote that lies here and hold them still."""
    if not folder.exists():
        return []
    return [str(file) for file in sorted(folder.rglob("*")) if file.is_file() and search.holds(file)]


def finish(update: Update, journal: Journal) -> Left:
    """All steps; what is left of them."""
    search = Search(journal.traces, journal.cells)
    keep_out(update, journal.traces)
    take_out(update, journal.traces)
    if not journal.learned:
        learn_again(update, journal.stages)
        replace(journal, learned=True).write(update.versions.kept)
    serve_others(update, journal.traces)
    commit(update, search)
    left = Left()
    prune(update, search, left)
    found = clean(Search(journal.traces, journal.cells), update.versions)
    return Left(found.removed, [*left.files, *found.files], [*left.beyond, *found.beyond])
