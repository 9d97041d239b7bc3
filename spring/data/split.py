"""Each user's interactions in time, cut into periods, and each period into train and test."""

from __future__ import annotations

import polars as pl

LONG_TEXT = 200  # characters from which the same text twice is a copy and no idiom


class SplitError(ValueError):
    """Interactions that cannot be split; the message names the users and what to change."""


class LeakageError(ValueError):
    """A split in which a test item could be known from training."""


def split(interactions: pl.DataFrame, *, periods: int, test_share: float) -> pl.DataFrame:
    """Adds `period` (0..P-1) and `part` (train, test); rows come out by user and time, ties as they came.

    Per user the P periods have equal counts; what is left over makes the earliest ones longer by one, so
    that N // P more rows per user and one more period leave all earlier periods as they were. In a period of
    n items the most recent n * test_share, rounded, are test; at least one item is test and one train.

    Raises `SplitError` if a user has fewer than 2 P interactions.
    """
    counts = interactions.group_by("user_id").len().filter(pl.col("len") < 2 * periods).sort("user_id")
    if counts.height:
        named = ", ".join(f"{user} ({count})" for user, count in counts.head(10).iter_rows())
        raise SplitError(
            f"{counts.height} user(s) with fewer than the {2 * periods} interactions that {periods} periods "
            f"need (one train and one test item each): {named}{' ...' if counts.height > 10 else ''}. "
            f"Set ingest.min_interactions to {2 * periods} or more, or use fewer periods."
        )
    user = "user_id"
    position, total = pl.int_range(pl.len()).over(user), pl.len().cast(pl.Int64).over(user)
    size, longer = total // periods, total % periods
    head = longer * (size + 1)  # rows in the periods that are longer by one
    period = (
        pl.when(position < head).then(position // (size + 1)).otherwise(longer + (position - head) // size)
    )
    ordered = interactions.sort("user_id", "timestamp", maintain_order=True)
    return _hold_out(ordered.with_columns(period=period.cast(pl.Int32)), test_share)


def hold_out_validation(frame: pl.DataFrame, *, test_share: float) -> pl.DataFrame:
    """The split for choosing hyperparameters: test items are gone, the most recent train items held out.

    Raises `SplitError` if a period of a user has a single train item.
    """
    train = frame.filter(pl.col("part") == "train")
    single = train.filter(pl.len().over("user_id", "period") < 2)["user_id"].unique().sort()
    if len(single):
        raise SplitError(
            f"split.hold_out is validation, but {len(single)} user(s) have a period with one train item: "
            f"{', '.join(single.head(10))}. Use fewer periods or raise ingest.min_interactions."
        )
    return _hold_out(train, test_share)


def _hold_out(frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """Marks the most recent `share` of each user's period as test, the rest as train."""
    inside = ("user_id", "period")
    place, count = pl.int_range(pl.len()).over(inside), pl.len().cast(pl.Int64).over(inside)
    tests = (count * share + 0.5).floor().cast(pl.Int64).clip(1, count - 1)
    return frame.with_columns(
        part=pl.when(place < count - tests).then(pl.lit("train")).otherwise(pl.lit("test"))
    )


def without_texts(rows: pl.LazyFrame) -> pl.LazyFrame:
    """What decides where rows go: all but queries, and of responses a digest and whether they are long."""
    response = pl.col("response")
    long = response.str.len_chars() >= LONG_TEXT
    return rows.select(pl.exclude("query", "response", "task", "rating"), response=response.hash(), long=long)


def check_leakage(frame: pl.DataFrame) -> int:
    """Raises `LeakageError` if time or identity leaks; returns how many short texts of test items recur.

    Responses are texts, or what `without_texts` makes of them.

    Refused: an interaction id twice; an item that came earlier than one of the period before it; a test item
    dated earlier than a train item of its period or any item of one before it; a test item whose response, of
    `LONG_TEXT` characters or more, stands word for word in a train item of the same user from its own or an
    earlier period, or in any train item of another user: some arms learn from all users.
    """
    twice = frame.filter(pl.col("interaction_id").is_duplicated())["interaction_id"].unique().sort()
    _refuse(twice, "interaction ids stand twice", "make them unique in the source")
    _refuse(_find_disorder(frame), "items are out of time order", "split again from data/ingest")
    if "long" not in frame.columns:
        frame = without_texts(frame.lazy()).collect()
    repeats = _find_repeats(frame)
    copies = pl.concat([repeats.filter("long")["interaction_id"], _find_copies(frame.filter("long"))])
    copies = copies.unique().sort()
    _refuse(copies, "test items repeat a train item's text", "remove one of each pair from the source")
    return repeats.height


def _refuse(items: pl.Series, what: str, remedy: str) -> None:
    if len(items):
        named = ", ".join(items.head(10).to_list())
        raise LeakageError(
            f"{len(items)} {what}: {named}{' ...' if len(items) > 10 else ''}. Remedy: {remedy}."
        )


def _find_disorder(frame: pl.DataFrame) -> pl.Series:
    """Items earlier than one that must not follow them: of an earlier period, or train beside a test item.

    Periods follow each other by when items came (`arrived`, where it is known), tests by their own dates.
    """
    is_test = pl.col("part") == "test"
    came = _overtaken(frame, pl.col("period"), "arrived" if "arrived" in frame.columns else "timestamp")
    dated = _overtaken(frame, pl.col("period") * 2 + is_test.cast(pl.Int32), "timestamp").filter(is_test)
    return pl.concat([came["interaction_id"], dated["interaction_id"]]).unique().sort()


def _overtaken(frame: pl.DataFrame, order: pl.Expr, when: str) -> pl.DataFrame:
    """Items earlier than one of the same user that stands before them in `order`."""
    frame = frame.with_columns(order=order)
    parts = frame.group_by("user_id", "order").agg(latest=pl.col(when).max()).sort("user_id", "order")
    before = parts.with_columns(before=pl.col("latest").cum_max().over("user_id").shift(1).over("user_id"))
    joined = frame.join(before, on=["user_id", "order"], how="left")
    return joined.filter(pl.col(when) < pl.col("before"))


def _find_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """Test items whose response a train item of the same user has, in the same or an earlier period."""
    train = frame.filter(pl.col("part") == "train").group_by("user_id", "response")
    first = train.agg(known=pl.col("period").min())
    test = frame.filter(pl.col("part") == "test").join(first, on=["user_id", "response"])
    return test.filter(pl.col("known") <= pl.col("period")).sort("interaction_id")


def _find_copies(frame: pl.DataFrame) -> pl.Series:
    """Ids of test items whose response a train item of another user has, in whatever period."""
    train = frame.filter(pl.col("part") == "train").select("response", other="user_id").unique()
    test = frame.filter(pl.col("part") == "test").join(train, on="response")
    return test.filter(pl.col("user_id") != pl.col("other"))["interaction_id"]
