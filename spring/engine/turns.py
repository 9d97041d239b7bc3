"""Lessons that go text by text, in an order of their own: what an online learner does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One text of a lesson, alone in its batch, for some optimizer steps in a row."""

    text: int  # its place in the lesson
    steps: int
    weight: float  # of its loss, and so of its gradient
    rate: float  # times the learning rate, which follows no schedule here
