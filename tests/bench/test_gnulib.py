"""A ChangeLog as a Git repository."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

from spring.data.rows import RawRow
from spring.data.sources.git import GitSource, read

CHANGELOG = """\
2023-01-02  Eric Blake  <ebb9@byu.net>

\tfts: leave no descriptor open
\t* lib/fts.c (fts_close): Close what was opened
\tby fts_open.

\t* tests/test-fts.c: New file.

2023-01-01  Jim Meyering  <jim@meyering.net>

\tmaint: update copyright

\tRun 'make update-copyright'.

2023-01-01  Jim Meyering  <meyering@fb.com>

\t* NEWS: Mention it.

Copyright is as it was.
"""


def test_entries_are_commits_oldest_first_and_the_same_file_makes_the_same_repository(tmp_path: Path) -> None:
    file = tmp_path / "changelog.gz"
    file.write_bytes(gzip.compress(CHANGELOG.encode()))
    heads = []
    for name in ("one", "two"):
        subprocess.run(
            [sys.executable, "-m", "bench.gnulib", str(file), str(tmp_path / name)], check=True, text=True
        )
        done = ["git", "-C", str(tmp_path / name), "rev-parse", "HEAD"]
        heads.append(subprocess.run(done, check=True, capture_output=True, text=True).stdout)
    assert heads[0] == heads[1]

    rows = read(GitSource(repository=str(tmp_path / "one"), revision="HEAD"))
    kept = [(row.query["SUBJECT"], row.response) for row in rows if isinstance(row, RawRow)]
    assert kept == [
        ("maint: update copyright", "Run 'make update-copyright'."),
        (
            "fts: leave no descriptor open",
            "* lib/fts.c (fts_close): Close what was opened\nby fts_open.\n\n* tests/test-fts.c: New file.",
        ),
    ]
    log = ["git", "-C", str(tmp_path / "one"), "log", "--use-mailmap", "--reverse", "--format=%aE %ad"]
    people = subprocess.run([*log, "--date=short"], check=True, capture_output=True, text=True).stdout
    assert people.splitlines()[:3] == [
        "meyering@redhat.com 2023-01-01",
        "meyering@redhat.com 2023-01-01",
        "eblake@redhat.com 2023-01-02",
    ]
