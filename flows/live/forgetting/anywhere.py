"""Where a person can be forgotten: in a live project, and in any other, as far as its source allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flows.live.project import alone
from flows.live.update import Update, updating
from flows.live.versions import Versions, git
from tasks.ingest import kept_folder
from tasks.params import load_params


@contextmanager
def project(say: Callable[[str], None], hear: Callable[[str], None]) -> Iterator[Update]:
    """The current folder; of one that is not live nothing is committed or pushed, and no source changed."""
    params = load_params()
    if params.live is not None:
        with updating(say, hear) as update:
            yield update
        return
    versions = Versions(git("rev-parse", "--abbrev-ref", "HEAD").strip(), kept_folder(params.ingest))
    with alone(versions.kept):
        yield Update(params, versions, datetime.now(UTC), say, hear)
