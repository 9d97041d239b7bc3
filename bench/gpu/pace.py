"""The time that everything may take together, shared out over what is still to come, and a bar over it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import perf_counter

from tqdm import tqdm

SPARE = 0.05  # of the time, kept for writing down what was found


class Pace:
    """Parts by name, each with about how much of the time it takes; `seconds` for all of them."""

    def __init__(self, seconds: float, parts: Mapping[str, float]) -> None:
        self.parts, self.began = dict(parts), perf_counter()
        self.until = self.began + (1 - SPARE) * seconds
        self.bar = tqdm(
            total=sum(parts.values()),
            bar_format="{desc:<34} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} to go",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.until - perf_counter()

    @property
    def taken(self) -> float:
        """Seconds since the beginning."""
        return perf_counter() - self.began

    def begin(self, part: str) -> float:
        """Seconds that a part may take: its share of what is left."""
        self.bar.set_description_str(part, refresh=sys.stderr.isatty())
        return max(0.0, self.left) * self.parts[part] / sum(self.parts.values())

    def end(self, part: str) -> None:
        """A part is done, or left out."""
        self.bar.update(self.parts.pop(part))

    def close(self) -> None:
        """The bar's end."""
        self.bar.set_description_str("done")
        self.bar.close()
