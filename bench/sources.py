"""Random tables, whole and damaged, for `bench.faults` and for the tests of sources.

Every text says whose it is (`signed`), so that of any row that comes out can be asked whether it is under its
own user's id. A generator takes `random.Random`, which hypothesis has one of, too (`randoms`).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

Row = dict[str, Any]
WHOS = ("ada", "Ben", "Čeněk", "0")
FORMATS = ("parquet", "csv", "tsv", "jsonl", "json", "csv.gz", "tsv.gz", "jsonl.gz", "json.gz")
# what tables stumble over: quotes, separators, line ends, other scripts, what looks like a row
PIECES = ('"', '""', ",", "\t", "\n", "\r\n", "'", "\\", "{", "}", "é", "日本", " ", "x")
STOLEN = "\nada,2020-01-01,T,not hers\n"


def row(number: int = 1, who: str = "a", **changes: Any) -> Row:
    """A row of a table that nothing is wrong with."""
    when = f"2020-01-{number:02d}"
    return {"who": who, "when": when, "title": f"T{number}", "text": f"text {number} of {who}"} | changes


def table(chance: Random, most: int = 6) -> list[Row]:
    """Good rows, each text beginning with its user and its number."""
    found = []
    for number in range(1, chance.randint(1, most) + 1):
        who = chance.choice(WHOS)
        found.append(row(number, who, title=prose(chance), text=signed(who, number, prose(chance))))
    return found


def prose(chance: Random) -> str:
    """A short text of pieces that tables stumble over."""
    return "(" + "".join(chance.choice((*PIECES, STOLEN)) for _ in range(chance.randint(0, 8))) + ")"


def signed(who: str, number: int, text: str) -> str:
    """A text that says whose it is."""
    return f"{who}#{number}:{text}"


def signer(text: str) -> str:
    """Whose a signed text is."""
    return text.split("#", 1)[0]


def canonical(text: str) -> str:
    """All that may happen to a text of a table that is in NFC already."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows of equal keys in the format that the name ends in."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        return path
    if name.endswith((".csv", ".tsv")):
        file = io.StringIO(newline="")
        dialect = "excel" if name.endswith(".csv") else "excel-tab"
        writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)
        text = file.getvalue()
    elif name.endswith(".jsonl"):
        text = "".join(json.dumps(one) + "\n" for one in rows)
    else:
        text = json.dumps(list(rows), indent=1)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)
    return path


# --- damage -----------------------------------------------------------------------------------------------


def flipped(data: bytes, chance: Random, flips: int) -> bytes:
    """Some bytes with a bit turned each."""
    found = bytearray(data)
    for _ in range(flips):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def cut(data: bytes, chance: Random) -> bytes:
    """The beginning of a file, as an interrupted copy leaves it."""
    return data[: chance.randrange(len(data))]


def torn(text: str, chance: Random) -> str:
    """A text that has lost some of what holds JSON together."""
    for _ in range(chance.randint(1, 4)):
        places = [place for place, character in enumerate(text) if character in '"{},:\n']
        place = chance.choice(places)
        text = text[:place] + text[place + 1 :]
    return text


def _a_little_flipped(data: bytes, chance: Random) -> bytes:
    return flipped(data, chance, chance.randint(1, 3))


def _at_its_end(data: bytes, chance: Random) -> bytes:
    """A few flips in the part of a parquet file that says where everything lies."""
    return data[:-600] + flipped(data[-600:], chance, chance.randint(1, 3))


PARQUET: tuple[Callable[[bytes, Random], bytes], ...] = (cut, _a_little_flipped, _at_its_end)
