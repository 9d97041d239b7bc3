"""Sources under damage, for `bench.faults`: random tables, whole or damaged, read as the stage `ingest` does.

What must hold of every file: it is read or refused by name; rows read = kept + quarantined; a row that is
kept is under its own user's id; and of a file that is whole every text comes out as it went in. Parquet that
polars writes has no sums to check, so that nobody can notice a bit that is turned inside a name or a text:
there it is the counts, and that no damage ends in a traceback or a dead process.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench.sources import FORMATS, PARQUET, Row, canonical, cut, signed, signer, table, torn, write_table
from spring.data.checking import Checked, check_rows
from spring.data.rows import RawRow, SourceError
from spring.data.sources import table as tables
from spring.data.sources.table import TableSource

TEXTS = [name for name in FORMATS if name != "parquet"]
STRAY = '\nada,2020-01-01,T,"5 inches'  # a line whose quote is never meant to close


def read(path: Path) -> Checked:
    """The table's rows, as the stage checks them; `SourceError` where it is refused."""
    columns = {
        "path": str(path), "task": "x", "user_id": "who", "interaction_id": None, "response": "text",
        "timestamp": "when", "year": None, "month": None, "query": {"TITLE": "title"}, "rating": None,
    }  # fmt: skip
    rows = list(tables.read(TableSource.model_validate(columns)))
    checked = check_rows(rows, min_chars=1, max_chars=10**9)
    assert checked.read == sum(isinstance(one, RawRow) for one in rows), "rows that are not counted"
    return checked


def holds(checked: Checked, rows: list[Row], whole: bool, sums: bool) -> bool:
    """Whether what came out may come out."""
    kept, bad = checked.interactions, checked.quarantine
    said = sorted(kept.select("user_id", "response").iter_rows())
    own = not sums or all(signer(text) in (who, text) for who, text in said)
    same = said == sorted((one["who"], canonical(one["text"])) for one in rows)
    return own and checked.read == kept.height + bad.height and (same or not whole)


def outcome(path: Path, rows: list[Row], *, whole: bool, sums: bool = True) -> str:
    """What became of a file, in a word; wrong: what must not be. `sums`: whether damage can be noticed."""
    try:
        checked = read(path)
    except SourceError as error:
        return "refused" if str(path) in str(error) and not whole else "wrong"
    if not holds(checked, rows, whole, sums):
        return "wrong"
    return "read in part" if checked.quarantine.height or checked.read < len(rows) else "read"


def fuzz_tables(chance: Random, folder: Path, files: int) -> Counter[str]:
    """Tables of text: a third whole, the others cut, with a stray quote, or without some of JSON's marks."""
    found = Counter[str]()
    for number in range(files):
        rows, format = table(chance, most=20), chance.choice(TEXTS)
        path = write_table(folder / f"{number}.{format}", rows)
        kind = chance.choice(("whole", "cut", "torn"))
        if kind == "cut":
            path.write_bytes(cut(path.read_bytes(), chance))
        elif kind == "torn" and format in ("json", "jsonl"):
            path.write_bytes(torn(path.read_bytes().decode(), chance).encode())
        elif kind == "torn" and format == "csv":
            lines = path.read_bytes().decode().split("\n")
            place = chance.randrange(1, len(lines))
            inside = (
                "\n".join(lines[:place]).count('"') % 2
            )  # of a text of many lines: it may be no table any more
            path.write_bytes(("\n".join(lines) + ("" if inside else STRAY)).encode())
        else:
            kind = "whole"
        found[outcome(path, rows, whole=kind == "whole")] += 1
        path.unlink()
    return found


def fuzz_parquet(chance: Random, folder: Path, files: int) -> Counter[str]:
    """Parquet files, damaged somewhere, or where they say what lies where."""
    found = Counter[str]()
    for number in range(files):
        rows = [row for _ in range(8) for row in table(chance)]
        rows = [one | {"text": signed(one["who"], n, f"text {n}")} for n, one in enumerate(rows)]
        path = write_table(folder / f"{number}.parquet", rows)
        path.write_bytes(chance.choice(PARQUET)(path.read_bytes(), chance))
        found[outcome(path, rows, whole=False, sums=False)] += 1
        path.unlink()
    return found


KINDS = {"tables": (fuzz_tables, 40), "parquet": (fuzz_parquet, 4)}  # files of one try


def main() -> None:
    """KIND TRIES SEED: prints outcome -> how many files. In a process of its own, since it uses polars."""
    kind, tries, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    fuzz, files = KINDS[kind]
    with TemporaryDirectory() as folder:
        print(json.dumps(fuzz(Random(seed), Path(folder), tries * files)))


if __name__ == "__main__":
    main()
