"""Which files a table consists of: one, or those of a folder as Spark, Hive and others write it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from spring.data.rows import Skip, SourceError
from spring.data.sources.formats.record import Part

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def find_parts(path: Path, formats: tuple[str, ...]) -> tuple[str, list[Part], list[Skip]]:
    """The format, the files in the order of their names, and what of a folder is passed over.

    Names that begin with a dot or an underscore are the writers' own notes (`_SUCCESS`, `.crc`): not read and
    not counted, as Spark does it. Raises SourceError if nothing can be read, or files of several formats.
    """
    if not path.exists():
        raise SourceError(f"ingest.table.path: {path} does not exist (seen from {Path.cwd()})")
    if not path.is_dir():
        return format_of(path, formats), [Part(path, path.name, {})], []
    inside = sorted(file for file in path.rglob("*") if file.is_file() and not _is_note(file, path))
    # a writer whose part got no rows leaves nothing at all, but for parquet, which needs a few bytes
    empty = [
        file
        for file in inside
        if known_format(file, formats) not in (None, ".parquet") and not file.stat().st_size
    ]
    tables = [file for file in inside if known_format(file, formats) and file not in empty]
    kinds = sorted({str(known_format(file, formats)) for file in tables})
    if len(kinds) != 1:
        found = f"files of several formats, {', '.join(kinds)}" if kinds else f"no {', '.join(formats)}"
        raise SourceError(
            f"ingest.table.path: the folder {path} holds {found}: give one file, or a folder with files of "
            f"one format"
        )
    parts = [Part(file, file.relative_to(path).as_posix(), _keys_of(file, path)) for file in tables]
    others = len(inside) - len(tables) - len(empty)
    skipped = [Skip("file of a folder that is no table")] * others + [Skip("empty file of a folder")] * len(
        empty
    )
    return kinds[0], parts, skipped


def known_format(path: Path, formats: tuple[str, ...]) -> str | None:
    """The ending of a file, without .gz; null: none of `formats`."""
    name = path.name.lower().removesuffix(".gz")
    found = next((suffix for suffix in formats if name.endswith(suffix)), None)
    return None if found == ".parquet" and path.name.lower().endswith(".gz") else found


def format_of(path: Path, formats: tuple[str, ...]) -> str:
    """The ending of a file that can be read; raises SourceError, which names those that can."""
    if (found := known_format(path, formats)) is None:
        ending = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
        raise SourceError(
            f"ingest.table.path: {path} ends in {ending!r}; read are {', '.join(sorted(formats))}, all but "
            f".parquet also with .gz behind, and folders of such files"
        )
    return found


def _is_note(file: Path, root: Path) -> bool:
    return any(name.startswith((".", "_")) for name in file.relative_to(root).parts)


def _keys_of(file: Path, root: Path) -> dict[str, str | None]:
    """The columns that stand in the names of the folders between: `user=ada%20l/` gives user "ada l"."""
    pairs = [name.split("=", 1) for name in file.relative_to(root).parts[:-1] if "=" in name]
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, value in pairs}
