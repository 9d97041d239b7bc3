"""Which version of a user answers: publishing, refusing, going back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spring.live.aliases import Aliases, Lesson, Lessons, Served, Version, VersionError, lesson_at

USERS = ("ann", "bob", "cem")


def lessons(**periods: list[int]) -> Lessons:
    """Lessons of users, by their periods; a cell is called as its version."""
    return {user: tuple(Lesson(t, f"{user}-{t}") for t in found) for user, found in periods.items()}


def live(aliases: Aliases) -> dict[str, tuple[int | None, int | None]]:
    """User -> periods of `live` and `previous`."""
    return {
        user: (one.live and one.live.period, one.previous and one.previous.period)
        for user, one in aliases.users.items()
    }


def test_names_of_versions() -> None:
    assert Version.named("ann@3") == Version("ann", 3) and str(Version("ann", 3)) == "ann@3"
    assert Version.named("ann@home.org@12") == Version("ann@home.org", 12)
    for wrong in ("ann", "@3", "ann@", "ann@x", "ann@-1"):
        with pytest.raises(VersionError, match="they are called USER@PERIOD"):
            Version.named(wrong)


def test_a_version_is_named_by_the_newest_lesson() -> None:
    """ann has news in 1 and 3: what she has after 2 is ann@1."""
    known = lessons(ann=[1, 3])
    found = {t: lesson_at(Version("ann", t), known).period for t in (1, 2, 3, 7)}
    assert found == {1: 1, 2: 1, 3: 3, 7: 3}
    with pytest.raises(VersionError, match="there is no ann@0; the first version of ann is ann@1"):
        lesson_at(Version("ann", 0), known)
    with pytest.raises(VersionError, match=r"nobody is called anna; did you mean ann\?"):
        lesson_at(Version("anna", 1), known)


def test_news_are_published_and_what_was_refused_is_not_offered_again() -> None:
    first = Aliases().publish_news(lessons(ann=[0], bob=[0]))
    second = first.publish_news(lessons(ann=[0, 1], bob=[0], cem=[1]), withheld=["ann", "cem"])
    assert live(second) == {"ann": (0, None), "bob": (0, None), "cem": (None, None)}
    third = second.publish_news(lessons(ann=[0, 1], bob=[0], cem=[1]))  # nothing is new: no verdict counts
    assert third == second
    fourth = third.publish_news(lessons(ann=[0, 1, 2], bob=[0], cem=[1, 2]))
    assert live(fourth) == {"ann": (2, 0), "bob": (0, None), "cem": (2, None)}


def test_back_by_steps_and_to_a_period() -> None:
    """bob's lesson of 2 was refused: before 3 he was served that of 1."""
    now = Aliases()
    for t in range(4):
        now = now.publish_news(lessons(bob=list(range(t + 1))), withheld=["bob"] if t == 2 else [])
    assert live(now) == {"bob": (3, 1)}
    assert live(now.roll_back(["bob"])) == {"bob": (1, 0)}
    assert live(now.roll_back(["bob"], to=2)) == {"bob": (1, 0)}
    assert live(now.roll_back(["bob"]).roll_back(["bob"])) == {"bob": (0, None)}
    with pytest.raises(VersionError, match="bob: nothing was served before bob@0"):
        now.roll_back(["bob"], to=0).roll_back(["bob"])
    assert now.roll_back(["bob"], to=3) == now


def test_one_user_who_cannot_go_back_holds_all() -> None:
    now = Aliases().publish_news(lessons(ann=[0])).publish_news(lessons(ann=[0, 2], bob=[2]))
    with pytest.raises(VersionError, match="bob: nothing was served before bob@2"):
        now.roll_back(["ann", "bob"], to=1)
    with pytest.raises(VersionError, match=r"nobody is called bop; did you mean bob\?"):
        now.roll_back(["ann", "bop"])
    assert live(now.roll_back_all(1)) == {"ann": (0, None), "bob": (2, None)}  # bob came later


def test_after_a_way_back_only_a_new_lesson_is_published() -> None:
    known = lessons(ann=[0, 1])
    back = Aliases().publish_news(lessons(ann=[0])).publish_news(known).roll_back(["ann"])
    assert back.publish_news(known) == back
    assert live(back.publish_news(lessons(ann=[0, 1, 4]))) == {"ann": (4, 0)}
    assert live(back.publish({"ann": known["ann"][1]})) == {"ann": (1, 0)}
    assert back.changed(back.publish({"ann": known["ann"][1]})) == ["ann"]


def test_what_is_learned_anew_is_news_and_old_cells_are_forgotten() -> None:
    old = Aliases().publish_news(lessons(ann=[0])).publish_news(lessons(ann=[0, 1]))
    anew = {"ann": (Lesson(0, "other-0"), Lesson(1, "other-1"))}
    assert old.publish_news(anew).users["ann"] == Served((Lesson(1, "other-1"),), Lesson(1, "other-1"))


CALENDAR = st.lists(  # of each period: who has news, and who of them is refused
    st.dictionaries(st.sampled_from(USERS), st.booleans(), max_size=3), min_size=1, max_size=8
)


@given(CALENDAR, st.integers(0, 8))
def test_any_way_back_leads_to_what_was_live_then(calendar: list[dict[str, bool]], to: int) -> None:
    """Of every user: rolled back to a period, live is what was live after it."""
    known: dict[str, list[int]] = {}
    now, then = Aliases(), dict[int, Aliases]()
    for t, news in enumerate(calendar):
        for user in news:
            known.setdefault(user, []).append(t)
        after = now.publish_news(lessons(**known), [user for user, refused in news.items() if refused])
        assert after.publish_news(lessons(**known)) == after  # twice is once
        now = then[t] = after
    to = min(to, len(calendar) - 1)
    for user, one in now.users.items():
        was = then[to].users.get(user, Served()).live
        assert one.back_to(to).live == was
        if was is not None:
            assert now.roll_back([user], to).of(user).live == was
        assert now.roll_back_all(to).of(user).live == (was or one.live)
    assert now.roll_back_all(to).roll_back_all(to) == now.roll_back_all(to)
