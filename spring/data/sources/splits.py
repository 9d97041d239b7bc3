"""The files of a benchmark in the order of its splits: train, validation, test."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from spring.data.rows import SourceError
from spring.data.sources.formats.record import Part

_SPLIT = re.compile(r"(?:^|/)(train|validation|valid|val|dev|test)(?=[-_./]|$)")
_ORDER = ("train", "validation", "valid", "val", "dev", "test")
_PIECE = re.compile(r"^(?P<of>.*?)-?(?P<number>\d{5})-of-(?P<count>\d{5})")  # train-00000-of-00004.parquet


def find_splits(folder: Path, name: str, *, ending: str, key: str) -> list[Part]:
    """Files of `folder/name`, anywhere below, or of `folder` itself, whose names end in `ending`.

    By split, then by name. Raises SourceError, which names the parameter `key`, if there is none or if one of
    a split's pieces is missing.
    """
    if not folder.is_dir():
        raise SourceError(f"{key}: {folder} is no folder (seen from {Path.cwd()})")
    inside = sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())
    named = [path for path in inside if name in path.relative_to(folder).parts[:-1]]
    above = {path.relative_to(folder).parts[0] for path in inside if path.parent != folder}
    others = sorted(above - set(_ORDER))
    found = named or ([] if others else inside)
    parts = [Part(path, path.relative_to(folder).as_posix(), {}) for path in found]
    unknown = [part.name for part in parts if _split_of(part) is None]
    if not parts or unknown:
        there = f"; there are the folders {', '.join(others[:20])}" if others else ""
        why = f"{unknown[0]} is of no split: name it train, val or test" if unknown else f"no *{ending} files"
        raise SourceError(
            f"{key}: {folder} has for {name} {why}{there}. Fetch it again, or name another folder"
        )
    _check_pieces(parts, key)
    return sorted(parts, key=lambda part: (_ORDER.index(_split_of(part) or ""), part.name))


def _split_of(part: Part) -> str | None:
    """The split that a file's name says, or the nearest of its folders."""
    found = _SPLIT.findall(part.name)
    return found[-1] if found else None


def _check_pieces(parts: list[Part], key: str) -> None:
    """Half of a download is no split."""
    numbers: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for part in parts:
        if piece := _PIECE.match(part.path.name):
            numbers[part.path.parent, piece["of"], int(piece["count"])].add(int(piece["number"]))
    for (folder, of, count), there in numbers.items():
        if missing := sorted(set(range(count)) - there):
            raise SourceError(
                f"{key}: {folder} has {len(there)} of the {count} files of {of}, and lacks number "
                f"{missing[0]:05}: fetch it again"
            )
