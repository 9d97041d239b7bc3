"""The experiment in Weights & Biases: a run per arm and seed, and one of their comparison.

Runs go to the folder wandb/; `tracking.mode: offline`, the default, sends nothing, and `wandb sync` sends
what was written so. No user's name or text is in them unless `tracking.log_text` is true. Ids follow from
what a run holds (naming.py): a rerun replaces. docs/wandb.md says what is where.
"""

from __future__ import annotations

from typing import Any

from spring.settings.params import Params
from tasks.tracking.arm import log_arm
from tasks.tracking.comparison import log_comparison
from tasks.tracking.naming import Identity
from tasks.tracking.runs import TrackingError

REMEDY = (
    "The report is written. Mend it (`wandb login`, the network), or set tracking.mode: offline in "
    "params.yaml and send the runs later with `wandb sync`; then `dvc repro report`"
)


def log_experiment(params: Params, metrics: dict[str, Any]) -> None:
    """Logs every arm of `metrics` (data/metrics.json) and their comparison; does nothing in mode `disabled`.

    Raises `TrackingError` where W&B cannot be reached within `tracking.init_timeout` seconds.
    """
    if params.tracking.mode == "disabled":
        return
    identity = Identity(params)
    try:
        for arm in params.arms:
            log_arm(params, metrics, arm, identity)
        log_comparison(params, metrics, identity)
    except TrackingError as error:
        raise TrackingError(f"{error}\n{REMEDY}") from error
