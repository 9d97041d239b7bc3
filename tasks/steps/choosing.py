"""What of a period's texts each recipe learns from (Eq. 1, 2), and what the choice was made by."""

from __future__ import annotations

import numpy as np

from spring.method import drift, scorers
from spring.method.retrieval import document_text
from spring.rivals import cama
from tasks.cells.scoring import ScoreJob, score
from tasks.files import DATA, EVERYBODY, Users, read_parquet
from tasks.steps.experiment import Experiment
from tasks.steps.population import Case, Drift
from tasks.steps.rows import chained, grouped, pick

DRIFT = {  # what an item is scored by and chosen for, as `SCORES` has it
    "logp_base": np.float64,
    "logp_adap": np.float64,
    "tokens": np.int32,
    "novelty": np.float64,
    "quality": np.float64,
    "drift_score": np.float64,
    "selected": np.bool_,
}

SCORED = np.dtype(list(DRIFT.items()))


def choose(bench: Experiment, cases: list[Case], period: int, users: Users = EVERYBODY) -> None:
    """Sets `chosen` of every case, and the scores of those that select by drift.

    Of a user who has learned nothing yet, in period 0 or later, everything is chosen.
    """
    for case in cases:
        if case.train.data == "cumulative":
            case.chosen = chained(case.past, case.rows)
        elif case.train.data == "current" or not case.past:
            case.chosen = case.rows
    selecting = [case for case in cases if case.train.data == "drift" and case.past]
    jobs = [ScoreJob(case.rows, case.previous) for case in selecting]
    for case, found in zip(selecting, score(bench, jobs, f"adapt@{period} drift{users.told}"), strict=True):
        reads = scorers.SCORERS[case.train.select.scorer].reads
        if "base" in reads:
            case.seconds_score += sum(row["seconds"] for row in case.rows)
        if "adapter" in reads:
            case.seconds_score += found.seconds
        select(bench, case, found.logp, period)
    choose_confident(bench, [case for case in cases if case.train.data == "confident"], period, users)


def choose_confident(bench: Experiment, cases: list[Case], period: int, users: Users) -> None:
    """Sets `chosen` to what the previous adapter is surer of than its own was of the period before (CAMA).

    And `confidences`, which the next lesson asks for. In the first, they are the base model's; all is kept.
    """
    for case in cases:
        if not case.past:
            case.seconds_score = sum(row["seconds"] for row in case.rows)
            logp, tokens = (np.array([row[name] for row in case.rows]) for name in ("logp", "tokens"))
            note_confidences(case, cama.confidence(logp, tokens))
    cases = [case for case in cases if case.past]
    if not cases:
        return
    before = read_parquet(DATA / "adapt" / str(period - 1) / "confidences.parquet", users=users)
    met = grouped(before, "recipe", "user_id")
    jobs = [ScoreJob(case.rows, case.previous) for case in cases]
    for case, found in zip(cases, score(bench, jobs, f"adapt@{period} confidence{users.told}"), strict=True):
        assert case.user is not None, "cases are pooled later"
        mine = [row["confidence"] for row in met.get((case.recipe, case.user), ())]
        sure = cama.confidence(found.logp, found.tokens)
        case.seconds_score = found.seconds
        case.chosen = pick(case.rows, cama.keep_confident(sure, np.array(mine, dtype=np.float64)))
        note_confidences(case, sure)


def note_confidences(case: Case, sure: np.ndarray) -> None:
    """Keeps for the next period how sure the adapter was of this one's items."""
    common = {"recipe": case.recipe, "user_id": case.user}
    case.confidences = [common | {"confidence": float(value)} for value in sure]


def select(bench: Experiment, case: Case, logp_adap: np.ndarray, period: int) -> None:
    """Scores one user's rows and keeps the drift set (Eq. 1, 2)."""
    how = case.train.select
    rows = list(case.rows)
    logp_base, tokens = (np.array([row[name] for row in rows]) for name in ("logp", "tokens"))
    embeddings = past = None
    if "embeddings" in scorers.SCORERS[how.scorer].reads:
        texts = [document_text(row["query"], row["response"]) for row in (*case.past, *case.rows)]
        vectors = bench.embedder.embed(texts)
        past, embeddings = vectors[: len(case.past)], vectors[len(case.past) :]
    batch = drift.Batch(
        logp_base=logp_base,
        logp_adap=logp_adap,
        tokens=tokens,
        alpha=how.alpha,
        normalise=how.normalise,
        seed=bench.seed(case.user, period),
        embeddings=embeddings,
        past_embeddings=past,
    )
    scores = scorers.score(how.scorer, batch)
    kept = drift.select_drift(scores, share=how.share)
    case.chosen = pick(case.rows, kept)
    found = np.zeros(len(case.rows), SCORED)
    found["logp_base"], found["logp_adap"], found["tokens"] = logp_base, logp_adap, tokens
    found["novelty"] = drift.novelty(
        logp_base=logp_base, logp_adap=logp_adap, tokens=tokens, normalise=how.normalise
    )
    found["quality"] = drift.quality(logp_base=logp_base, tokens=tokens, normalise=how.normalise)
    found["drift_score"] = scores
    found["selected"][kept] = True
    case.scores = [Drift(case.user, case.rows, found)]
