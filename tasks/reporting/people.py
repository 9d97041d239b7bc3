"""The report's users one by one: what they wrote, what of it was learned and kept, what arms answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import polars as pl

from spring.settings.params import Params
from tasks.files import DATA, read_parquet
from tasks.measures.costs import learned
from tasks.measures.scores import stream
from tasks.reporting.answer import Answer
from tasks.reporting.choice import Shown, choose
from tasks.reporting.vega import short

MOST_TEXT = 1500  # characters of one text on the page; the whole is in data/
MOST_BYTES = 600_000  # of all users together, so that the page stays below 2 MB


@dataclass(frozen=True)
class Item:
    """One interaction, by its number among the user's; `kept`: periods after which it was in the buffer."""

    number: int
    period: int
    part: str
    date: str
    query: dict[str, str]
    text: str
    kind: str | None
    real: bool | None
    score: float | None = None
    selected: bool = False
    kept: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Given:
    """What one arm answered; `contexts`: the numbers of the items that it was shown."""

    arm: str
    text: str
    rouge1: float | None
    logp: float
    contexts: list[int]


@dataclass(frozen=True)
class Person:
    """One user: items of all periods in time order, and number of a test item -> every arm's answer.

    `why` they are shown, and their lead, where not all could be (`Shown`).
    """

    user: str
    why: str
    lead: float | None
    items: list[Item]
    answers: dict[int, list[Given]]

    def of(self, period: int, part: str) -> list[Item]:
        """The items of a period that are train or test."""
        return [item for item in self.items if item.period == period and item.part == part]

    def kept_after(self, period: int) -> int:
        """How many items are in the buffer after a period."""
        return sum(period in item.kept for item in self.items)


def shown_arm(params: Params) -> str | None:
    """The arm whose selection and buffer are shown: the first that selects by drift, if any has a buffer."""
    drifting = [name for name, arm in params.arms.items() if arm.train and arm.train.data == "drift"]
    buffered = [
        name
        for name in drifting or params.arms
        if (memory := params.arms[name].memory) is not None and memory.scope == "buffer"
    ]
    return next(iter([*buffered, *drifting]), None)


def leads(found: Answer, users: pl.DataFrame) -> dict[str, float]:
    """Every user's lead in the first comparison of the answer; 0 where nothing is compared."""
    return found.lines[0].users if found.lines else dict.fromkeys(users["user_id"].unique().sort(), 0.0)


def read_people(params: Params, leads: dict[str, float]) -> list[Person]:
    """The users that `choose` takes by their `leads`, as many as the page has room for (one at least)."""
    shown = choose(params, leads)
    mine = pl.col("user_id").is_in([one.user for one in shown])
    split = pl.concat(read_parquet(DATA / f"split/{t}.parquet").filter(mine) for t in params.periods)
    arm = shown_arm(params)
    tables = {
        "scores": read_scores(params, arm),
        "kept": read_kept(params, arm),
        "labels": read_parquet(DATA / "ingest/labels.parquet").unique("interaction_id"),
        "answers": read_answers(params, mine),
        "learned": pl.DataFrame(
            {"interaction_id": sorted(read_learned(params, arm))}, schema={"interaction_id": pl.String}
        ),
    }
    tables = {name: table.join(split, "interaction_id", "semi") for name, table in tables.items()}
    found: list[Person] = []
    room = MOST_BYTES
    for one in shown:
        person = read_person(one, split.filter(user_id=one.user), tables, list(params.arms))
        room -= len(json.dumps(asdict(person)))
        if found and room < 0:
            break
        found.append(person)
    return found


def read_scores(params: Params, arm: str | None) -> pl.DataFrame:
    """Drift score of every item, under one arm."""
    scores = pl.concat(read_parquet(DATA / f"adapt/{t}/scores.parquet") for t in params.periods)
    recipe = params.arms[arm].recipe if arm else None
    return scores.filter(pl.col("recipe") == (recipe or "")).select("interaction_id", "drift_score")


def read_learned(params: Params, arm: str | None) -> set[str]:
    """The ids of all that an arm learned from: in period 0 all of it, without a score."""
    return set().union(*(learned(params.arms[arm], t) for t in params.periods)) if arm else set()


def read_kept(params: Params, arm: str | None) -> pl.DataFrame:
    """interaction_id -> the periods after which it was in the buffer of one arm."""
    memory = params.arms[arm].memory_id if arm else None
    kept = [
        read_parquet(DATA / f"consolidate/{t}/buffers.parquet")
        .filter(pl.col("memory") == (memory or ""))
        .select("interaction_id", after=pl.lit(t))
        for t in params.periods
    ]
    return pl.concat(kept).group_by("interaction_id").agg(pl.col("after").sort())


def read_answers(params: Params, mine: pl.Expr) -> pl.DataFrame:
    """Every arm's answers over the stream to some users, with their scores."""
    answers = pl.concat(
        read_parquet(DATA / f"generate/{t}/generations.parquet").filter(mine) for t in stream(params)
    )
    scores = read_parquet(DATA / "evaluate/items.parquet")
    scores = scores.select("arm", "interaction_id", "rouge1", "logp_per_token")
    return answers.join(scores, on=["arm", "interaction_id"])


def read_person(
    one: Shown, rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame], arms: list[str]
) -> Person:
    """One user, from the rows of all periods and the tables of `read_people`."""
    rows = rows.with_row_index("order").sort("period", "timestamp", "order")
    by_item = {
        name: {row["interaction_id"]: row for row in table.iter_rows(named=True)}
        for name, table in tables.items()
        if name != "answers"
    }
    items = []
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        item = row["interaction_id"]
        label, score = by_item["labels"].get(item, {}), by_item["scores"].get(item, {})
        items.append(
            Item(
                number=number,
                period=row["period"],
                part=row["part"],
                date=f"{row['timestamp']:%Y-%m-%d}" if row["timestamp"] else "",
                query={key: cut(str(value)) for key, value in json.loads(row["query"]).items()},
                text=cut(row["response"]),
                kind=label.get("drift"),
                real=label.get("is_drift"),
                score=short(score.get("drift_score")),
                selected=item in by_item["learned"],
                kept=by_item["kept"].get(item, {}).get("after", []),
            )
        )
    numbers = dict(zip(rows["interaction_id"], (item.number for item in items), strict=True))
    answers: dict[int, list[Given]] = {}
    place = {arm: at for at, arm in enumerate(arms)}
    mine = tables["answers"].filter(pl.col("user_id") == one.user).to_dicts()
    for row in sorted(mine, key=lambda row: place[row["arm"]]):
        shown = [numbers[item] for item in row["contexts"] if item in numbers]
        given = Given(row["arm"], cut(row["text"]), row["rouge1"], row["logp_per_token"], shown)
        answers.setdefault(numbers[row["interaction_id"]], []).append(given)
    return Person(one.user, one.why, one.lead, items, answers)


def cut(text: str) -> str:
    """A text as long as the page shows it."""
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} … ({len(text):,} characters)"
