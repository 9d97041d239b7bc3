"""The parameters of what is read: one model per source, and what is refused from all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from spring.engine.strict import Name, PositiveInt, Share, Strict


class PersonasSource(Strict):
    """Seeded users whose writing preferences drift in known ways (data/sources/personas)."""

    users: PositiveInt
    interactions: PositiveInt  # per user
    drift: tuple[Literal["abrupt", "gradual", "recurring", "transient", "noise"], ...]
    noise_share: Share  # share of a user's interactions that are boilerplate or gibberish


class ChangelogsSource(Strict):
    """Debian changelog entries found on this machine: package and version -> entry, per maintainer."""

    root: str
    max_per_user: PositiveInt | None


class GitSource(Strict):
    """Commits of a repository: subject -> body, per author."""

    repository: str
    revision: str


class TableSource(Strict):
    """A parquet, CSV or JSONL file with a column mapping."""

    path: str
    task: Name  # which of `prompts` the rows answer
    user_id: str
    interaction_id: str | None  # null: the row number
    response: str
    timestamp: str | None  # a datetime or date column; or null, with `year` and perhaps `month`
    year: str | None
    month: str | None
    query: dict[str, str]  # name in the prompt -> column
    rating: str | None


class Ingest(Strict):
    """Which interactions are read, and what is refused."""

    source: Literal["personas", "changelogs", "git", "table"]
    min_interactions: PositiveInt  # users with fewer are left out and listed
    max_users: PositiveInt | None  # the users with most interactions first
    max_interactions: PositiveInt | None  # per user, the latest
    min_chars: PositiveInt
    max_chars: PositiveInt
    max_quarantined: Share  # of all rows; above it the stage stops
    personas: PersonasSource
    changelogs: ChangelogsSource
    git: GitSource
    table: TableSource

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> Ingest:
        if self.min_chars > self.max_chars:
            raise ValueError(f"ingest.min_chars is {self.min_chars}, more than max_chars, {self.max_chars}")
        return self

    @property
    def task(self) -> str:
        """Which of `prompts` the rows answer."""
        return {"personas": "review", "changelogs": "changelog", "git": "commit"}.get(
            self.source, self.table.task
        )
