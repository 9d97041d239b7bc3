"""Which versions of a live project answer, and changes to that between updates, each a commit.

A change is there as soon as the file of aliases is replaced, by one rename, and is committed after that. If
it was stopped between the two, the next change or update commits it first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flows.live.closing import Calendar
from flows.live.forgetting.command import end_begun
from flows.live.project import live_params
from flows.live.publishing import note_aliases, noted_whole
from flows.live.update import Update, name_periods, updating
from flows.live.versions import SERVED, TRAILER, LiveError, Versions, git
from flows.stages import StageError
from spring.live.aliases import Aliases, Lesson, Lessons, Version, VersionError, lesson_at
from spring.settings.arm import Arm
from spring.settings.params import Params
from tasks.serving.registry import SHOWN, read_aliases, read_lessons, served_arm, write_aliases
from tasks.steps.verdicts import rulings_on

Say = Callable[[str], None]


@dataclass(frozen=True)
class Registry:
    """The versions of a live project as its last commit has them, and which of them answer."""

    params: Params
    versions: Versions

    @classmethod
    def here(cls) -> Registry:
        """That of the current folder; `LiveError` where it is no live project."""
        params = live_params()
        assert params.live is not None, "live_params has seen to it"
        return cls(params, Versions(params.live.branch, Path(params.ingest.inbox.kept)))

    @cached_property
    def periods(self) -> int:
        """How many are closed and learned."""
        return Calendar(self.params).closed_in(self.versions.text("params.yaml"))

    @cached_property
    def arm(self) -> tuple[str, Arm]:
        """The arm that is served, by name."""
        return served_arm(self.params)

    @cached_property
    def lessons(self) -> Lessons:
        """All versions; those too that an update has published and not committed yet."""
        return read_lessons(self.arm[1].recipe, max(self.periods, self.published))

    @property
    def published(self) -> int:
        """How many periods are learned, as far as the aliases know."""
        newest = [one.newest.period for one in self.aliases.users.values() if one.newest]
        return max(newest, default=-1) + 1

    @cached_property
    def aliases(self) -> Aliases:
        """What is served of every user."""
        return read_aliases(self.versions.kept)

    def lesson(self, version: Version) -> Lesson:
        """The lesson that a version comes from; `VersionError` where there is none."""
        self.check_closed(version.period)
        return lesson_at(version, self.lessons)

    def check_closed(self, period: int) -> None:
        """Raises `VersionError` for a period that was not learned."""
        if not 0 <= period < self.periods:
            closed = name_periods(list(range(self.periods))) if self.periods else "none"
            raise VersionError(f"period {period} is not closed; closed so far: {closed}")

    def live(self, user: str) -> Version:
        """The version that answers for a user; `VersionError` where none does."""
        lesson = self.aliases.of(user).live
        if lesson is None:
            raise VersionError(f"nothing of {user} was published yet; spring show {user} says what there is")
        self.check_there(user, lesson)
        return Version(user, lesson.period)

    def check_there(self, user: str, lesson: Lesson) -> None:
        """Raises `VersionError` where a version that was served has been learned anew."""
        if lesson not in self.lessons.get(user, ()):
            raise VersionError(
                f"{Version(user, lesson.period)} was learned anew since it was published (other code or "
                f"settings): spring update ends that and publishes what came of it"
            )

    @property
    def committed(self) -> bool:
        """Whether the last commit names what is served."""
        noted = noted_whole(self.versions.kept)
        return noted and self.versions.aliases not in self.versions.differing()


def publish(names: Iterable[str], say: Say) -> None:
    """Makes versions, by their names, `live`, in one step."""
    versions = [Version.named(name) for name in names]
    if len({version.user for version in versions}) < len(versions):
        raise VersionError("only one version of a user can be live: name each user once")

    def alter(registry: Registry) -> Aliases:
        chosen = {version.user: registry.lesson(version) for version in versions}
        return registry.aliases.publish(chosen)

    _change(alter, "published", say)


def roll_back(users: Sequence[str], to: int | None, say: Say) -> None:
    """Users one step back, or to what was served of them after the period `to`; null users: all of them."""

    def alter(registry: Registry) -> Aliases:
        if to is not None:
            registry.check_closed(to)
        return registry.aliases.roll_back(users, to)

    _change(alter, "rolled back" if to is None else f"rolled back to period {to}", say, step=to is None)


def roll_back_all(to: int, say: Say) -> None:
    """All users to what was served of them after a period; those who came later stay as they are."""
    late: list[str] = []

    def alter(registry: Registry) -> Aliases:
        registry.check_closed(to)
        late.extend(
            user for user, one in registry.aliases.users.items() if one.trail and not one.back_to(to).trail
        )
        return registry.aliases.roll_back_all(to)

    _change(alter, f"rolled back to period {to}", say)
    if late:
        say(f"{len(late)} came later and stay as they are: {_some(sorted(late))}")


def _change(alter: Callable[[Registry], Aliases], what: str, say: Say, *, step: bool = False) -> None:
    """Changes the aliases and commits them; `step`: said twice, it would be done twice."""
    with updating(say, lambda _: None) as update:
        end_begun(update)
        registry = Registry(update.params, update.versions)
        before = registry.aliases
        if not registry.committed:
            if registry.published > registry.periods:
                raise LiveError("an update was stopped before its version was made: spring update ends it")
            _commit(update, "Served: what a change that was stopped had done", say)
            if step:
                raise LiveError(
                    "a change was stopped after it was done, and is committed now: see spring list, and say "
                    "again what is to change"
                )
        after = alter(registry)
        users = before.changed(after)
        for user in users:
            lesson = after.of(user).live
            assert lesson is not None, user
            registry.check_there(user, lesson)
        if not users:
            say("Nothing to change: that is what is served.")
            return
        write_aliases(after, update.versions.kept)
        say(f"{what}: {_some([_served(after, user) for user in users])}")
        _commit(update, f"Served: {len(users)} {'user' if len(users) == 1 else 'users'} {what}", say)


def _commit(update: Update, subject: str, say: Say) -> None:
    """Makes what is served a version, and sends it to the remote where there is one."""
    note_aliases(update)
    made = update.versions.commit(f"{subject}\n\n{SERVED}: aliases\n", only=[update.versions.aliases])
    update.versions.align(say)
    say(f"version {made[:10]}: {subject}")
    try:
        update.push()
    except StageError as error:
        say(f"not pushed, the next update does: {str(error).splitlines()[0]}")


def _served(aliases: Aliases, user: str) -> str:
    lesson = aliases.of(user).live
    assert lesson is not None, user
    return str(Version(user, lesson.period))


def _some(names: Sequence[str], most: int = 10) -> str:
    """Names in a line, the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- what there is ----------------------------------------------------------------------------------------


def status(registry: Registry) -> list[str]:
    """What is closed, the last update, and who is served what, in a few lines."""
    closed = registry.periods
    last = git("log", "-1", f"--grep=^{TRAILER}: ", "--format=%h, %ci: %s").strip()
    lines = [
        f"closed: {name_periods(list(range(closed))) if closed else 'no period yet'}",
        f"last update: {last or 'none yet'}",
    ]
    if not closed:
        return lines
    versions = sum(map(len, registry.lessons.values()))
    lines.append(f"arm: {registry.arm[0]}, users: {len(registry.lessons)}, versions: {versions}")
    served = registry.aliases.users.values()
    ends = Counter(one.live.period for one in served if one.live)
    lines += [f"users live at period {period}: {count}" for period, count in sorted(ends.items())]
    behind = sum(one.live != one.newest for one in served)
    lines.append(f"users not at their newest version: {behind}")
    if not registry.committed:
        lines.append("what is served is not committed yet: the next change or update does that")
    return lines


def listed(registry: Registry) -> list[str]:
    """A line per user: what is live, what was before, and the newest version."""
    return [
        ", ".join(
            f"{name} {Version(user, lesson.period)}" if lesson else f"{name} none"
            for name, lesson in (("live", one.live), ("previous", one.previous), ("newest", one.newest))
        )
        for user, one in sorted(registry.aliases.users.items())
    ]


def shown(registry: Registry, user: str) -> list[str]:
    """A line per version of a user, with what the gate said of it."""
    one = registry.aliases.of(user)
    said = {cell[:SHOWN]: words for cell, words in rulings_on(registry.versions.kept, user).items()}
    lines = []
    for lesson in registry.lessons.get(user, ()):
        names = {"live": one.live, "previous": one.previous}
        marks = [name for name, at in names.items() if at == lesson] or [
            "served before" if lesson in one.trail else "not served"
        ]
        ruling = f"  {said[lesson.cell]}" if lesson.cell in said else ""
        lines.append(f"{Version(user, lesson.period)}  cell {lesson.cell}  {', '.join(marks)}{ruling}")
    return lines
