"""The parameters of what is read: which source, a block for each, and what is refused from all of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import create_model, model_validator

from spring.data.sources.registry import SOURCES, Source
from spring.engine.strict import PositiveInt, Share, Strict, added
from spring.method.registry import one_of


def _block(source: Source) -> Any:
    """A field for a source's own settings, as `create_model` takes it."""
    return (source.settings, ...) if source.required else (source.settings | None, added(None))


Blocks: Any = create_model(
    "Blocks", __base__=Strict, **{name: _block(source) for name, source in SOURCES.items()}
)


class Ingest(Blocks):
    """Which interactions are read, and what is refused; and a block per source (`personas`, `git`, ...)."""

    source: Annotated[str, one_of(SOURCES)]
    min_interactions: PositiveInt  # users with fewer are left out and listed
    max_users: PositiveInt | None  # the users with most interactions first
    max_interactions: PositiveInt | None  # per user, the latest
    min_chars: PositiveInt
    max_chars: PositiveInt
    max_quarantined: Share  # of all rows; above it the stage stops

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> Ingest:
        if self.min_chars > self.max_chars:
            raise ValueError(f"ingest.min_chars is {self.min_chars}, more than max_chars, {self.max_chars}")
        return self

    @model_validator(mode="after")
    def _the_source_has_its_block(self) -> Ingest:
        if self.block is None:
            keys = ", ".join(SOURCES[self.source].settings.model_fields)
            raise ValueError(
                f"ingest.source is {self.source}, and there is no block ingest.{self.source}: write it, with "
                f"{keys}"
            )
        return self

    @property
    def block(self) -> Any:
        """The settings of the source in use."""
        return getattr(self, self.source)

    @property
    def task(self) -> str:
        """Which of `prompts` the rows answer."""
        source = SOURCES[self.source]
        block = getattr(self, source.columns or self.source)
        return source.task if isinstance(source.task, str) else source.task(block)

    @property
    def unused(self) -> set[str]:
        """Blocks of sources that came after results existed and are not in use: they shape nothing."""
        return {name for name, source in SOURCES.items() if not source.required} - {self.source}

    @property
    def seeded(self) -> bool:
        """Whether another seed gives other users."""
        return SOURCES[self.source].make is not None
