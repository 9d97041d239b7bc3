"""Raw rows in, canonical interactions out; every row that cannot be used is kept with its reason.

`check_rows` parts what a source yields into usable rows and the quarantine, and `leave_out` applies the
limits per user. Rows read = kept + quarantined + left out, always. Which rows stay is decided for all of
them at once, without texts; rows with texts are read for some users at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from spring.data.batches import Batches
from spring.data.quarantine import EXCERPT, QUARANTINE, canonical_row, find_problem, set_aside, writable
from spring.data.rows import ARRIVED, INTERACTIONS, Opened, Problem, RawRow, Reason, Skip, canonical
from spring.data.split import LONG_TEXT
from spring.data.values import name_user

USABLE = {**INTERACTIONS, **ARRIVED, "row": pl.Int64, "where": pl.String}
ORDER = ("user_id", "timestamp", "row")
LEFT_OUT = {"user_id": pl.String, "interactions": pl.Int64, "reason": pl.String}


@dataclass(frozen=True, slots=True)
class Checked:
    """Outcome of `check_rows`: `read` rows = height of `placed` + height of `quarantine`."""

    usable: Batches  # all that can be used, repeats too
    placed: pl.DataFrame  # of those that stay user, id and times, by user and time
    quarantine: pl.DataFrame
    skipped: dict[str, int]
    read: int
    opened: dict[str, str | int] = field(default_factory=dict)  # what the source says that it read
    joined: dict[str, list[str]] = field(default_factory=dict)  # users written in several ways, and how

    @property
    def interactions(self) -> pl.DataFrame:
        """The canonical table, of all users."""
        return self.rows(self.placed)

    def rows(self, placed: pl.DataFrame) -> pl.DataFrame:
        """The canonical rows of some of `placed`, users in order: only what these users have is read."""
        users = placed["user_id"].unique()
        between = pl.col("user_id").is_between(
            pl.lit(users.min()), pl.lit(users.max())
        )  # skips groups of rows
        theirs = self.usable.scan().filter(between & pl.col("user_id").is_in(users.implode())).drop(*ARRIVED)
        known = placed.select("interaction_id", *(column for column in ARRIVED if column in placed.columns))
        found = known.join(theirs.collect(), on="interaction_id", how="left", maintain_order="left")
        return found.select(canonical(found))


def check_rows(
    rows: Iterable[RawRow | Skip | Opened], *, min_chars: int, max_chars: int, folder: Path | None = None
) -> Checked:
    """Separates usable rows from the others. Texts wait in files of `folder` (null: in memory).

    `min_chars` bounds responses, `max_chars` responses and query fields. Texts come out in Unicode's NFC,
    with line feeds for line ends and without white space around them, user ids as `name_user` has them. Of
    several rows with one interaction id the first stays; of identical texts of `LONG_TEXT` characters and
    more the earliest, whoever's they are, because its copies would leak from training into the test items:
    from a user's own, or from another user's where arms learn from all of them.
    """
    usable, bad = Batches(USABLE, folder, by=ORDER), Batches(QUARANTINE)
    skipped: Counter[str] = Counter()
    opened: dict[str, str | int] = {}
    seen: set[str] = set()
    dated = False  # whether the source says when rows arrived
    spelled: dict[str, set[str]] = defaultdict(set)
    for raw in rows:
        if isinstance(raw, Skip):
            skipped[raw.reason] += 1
            continue
        if isinstance(raw, Opened):
            opened[raw.what] = raw.value
            continue
        problem = find_problem(raw, min_chars=min_chars, max_chars=max_chars)
        if problem is None and raw.interaction_id in seen:
            problem = Problem("interaction_id", Reason.DUPLICATE_ID, raw.interaction_id)
        if problem is not None:
            bad.append(set_aside(raw, problem))
        else:
            seen.add(raw.interaction_id or "")
            dated |= raw.arrived is not None
            spelled[name_user(raw.user_id or "")].add(raw.user_id or "")
            usable.append((*canonical_row(raw), raw.row, writable(raw.where)))
    del seen
    placed, again = _part_repeats(_place(usable, dated=dated))
    quarantine = pl.concat([bad.table(), _repeats(usable, again)]).sort("row")
    joined = {user: sorted(ways) for user, ways in sorted(spelled.items()) if len(ways) > 1}
    read = placed.height + quarantine.height
    return Checked(usable, placed, quarantine, dict(skipped), read, opened, joined)


def _place(usable: Batches, *, dated: bool) -> pl.DataFrame:
    """By user and time, of every usable row what decides whether it stays: of a long text its digest."""
    response = pl.col("response")
    said = pl.when(response.str.len_chars() >= LONG_TEXT).then(response.hash())
    # when a row arrived: not before its own date, and with it where nothing is known
    arrived = [pl.max_horizontal("arrived", "timestamp").alias("arrived")] if dated else []
    columns = ["user_id", "interaction_id", "timestamp", "row"]
    return usable.scan().select(*columns, *arrived, said=said).sort(ORDER).collect()


def _part_repeats(placed: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parts long texts that say again what an earlier one said, of whichever user.

    The earliest is the one that arrived first, where that is known: a late copy changes no closed period.
    """
    order = [column for column in ("arrived", "timestamp", "row") if column in placed.columns]
    long = placed.filter(pl.col("said").is_not_null()).select("interaction_id", "said", *order).sort(order)
    again = long.filter(~pl.col("said").is_first_distinct()).select("interaction_id")
    return placed.join(again, on="interaction_id", how="anti", maintain_order="left").drop("said"), again


def _repeats(usable: Batches, again: pl.DataFrame) -> pl.DataFrame:
    """Rows of `QUARANTINE` for those that repeat."""
    found = usable.scan().join(again.lazy(), on="interaction_id", how="semi")
    return found.select(
        "row",
        "where",
        "user_id",
        field=pl.lit("response"),
        reason=pl.lit(str(Reason.REPEATED)),
        value=pl.col("response").str.slice(0, EXCERPT),
    ).collect()


def leave_out(
    placed: pl.DataFrame,
    *,
    min_interactions: int,
    max_users: int | None,
    max_interactions: int | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Applies the limits per user; returns what is kept and what is left out (user, how many, why).

    First the users with fewer than `min_interactions` go, then those beyond the `max_users` with most
    interactions (ties: by user id), then each user's interactions beyond the `max_interactions` latest.
    """
    counts = placed.group_by("user_id").len("interactions").cast({"interactions": pl.Int64})
    counts = counts.sort(["interactions", "user_id"], descending=[True, False])
    enough = counts.filter(pl.col("interactions") >= min_interactions)
    users = enough.head(max_users) if max_users is not None else enough
    few = counts.filter(pl.col("interactions") < min_interactions)
    left = [
        few.with_columns(reason=pl.lit(f"fewer than min_interactions = {min_interactions}")),
        enough[users.height :].with_columns(reason=pl.lit(f"beyond max_users = {max_users}")),
    ]
    kept = placed.join(users.select("user_id"), on="user_id", how="semi", maintain_order="left")
    if max_interactions is not None:
        kept = kept.group_by("user_id", maintain_order=True).tail(max_interactions)
        cut = users.with_columns(pl.col("interactions") - max_interactions).filter(pl.col("interactions") > 0)
        left.append(cut.with_columns(reason=pl.lit(f"earlier than the latest {max_interactions}")))
    return kept, pl.concat(left).select(list(LEFT_OUT)).sort("user_id", "reason")
