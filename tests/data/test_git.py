"""git: what is cut off a message, who a person is, and that what is read is the repository that was named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.sources import (
    Message,
    call_git,
    check,
    git_of,
    make_repository,
    messages,
    opened_in,
    rows_in,
    said,
    skips_in,
)

from spring.data.rows import SourceError
from spring.data.sources import git
from spring.data.sources.trailers import cut_trailers

TEXT = "It was slow.\n\n"


def commit(name: str, mail: str, number: int) -> Message:
    return Message(name, mail, f"Change {number}\n\nBody number {number}.\n")


# --- trailers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [
        "Solution: close it when the actor ends",
        "Solution: close it when the actor ends, also if the\n  interface has vanished in the meantime",
        "Note: the file must not be shared.",
        "https://example.org/manual/ports.html",
        "Problem: it leaks\nSolution: it does not",
        "Fixes: the crash when the file is empty",
        "Closes: all files at the end",
        "See: the manual of the tool",
        "Link: the library statically",
        "Cc: everybody who asked",
        "Stand-by: the display is off now",
        "Bug: it was one",
        "Refs: they are counted now",
        "Change-Id: how it is computed",
        "  * indented\n  * points",
        "Signed-off-by is what we ask for",
        "Closes: #12\n  * and an indented\n  * list",
    ],
)
def test_text_that_git_takes_for_a_trailer_stays(last: str) -> None:
    assert cut_trailers(TEXT + last + "\n") == TEXT + last
    assert cut_trailers(last) == last.strip()
    # and what is a trailer goes from behind it, and only that
    assert cut_trailers(f"{TEXT}{last}\nSigned-off-by: X <x@x.example>\n") == TEXT + last
    assert cut_trailers(f"{TEXT}{last}\n\nChange-Id: I0123\n") == TEXT + last


@pytest.mark.parametrize(
    "trailer",
    [
        "Signed-off-by: Dev One <dev@one.example>",
        "signed-off-by: dev",
        "Co-authored-by: Ben <ben@one.example>",
        "Co-Authored-By: Ben <ben@one.example>",
        "Reviewed-by: dholmes, stefank",
        "Acked-by: X <x@x.example> # for the driver",
        "Reported-and-tested-by: X <x@x.example>",
        "Weird-but-clear-by: X <x@x.example>",
        "Cc: stable@vger.example # 4.9+",
        "Cc: X <x@x.example>, Y <y@y.example>",
        'Fixes: 0123456789ab ("The one before")',
        "Fixes: #12",
        "Fixes: #12, #13 and #14",
        "Fixes: " + "0123" * 16,
        "Closes: #12\n  #13",
        "Closes: https://bugs.example/12",
        "Bug: ABC-123",
        "Link: https://lore.example/r/1@x",
        "Change-Id: I0123456789abcdef",
        "Message-Id: <1@x.example>",
        "git-svn-id: https://svn.example/trunk@12 0-1-2",
        "(cherry picked from commit 0123456789abcdef)",
        "Signed-off-by: A\n Long Name <a@a.example>",
        "Signed-off-by: A <a@a.example>\nReviewed-by: B <b@b.example>\n\nCc: c@c.example",
    ],
)
def test_known_trailers_go(trailer: str) -> None:
    assert cut_trailers(f"{TEXT}{trailer}\n") == TEXT.strip()
    assert cut_trailers(f"It was slow.\n{trailer}\n") == "It was slow."
    assert cut_trailers(trailer) == ""


def test_signatures_amid_a_squashed_message_go() -> None:
    body = "one\nCo-authored-by: Ben <ben@one.example>\n\ntwo\nReviewed-by: nobody yet\n\nthree\n"
    assert cut_trailers(body) == "one\n\ntwo\nReviewed-by: nobody yet\n\nthree"


@settings(deadline=None, max_examples=15)
@given(made=st.lists(messages(), min_size=1, max_size=8))
def test_bodies_come_out_whole_and_under_their_author(made: list[tuple[Message, str]]) -> None:
    with TemporaryDirectory() as folder:
        items = list(git.read(git_of(make_repository(Path(folder), [message for message, _ in made]))))
    assert sorted((one.user_id, one.response) for one in rows_in(items)) == sorted(
        (message.name, body) for message, body in made
    )
    assert not skips_in(items)


def test_what_is_no_row_is_counted_under_its_name(tmp_path: Path) -> None:
    bare = [
        Message("Ada", "ada@one.example", text)
        for text in ("Subject\n", "Subject\n\nSigned-off-by: Ada <ada@one.example>\n", "S\n\nbody\n")
    ]
    items = list(git.read(git_of(make_repository(tmp_path, bare))))
    assert skips_in(items) == {"commit without a body": 1, "commit with only trailers": 1}
    assert len(rows_in(items)) == 1


# --- persons ----------------------------------------------------------------------------------------------


def people(folder: Path, *authors: tuple[str, str]) -> Counter[str | None]:
    made = [commit(name, mail, number) for number, (name, mail) in enumerate(authors)]
    return Counter(one.user_id for one in rows_in(git.read(git_of(make_repository(folder, made)))))


def test_one_address_is_one_person_by_the_usual_name(tmp_path: Path) -> None:
    authors = [("jdoe", "jdoe@one.example")] * 3 + [("Jordan Doe", "JDoe@one.example")] * 4
    assert people(tmp_path, *authors) == {"Jordan Doe": 7}


def test_of_names_used_equally_often_the_first_stands(tmp_path: Path) -> None:
    authors = [("jdoe", "jdoe@one.example")] * 3 + [("Jordan Doe", "jdoe@one.example")] * 3
    assert people(tmp_path, *authors) == {"Jordan Doe": 6}


@pytest.mark.parametrize("mail", ["", "noreply@github.com", "root@localhost", "you@example.com", "none@none"])
def test_an_address_that_is_nobodys_joins_nobody(tmp_path: Path, mail: str) -> None:
    assert people(tmp_path, ("Ada", mail), ("Ben", mail), ("Ben", mail)) == {"Ada": 1, "Ben": 2}


def test_one_name_with_two_addresses_is_two_persons_in_every_spelling(tmp_path: Path) -> None:
    """Also where the names differ in blanks or Unicode's form alone: the check would make them one."""
    authors = [("Jose\u0301 D", "a@one.example"), ("José  D", "b@one.example"), ("Ben", "c@one.example")]
    found = people(tmp_path, *authors)
    assert len(found) == 3 and sum(str(name).startswith("José D (") for name in found) == 2


def test_the_mailmap_joins_addresses(tmp_path: Path) -> None:
    made = [commit("ada", "old@one.example", 1), commit("Ada L", "new@one.example", 2)]
    make_repository(tmp_path, made)
    (tmp_path / ".mailmap").write_text("Ada Lovelace <new@one.example> <old@one.example>\n")
    assert {one.user_id for one in rows_in(git.read(git_of(tmp_path)))} <= {"Ada L", "Ada Lovelace"}
    assert len({one.user_id for one in rows_in(git.read(git_of(tmp_path)))}) == 1


# --- which repository -------------------------------------------------------------------------------------


@pytest.fixture
def outer(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "outer", [commit("Ada", "ada@one.example", 1)])


def test_what_was_opened_is_told(outer: Path) -> None:
    tip = call_git(outer, "rev-parse", "HEAD").decode().strip()
    assert opened_in(git.read(git_of(outer))) == {"repository": str(outer), "revision": "HEAD", "commit": tip}


@pytest.mark.parametrize("inside", ["empty", "vendor/lib", ".git/hooks"])
def test_a_folder_inside_a_repository_is_refused(outer: Path, inside: str) -> None:
    (outer / inside).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SourceError, match=r"is no repository of its own: git would read .*outer.*submodule"):
        list(git.read(git_of(outer / inside)))


def test_a_submodule_is_read_once_it_is_filled(tmp_path: Path, outer: Path) -> None:
    inner = make_repository(tmp_path / "inner", [commit("Ben", "ben@one.example", 2)])
    call_git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "lib")
    assert said(git.read(git_of(outer / "lib"))) == [("Ben", "Body number 2.")]
    call_git(outer, "submodule", "deinit", "-q", "-f", "lib")
    assert (outer / "lib").is_dir()
    with pytest.raises(
        SourceError, match=r"no repository of its own.*git -C .*outer submodule update --init"
    ):
        list(git.read(git_of(outer / "lib")))


def test_other_forms_of_a_repository_are_read(
    tmp_path: Path, outer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_git(tmp_path, "clone", "-q", "--bare", str(outer), "bare.git")
    call_git(outer, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "main")
    (tmp_path / "link").symlink_to(outer)
    for name in ("bare.git", "tree", "link", "outer/.git"):
        assert said(git.read(git_of(tmp_path / name, "main"))) == [("Ada", "Body number 1.")], name
    monkeypatch.chdir(outer)
    assert said(git.read(git_of(Path()))) == [("Ada", "Body number 1.")]


@pytest.mark.parametrize(
    "name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"]
)
def test_a_hooks_environment_opens_nothing_else(
    tmp_path: Path, outer: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = make_repository(tmp_path / "other", [commit("Eve", "eve@one.example", 9)])
    places = {"GIT_WORK_TREE": other, "GIT_OBJECT_DIRECTORY": other / ".git/objects"}
    monkeypatch.setenv(name, str(places.get(name, other / ".git")))
    assert said(git.read(git_of(outer))) == [("Ada", "Body number 1.")]
    assert os.environ[name], "it is left to others"


def test_commits_are_those_of_their_hashes(
    tmp_path: Path, outer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this copy puts in their place, cuts off before them, or names their authors."""
    make_repository(tmp_path / "two", [commit("Ada", "ada@one.example", n) for n in (1, 2)])
    two = tmp_path / "two"
    tip = call_git(two, "rev-parse", "HEAD").decode().strip()
    other = make_repository(tmp_path / "other", [Message("Eve", "eve@one.example", "S\n\nstolen\n")])
    call_git(two, "fetch", "-q", str(other), "main")
    call_git(two, "replace", tip, "FETCH_HEAD")
    (two / ".git/info").mkdir(exist_ok=True)
    (two / ".git/info/grafts").write_text(f"{tip}\n")
    (tmp_path / "map").write_text("Mallory <m@m.example> <ada@one.example>\n")
    call_git(two, "config", "mailmap.file", str(tmp_path / "map"))
    assert said(git.read(git_of(two))) == [("Ada", "Body number 1."), ("Ada", "Body number 2.")]


def test_other_hashes_and_encodings(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "a", [commit("Ada", "a@one.example", 1)], "--object-format=sha256")
    assert said(git.read(git_of(folder))) == [("Ada", "Body number 1.")]
    call_git(folder, "config", "i18n.logOutputEncoding", "ISO-8859-1")
    call_git(folder, "config", "i18n.commitEncoding", "ISO-8859-1")
    (folder / "message").write_bytes("Größe\n\nDie Größe.\n".encode("latin-1"))
    who = {f"GIT_{role}_{key}": "b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    call_git(folder, "commit", "-q", "--allow-empty", "-F", "message", **who)
    assert ("b", "Die Größe.") in said(git.read(git_of(folder)))


def test_no_git_is_told(outer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="no command git here: install it"):
        list(git.read(git_of(outer)))


def test_checked_rows_tell_what_was_opened(outer: Path) -> None:
    assert check(git.read(git_of(outer, "main"))).opened["revision"] == "main"
