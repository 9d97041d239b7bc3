"""Which segment holds a cell: what a dict would say, in a fifth of the memory."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

import pytest

from spring.store import where as module
from spring.store.where import Where, packed_keys, unpacked_keys


def key(number: int) -> str:
    """A key; some begin or end with zeros, which numpy's bytes do not keep."""
    found = hashlib.sha256(str(number).encode()).hexdigest()
    if number % 5 == 0:
        return found[:60] + "0000"
    return "0" * 64 if number == 77 else f"00{found[2:]}" if number % 7 == 0 else found


def test_keys_are_what_they_were() -> None:
    keys = [key(number) for number in range(100)]
    assert unpacked_keys(packed_keys(keys)) == keys


@pytest.mark.parametrize("lately", [0, 8, 4096])
def test_it_says_what_a_dict_would(lately: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments come, alone and many at once, go, and one takes a cell over from another."""
    monkeypatch.setattr(module, "LATELY", lately)
    chance, where, plain = random.Random(lately), Where(), dict[str, str]()
    for step in range(300):
        what = chance.random()
        if what < 0.5:
            segments = [
                (f"{step}-{n}", [key(chance.randrange(400)) for _ in range(chance.choice([1, 3, 20]))])
                for n in range(chance.choice([1, 3]))
            ]
            where.add((name, packed_keys(keys)) for name, keys in segments)
            for name, keys in segments:
                for one in keys:
                    plain.setdefault(one, name)
        elif what < 0.7:
            gone = set(chance.sample(sorted(set(plain.values())), min(2, len(set(plain.values())))))
            lost = where.drop(gone | {"unknown"})
            assert set(unpacked_keys(lost)) == {one for one, name in plain.items() if name in gone}
            assert not len(lost) or not where.has_all(lost)
            plain = {one: name for one, name in plain.items() if name not in gone}
        else:
            one, name = key(chance.randrange(400)), f"{step}"
            if what < 0.85:
                where[one] = plain[one] = name
            else:
                assert where.setdefault(one, name) == plain.setdefault(one, name)
        assert sorted(where) == sorted(plain) and where.names() == set(plain.values())
        for one in map(key, range(0, 400, 9)):
            assert where.get(one) == plain.get(one) and (one in where) == (one in plain)
        assert where.has_all(packed_keys(plain))
        asked = [key(chance.randrange(500)) for _ in range(30)]
        found: dict[str, list[str]] = {}
        for one in filter(plain.__contains__, asked):
            found.setdefault(plain[one], []).append(one)
        assert where.by_segment(asked) == found
        assert where.has_all(packed_keys(asked)) == (sum(map(len, found.values())) == len(asked))
    with pytest.raises(KeyError):
        where["f" * 64]


def test_a_cell_takes_few_bytes() -> None:
    """Many at once, and then a few at a time, as chunks are computed."""
    keys = packed_keys(hashlib.sha256(str(number).encode()).hexdigest() for number in range(60_000))
    tracemalloc.start()
    try:
        where, before = Where(), tracemalloc.get_traced_memory()[0]
        where.add([("all", keys[:50_000])])
        for start in range(50_000, 60_000, 16):
            where.add([(f"{start}", keys[start : start + 16])])
        each = (tracemalloc.get_traced_memory()[0] - before) / len(keys)
    finally:
        tracemalloc.stop()
    assert where.has_all(keys) and each < 60
