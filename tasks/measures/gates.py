"""What learned gates foretold of the past pairs they went on to learn from, and what was true."""

from __future__ import annotations

import numpy as np
import polars as pl

from spring.method.learned_gate import OPEN, Features, brier, calibration_error, foretold
from spring.settings.params import Params
from tasks.files import DATA, read_parquet


def gate_metrics(params: Params) -> dict[str, dict[str, float | int | None]]:
    """Per arm with a learned gate: how often memories helped, and how well the gate knew it beforehand.

    Every pair is foretold by the gate as it was at the pair's time, all users together, as the gate learns.
    `pairs`, and of them `closed`, before the gate had anything to learn from; of the others: the share that
    `helped`, the mean probability `expected`, the share that `passed`, the share of those that helped
    (`helped_of_passed`), `brier`, `brier_of_share` of always foretelling the share so far, and
    `calibration_error`. None where no pair was foretold.
    """
    learned = {name: arm.gate_id for name, arm in params.arms.items() if arm.gate_id is not None}
    if not learned:
        return {}
    pairs = read_parquet(DATA / f"consolidate/{max(params.periods)}/gains.parquet")
    return {name: measure(pairs.filter(pl.col("gate") == gate)) for name, gate in learned.items()}


def measure(pairs: pl.DataFrame) -> dict[str, float | int | None]:
    """The measures of one gate's pairs."""
    features = pairs.select(*Features.__dataclass_fields__).cast(pl.Float64).to_numpy()
    said, so_far = foretold(features, pairs["gain"].to_numpy(), pairs["known_at"].to_numpy())
    open_yet = ~np.isnan(said)
    said, so_far, helped = said[open_yet], so_far[open_yet], (pairs["gain"].to_numpy() > 0)[open_yet]
    passed = said > OPEN
    some = len(said) > 0
    return {
        "pairs": pairs.height,
        "closed": pairs.height - len(said),
        "helped": float(helped.mean()) if some else None,
        "expected": float(said.mean()) if some else None,
        "passed": float(passed.mean()) if some else None,
        "helped_of_passed": float(helped[passed].mean()) if passed.any() else None,
        "brier": brier(said, helped) if some else None,
        "brier_of_share": brier(so_far, helped) if some else None,
        "calibration_error": calibration_error(said, helped) if some else None,
    }
