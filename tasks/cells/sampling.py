"""How a lesson draws from the buffer, and how often an interaction was learned (spring/rivals/sar.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spring.engine.strict import fingerprint
from spring.method.replay import clusters
from spring.method.retrieval import document_text
from spring.rivals.sar import SarDraw
from spring.settings.train import Train
from tasks.cells.population import Case
from tasks.cells.workbench import Row, Workbench, plain

if TYPE_CHECKING:
    from spring.engine.lessons import Lesson

USES = "uses.json"  # beside the adapter: times trained on, by a fingerprint of the interaction


def sar_draw(bench: Workbench, case: Case, period: int) -> SarDraw:
    """Clusters and uses of what a case replays from."""
    texts = [document_text(row["query"], row["response"]) for row in case.replay]
    vectors = bench.embedder.embed(texts).astype(np.float64)
    found = clusters(vectors, seed=bench.seed(case.user, period))
    uses = read_uses(case.previous.folder) if case.previous else {}
    return SarDraw(tuple(found.tolist()), tuple(uses.get(_name(row), 0) for row in case.replay))


def read_uses(folder: Path) -> dict[str, int]:
    """What the lessons up to the adapter in `folder` have used."""
    found: dict[str, int] = json.loads((folder / USES).read_text(encoding="utf-8"))
    return found


def write_uses(folder: Path, rows: Sequence[Row], replay: Sequence[Row], lesson: Lesson, how: Train) -> None:
    """Uses of this lesson's rows and buffer, with those before; what left the buffer never comes back."""
    from spring.engine.lessons import plan_batches

    seen = Counter(id(text) for batch in plan_batches(lesson, how) for text in batch)
    before = lesson.draw.uses if isinstance(lesson.draw, SarDraw) else ()
    uses = Counter({_name(row): known for row, known in zip(replay, before, strict=True)})
    for row, text in zip([*rows, *replay], [*lesson.texts, *lesson.replay], strict=True):
        uses[_name(row)] += seen[id(text)]
    (folder / USES).write_text(json.dumps(uses), encoding="utf-8")


def _name(row: Row) -> str:
    return fingerprint(plain(row))
