"""What joins that contrast two whole distributions have in common (spring/rivals/cad.py, cope.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from spring.engine.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class Contrast(Strict):
    """A `Join` of the engine without weights; each has `routes`, `choose` and `judge` of its own."""

    whole: ClassVar[bool] = True
    sure: ClassVar[None] = None
    patience: ClassVar[None] = None

    def mix(
        self, logps: Sequence[np.ndarray], sure: Sequence[np.ndarray], weights: Sequence[float]
    ) -> np.ndarray:
        """Of a single path: its own log p [n]."""
        [alone] = logps
        return alone.astype(np.float64)

    def agree(self, first: Tensor, second: Tensor) -> bool:
        """Neither path is ever dropped."""
        return False
