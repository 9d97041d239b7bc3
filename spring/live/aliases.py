"""Versions of adapters, and the aliases `live` and `previous` of every user, as values that never change.

A version is named USER@PERIOD after the period of the lesson that made it. What was served of a user is a
trail, oldest first: its end is `live`, what stands before that `previous`. Publishing adds to the trail,
rolling back cuts it. A lesson that was withheld is `newest` all the same: it is not offered twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from spring.engine.strict import nearest


class VersionError(ValueError):
    """A user, a version or a way back that is not there; the message says what is."""


@dataclass(frozen=True, order=True)
class Version:
    """A user's adapter after a period."""

    user: str
    period: int

    def __str__(self) -> str:
        return f"{self.user}@{self.period}"

    @classmethod
    def named(cls, name: str) -> Version:
        """The version that USER@PERIOD names; a user's id may hold an @ of its own."""
        user, _, period = name.rpartition("@")
        if not user or not period.isdecimal():
            raise VersionError(f"{name} names no version; they are called USER@PERIOD, as in ann@3")
        return cls(user, int(period))


@dataclass(frozen=True, order=True)
class Lesson:
    """What made a version: the period, and the cell of the adapter."""

    period: int
    cell: str


Lessons = Mapping[str, tuple[Lesson, ...]]  # of every user, oldest first


@dataclass(frozen=True)
class Served:
    """What was served of a user, oldest first, and the newest lesson that was offered."""

    trail: tuple[Lesson, ...] = ()
    newest: Lesson | None = None

    @property
    def live(self) -> Lesson | None:
        """What answers; null: nothing was published yet."""
        return self.trail[-1] if self.trail else None

    @property
    def previous(self) -> Lesson | None:
        """What one step back leads to; null: there is none."""
        return self.trail[-2] if len(self.trail) > 1 else None

    def publish(self, lesson: Lesson) -> Served:
        """With `lesson` as `live`."""
        return self if lesson == self.live else replace(self, trail=(*self.trail, lesson))

    def back_to(self, period: int) -> Served:
        """As it was served after `period`: with an empty trail where that was nothing."""
        trail = self.trail
        while trail and trail[-1].period > period:
            trail = trail[:-1]
        return replace(self, trail=trail)

    def of(self, lessons: Collection[Lesson]) -> Served:
        """Without what is no longer there: with other code or settings all is learned anew."""
        return replace(self, trail=tuple(lesson for lesson in self.trail if lesson in lessons))

    def as_in(self, lessons: Collection[Lesson]) -> Served:
        """With these lessons in place of those of the same periods."""
        now = {lesson.period: lesson for lesson in lessons}
        trail = tuple(now[lesson.period] for lesson in self.trail if lesson.period in now)
        return Served(trail, now.get(self.newest.period) if self.newest else None)


@dataclass(frozen=True)
class Aliases:
    """What is served of every user."""

    users: Mapping[str, Served] = field(default_factory=dict)

    def of(self, user: str) -> Served:
        """What is served of a user; `VersionError` for one who is not known."""
        if user not in self.users:
            near = nearest(user, self.users)
            raise VersionError(f"nobody is called {user}{near and f'; {near}'}")
        return self.users[user]

    def news(self, lessons: Lessons) -> dict[str, Lesson]:
        """The newest lesson of every user to whom it was not offered yet."""
        newest = {user: found[-1] for user, found in lessons.items() if found}
        return {
            user: lesson for user, lesson in newest.items() if self.users.get(user, Served()).newest != lesson
        }

    def publish_news(self, lessons: Lessons, withheld: Collection[str] = ()) -> Aliases:
        """With every user's new lesson as `live`, unless it was withheld; given again, nothing changes."""
        users = dict(self.users)
        for user, lesson in self.news(lessons).items():
            served = replace(users.get(user, Served()).of(lessons[user]), newest=lesson)
            users[user] = served if user in withheld else served.publish(lesson)
        return Aliases(users)

    def publish(self, chosen: Mapping[str, Lesson]) -> Aliases:
        """With these as `live`."""
        return self._with({user: self.of(user).publish(lesson) for user, lesson in chosen.items()})

    def roll_back(self, users: Iterable[str], to: int | None = None) -> Aliases:
        """One step back, or to what was served after the period `to`; `VersionError` beyond the first."""
        found = {}
        for user in users:
            served = self.of(user)
            back = served.back_to(to) if to is not None else replace(served, trail=served.trail[:-1])
            if not back.trail:
                first = f"before {Version(user, served.trail[0].period)}" if served.trail else "so far"
                raise VersionError(f"{user}: nothing was served {first}; nothing is rolled back")
            found[user] = back
        return self._with(found)

    def roll_back_all(self, to: int) -> Aliases:
        """All users to what was served after `to`; those who came later stay as they are."""
        back = {user: served.back_to(to) for user, served in self.users.items()}
        return self._with({user: served for user, served in back.items() if served.trail})

    def without(self, user: str) -> Aliases:
        """As if there never had been such a user."""
        return Aliases({name: served for name, served in self.users.items() if name != user})

    def learned_anew(self, lessons: Lessons) -> Aliases:
        """Every version by the cell that its lesson has now: what was served of each period stays served."""
        return Aliases({user: served.as_in(lessons.get(user, ())) for user, served in self.users.items()})

    def changed(self, other: Aliases) -> list[str]:
        """Users of whom `other` serves another version."""
        return sorted(user for user, served in other.users.items() if served.live != self.of(user).live)

    def _with(self, users: Mapping[str, Served]) -> Aliases:
        return Aliases({**self.users, **users})


def lesson_at(version: Version, lessons: Lessons) -> Lesson:
    """The lesson that a version comes from: the user's last one by then; `VersionError` without one."""
    known = lessons.get(version.user)
    if not known:
        near = nearest(version.user, lessons)
        raise VersionError(f"nobody is called {version.user}{near and f'; {near}'}")
    earlier = [lesson for lesson in known if lesson.period <= version.period]
    if not earlier:
        first = Version(version.user, known[0].period)
        raise VersionError(f"there is no {version}; the first version of {version.user} is {first}")
    return earlier[-1]
