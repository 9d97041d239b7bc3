"""Cell stores that share a remote alone: two folders, one place of fsspec's between them."""

from __future__ import annotations

import pickle
import shutil
import time
from pathlib import Path

import pytest

from spring.store import adopting, cells, far, shared
from spring.store.adopting import NEW, check_remotes, store_of, take_place
from spring.store.cells import CellStore, StoreError
from spring.store.keys import cell_key
from spring.store.remote import REMOTE
from spring.store.segments import is_whole, opened
from spring.store.shared import Shared, open_store

KEYS = [cell_key("spring.code", number=i) for i in range(6)]
LATER = 2 * far.LATE


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place."""
    return f"file://{tmp_path}/far" if request.param == "file" else f"memory://{tmp_path.name}/{tmp_path}"


@pytest.fixture
def here(url: str, tmp_path: Path) -> Shared:
    return Shared(tmp_path / "here", url)


@pytest.fixture
def there(here: Shared, tmp_path: Path) -> Shared:
    return Shared(tmp_path / "there", here.remote.url)


def write(store: CellStore, keys: list[str], value: str = "") -> None:
    with store.batch() as batch:
        for key in keys:
            batch[key] = {"value": (value + key).encode()}


def segments_of(store: Shared) -> list[str]:
    return sorted(store.remote.listed("segments"))


def damage(store: Shared, name: str, place: int = -1) -> bytes:
    """Turns a byte of an object, over the one that is there; what it was."""
    whole = store.remote.read(f"segments/{name}")
    turned = bytearray(whole)
    turned[place] ^= 1
    store.remote.write(f"segments/{name}", bytes(turned))
    return whole


def age(patch: pytest.MonkeyPatch) -> None:
    """As if all that is there had been there for long."""
    now = time.time
    patch.setattr(far.time, "time", lambda: now() + LATER)


# --- sharing ----------------------------------------------------------------------------------------------


def test_what_one_writes_the_other_finds_with_the_same_bytes(
    here: Shared, there: Shared, tmp_path: Path
) -> None:
    write(here, KEYS[:2])
    write(there, KEYS[2:3])
    assert there.missing(KEYS) == KEYS[3:] and here.missing(KEYS) == KEYS[3:]
    assert (
        [path.name for path in here.segments()]
        == [path.name for path in there.segments()]
        == segments_of(here)
    )
    assert all(is_whole(path) for store in (here, there) for path in store.segments())
    assert there.read_some(KEYS[0], ()) == here.read_some(KEYS[2], ()) == ({}, {"value": 64})
    assert there.read(KEYS[0]) == {"value": KEYS[0].encode()}
    linked = there.link(KEYS[:3], tmp_path / "data")
    assert all((tmp_path / "data" / name).exists() for name in linked.values())
    assert set(here) == set(there) == set(KEYS[:3])
    assert not any(there.remote.listed(name) for name in ("claims", "writing", "gone"))


def test_only_what_is_read_is_fetched_and_a_header_once(
    here: Shared, there: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        write(here, [key])
    read: list[str] = []
    before = there.remote.read
    monkeypatch.setattr(there.remote, "read", lambda name, size=None: read.append(name) or before(name, size))
    assert there.read(KEYS[3]) == {"value": KEYS[3].encode()}
    assert len(there.segments()) == 1 and len(read) == 6
    assert there.missing(KEYS[:2]) == [] and len(there.segments()) == 3 and len(read) == 6
    with pytest.raises(KeyError):
        there.read(cell_key("spring.code", number=-1))


def test_a_segment_that_is_named_is_known_without_a_list(here: Shared, there: Shared) -> None:
    """Its cells can be read; one that is not there, or not whole, is as if it had not been named."""
    write(here, KEYS[:1])
    write(here, KEYS[1:2])
    first, second = (here.holding([key])[0] for key in KEYS[:2])
    damage(here, second)
    there.learn([first, "0" * 64 + ".safetensors"])
    assert list(there.far.entries) == [first]
    there.remote.listed = lambda folder: pytest.fail("listed")  # type: ignore[method-assign]
    assert there.missing(KEYS[:1]) == [] and there.read(KEYS[0]) == here.read(KEYS[0])


def test_long_headers_are_read_in_two(here: Shared, there: Shared) -> None:
    many = [cell_key("spring.code", number=i) for i in range(600)]
    write(here, many)
    [entry] = here.remote.listed("segments").values()
    assert entry.size > 2 * far.GUESS
    assert there.missing(many) == []


def test_a_cell_that_is_there_already_is_kept(here: Shared, there: Shared) -> None:
    with there.batch() as batch:
        write(here, KEYS[:1], "first ")
        batch[KEYS[0]] = {"value": b"second"}
    assert there.read(KEYS[0]) == here.read(KEYS[0]) == {"value": b"first " + KEYS[0].encode()}
    assert len(segments_of(here)) == 1


def test_what_could_not_be_put_is_put_when_it_is_opened_next(
    here: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ConnectionError("reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(type(here.remote.fs), "put_file", lost)
        with pytest.raises(
            StoreError, match=f"^{REMOTE} is {here.remote.url}: ConnectionError: reset by peer: see to"
        ):
            write(here, KEYS[:2])
    assert here.read(KEYS[0]) and segments_of(here) == [], "kept here"
    write(CellStore(here.root), KEYS[2:3])  # while no remote was named
    again = Shared(here.root, here.remote.url)
    assert len(segments_of(here)) == 2 and again.missing(KEYS) == KEYS[3:]
    assert "putting into" in capsys.readouterr().err
    assert Shared(tmp_path / "new", here.remote.url).missing(KEYS) == KEYS[3:]
    Shared(here.root, here.remote.url)
    assert capsys.readouterr().err == ""


def test_another_process_is_sent_the_url_and_uses_its_own_folder(
    here: Shared, there: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, KEYS[:1])
    sent = pickle.dumps(here.read)
    monkeypatch.setattr(shared, "STORES", {here.remote.url: there})
    assert pickle.loads(sent)(KEYS[0]) == here.read(KEYS[0]) and len(there.segments()) == 1
    monkeypatch.setattr(shared, "STORES", {})
    assert pickle.loads(sent).__self__.root == here.root.resolve()


# --- packing ----------------------------------------------------------------------------------------------


def test_packed_segments_take_the_place_of_small_ones_later(
    here: Shared, there: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, key in enumerate(KEYS):
        write((here, there)[number % 2], [key])
    small = set(segments_of(here))
    reader = Shared(tmp_path / "reader", here.remote.url)
    assert set(reader) == set(KEYS), "it has seen the small ones"
    here.pack(KEYS)
    [packed] = set(segments_of(here)) - small
    assert [path.name for path in here.segments()] == [packed] and small < set(segments_of(here))
    assert reader.read(KEYS[0]) == {"value": KEYS[0].encode()}, "of a small one"
    fresh = Shared(tmp_path / "fresh", here.remote.url)
    assert fresh.missing(KEYS) == [] and [path.name for path in fresh.segments()] == [packed]
    there.pack(KEYS)
    assert set(segments_of(here)) == small | {packed}, "what is packed is not packed again"
    assert [path.name for path in there.segments()] == [packed], "nor kept in small pieces"
    age(monkeypatch)
    here.pack(KEYS)
    assert segments_of(here) == [packed]
    assert reader.read(KEYS[3]) == {"value": KEYS[3].encode()} and not reader.missing(KEYS)
    assert (reader.root / "segments" / packed).exists()


@pytest.mark.parametrize("way", ["read", "link"])
def test_a_segment_that_a_neighbour_packs_away_is_looked_for_again(
    way: str, here: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment before it is read: it is gone here, and still there."""
    write(here, KEYS[:1])
    write(here, KEYS[1:2])
    reader = Shared(here.root, here.remote.url)
    assert not reader.missing(KEYS[:2])
    bring, calls = reader._bring, []

    def then_packed(keys: list[str]) -> None:
        bring(keys)
        calls.append(keys)
        if len(calls) == 1:
            here.pack(KEYS[:2])

    monkeypatch.setattr(reader, "_bring", then_packed)
    if way == "read":
        assert reader.read(KEYS[0]) == {"value": KEYS[0].encode()}
    else:
        found = reader.link(KEYS[:2], tmp_path / "data")
        assert all(is_whole(tmp_path / "data" / name) for name in found.values())
    assert len(calls) == 2


def test_of_equal_segments_one_stays() -> None:
    found = far.packed({"a": ["1", "2"], "b": ["2", "1"], "c": ["1"], "d": ["3"], "e": []})
    assert found == {"a", "c"}


def test_only_small_ones_of_the_keys_asked_for_are_packed(
    here: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "LIMIT", 3000)
    monkeypatch.setattr(shared, "LIMIT", 3000)
    for key in KEYS:
        write(here, [key])
    here.pack(KEYS[:4])
    age(monkeypatch)
    here.pack(KEYS[:4])
    left = sorted(here._cells(name) for name in segments_of(here))
    assert left == sorted([KEYS[:4], KEYS[4:5], KEYS[5:]]) and set(here) == set(KEYS)


# --- damage -----------------------------------------------------------------------------------------------


def test_any_flipped_byte_of_an_object_is_refused_and_mended(
    here: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Header or cell: what is not whole is never given out; whole neighbours are kept."""
    write(here, KEYS[:2])
    [name] = segments_of(here)
    whole = here.remote.read(f"segments/{name}")
    for number, place in enumerate(
        (12, 100, whole.index(KEYS[1].encode(), len(whole) - 128), len(whole) - 1)
    ):
        here.remote.write(f"segments/{name}", whole)
        damage(here, name, place)
        reader = Shared(tmp_path / f"reader{number}", here.remote.url)
        lacking = reader.missing(KEYS[:2])
        assert lacking and name not in segments_of(here)
        said = capsys.readouterr().err
        assert f"{here.remote.url}/segments/{name} is not what was written" in said
        assert len(list((reader.root / "bad").iterdir())) == 1
        write(reader, lacking)
        assert [reader.read(key)["value"].decode() for key in KEYS[:2]] == KEYS[:2]
        for file in segments_of(here):
            here.remote.remove([f"segments/{file}"])


def test_a_segment_that_is_cut_is_not_there_until_it_is_whole(
    here: Shared, there: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a file system that is none of objects writes it, or for ever if the writer was killed."""
    write(here, KEYS[:2])
    [name] = segments_of(here)
    whole = here.remote.read(f"segments/{name}")
    for length in (0, 5, 60, len(whole) - 1):
        here.remote.write(f"segments/{name}", whole[:length])
        assert there.missing(KEYS[:2]) == KEYS[:2] and segments_of(here) == [name]
    here.far.put(here.root / "segments" / name)
    assert there.missing(KEYS[:2]) == []
    here.remote.write(f"segments/{name}", whole[:60])
    age(monkeypatch)
    assert (
        Shared(tmp_path / "late", here.remote.url).missing(KEYS[:2]) == KEYS[:2] and segments_of(here) == []
    )


def test_what_is_damaged_here_is_fetched_again(here: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, KEYS[:2])
    [segment] = here.segments()
    content = segment.read_bytes()
    segment.unlink()
    segment.write_bytes(content[:-3] + b"xyz")
    opened.cache_clear()
    again = Shared(here.root, here.remote.url)
    assert again.missing(KEYS[:2]) == [] and is_whole(segment) and len(segments_of(here)) == 1
    assert "is damaged and fetched again" in capsys.readouterr().err


def test_objects_are_checked_and_put_again_or_set_aside(here: Shared, there: Shared) -> None:
    write(here, KEYS[:2])
    [name] = segments_of(here)
    assert here.is_whole_there(name)
    whole = damage(here, name)
    assert not here.is_whole_there(name) and here.remote.read(f"segments/{name}") == whole
    damage(here, name)
    assert not there.is_whole_there(name) and name not in segments_of(here)
    assert len(there.missing(KEYS[:2])) == 1, "the whole neighbour was kept"


# --- forgetting -------------------------------------------------------------------------------------------


def test_what_nobody_asks_for_is_gone_there_too(
    here: Shared, there: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(REMOTE, here.remote.url)
    write(here, KEYS[:2])
    write(there, KEYS[2:3])
    (here.root / NEW).mkdir()
    new = store_of(here.root)
    assert isinstance(new, adopting.Adopting) and isinstance(new.old, Shared)
    assert new.missing([*KEYS[1:3], KEYS[4]]) == [KEYS[4]], "taken over, also what only the remote has"
    write(new, [KEYS[4]])
    assert take_place(here.root) == 1
    left = open_store(here.root)
    assert sorted(left) == sorted([KEYS[1], KEYS[2], KEYS[4]]) and not left.missing(list(left))
    objects = b"".join(here.remote.read(f"segments/{name}") for name in segments_of(here))
    assert KEYS[0].encode() not in objects and objects
    assert {path.name for path in left.segments()} == set(segments_of(here))
    assert KEYS[2] in CellStore(there.root), "not opened since"
    again = Shared(there.root, here.remote.url)
    assert [path.name for path in again.segments()] == [] and set(again) == set(left)
    assert KEYS[0].encode() not in b"".join(f.read_bytes() for f in there.root.rglob("*") if f.is_file())
    write(again, KEYS[:1])  # another project may compute it again
    assert KEYS[0] in Shared(there.root, here.remote.url)


def test_a_swap_that_was_stopped_is_finished(here: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REMOTE, here.remote.url)
    write(here, KEYS[:1])
    write(here, KEYS[1:2])
    (here.root / NEW).mkdir()
    assert store_of(here.root).missing(KEYS[:1]) == []
    for name in ("write", "remove"):
        with monkeypatch.context() as patch:
            patch.setattr(
                f"spring.store.remote.Remote.{name}", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
            )
            with pytest.raises(KeyboardInterrupt):
                take_place(here.root)
        assert (here.root / NEW).exists()
    assert take_place(here.root) == 1 and set(Shared(here.root, here.remote.url)) == {KEYS[0]}


def test_what_is_still_there_in_spite_of_it_is_told(here: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs says nothing of what it may not delete."""
    write(here, KEYS[:1])
    monkeypatch.setattr(type(here.remote), "remove", lambda *_: None)
    with pytest.raises(StoreError, match="1 segments cannot be removed: see to rights"):
        here.keep_only([])


def test_a_remote_that_is_not_named_any_more_is_asked_for(
    here: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REMOTE, raising=False)
    with pytest.raises(
        StoreError, match=f"were put into {here.remote.url}, and must be forgotten there: set {REMOTE}"
    ):
        check_remotes(here.root)
    monkeypatch.setenv(REMOTE, here.remote.url)
    check_remotes(here.root)
    monkeypatch.delenv(REMOTE)
    shutil.rmtree(here.far.place)
    check_remotes(here.root)


def test_nothing_is_kept_of_a_place_but_its_url(here: Shared) -> None:
    write(here, KEYS)
    assert (here.far.place / "url").read_text() == here.remote.url
    assert {file.name for file in (here.far.place / "headers").iterdir()} == set(segments_of(here))
