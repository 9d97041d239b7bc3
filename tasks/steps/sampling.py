"""How a lesson draws from the buffer, and how often an interaction was learned (spring/rivals/sar.py)."""

from __future__ import annotations

import json

import numpy as np

from spring.method.replay import clusters
from spring.method.retrieval import document_text
from spring.rivals.sar import SarDraw
from tasks.cells.training import USES, use_name
from tasks.cells.workbench import Adapter
from tasks.steps.experiment import Experiment
from tasks.steps.population import Case


def sar_draw(bench: Experiment, case: Case, period: int) -> SarDraw:
    """Clusters and uses of what a case replays from; uses are counted where there is nothing yet, too."""
    if not case.replay:
        return SarDraw((), ())
    texts = [document_text(row["query"], row["response"]) for row in case.replay]
    vectors = bench.embedder.embed(texts).astype(np.float64)
    found = clusters(vectors, seed=bench.seed(case.user, period))
    uses = read_uses(case.previous) if case.previous else {}
    return SarDraw(tuple(found.tolist()), tuple(uses.get(use_name(row), 0) for row in case.replay))


def read_uses(adapter: Adapter) -> dict[str, int]:
    """What the lessons up to an adapter have used."""
    found: dict[str, int] = json.loads(adapter.read()[USES])
    return found
