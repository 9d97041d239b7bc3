"""The report's users one by one: what they wrote, what of it was learned and kept, what arms answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import polars as pl

from spring.measures.statistics import STABLE
from spring.settings.params import Params
from tasks.evaluate import stream
from tasks.files import DATA, read_parquet, read_tests
from tasks.measures.costs import learned
from tasks.params import sample_users
from tasks.reporting.vega import TIP, Spec, bar, chart, dot, layer, quantity, short, words

MOST_TEXT = 1500  # characters of one text on the page; the whole is in data/
MOST_BYTES = 600_000  # of all users together, so that the page stays below 2 MB
RING = dot(size=190, filled=False, strokeWidth=1.2, color="var(--ink)", opacity=0.65) | {"aria": False}
KINDS = {"noise": "noise, not to be learned"}  # a label in words; others as they are


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
    """One user: items of all periods in time order, and number of a test item -> every arm's answer."""

    user: str
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


def read_people(params: Params) -> list[Person]:
    """The sample users, as many of them as the page has room for (one at least)."""
    split = pl.concat(read_parquet(DATA / f"split/{t}.parquet") for t in params.periods)
    tests = pl.concat(read_tests(t) for t in stream(params))
    arm = shown_arm(params)
    tables = {
        "scores": read_scores(params, arm),
        "kept": read_kept(params, arm),
        "labels": read_parquet(DATA / "ingest/labels.parquet").unique("interaction_id"),
        "answers": read_answers(params),
        "learned": pl.DataFrame(
            {"interaction_id": sorted(read_learned(params, arm))}, schema={"interaction_id": pl.String}
        ),
    }
    found: list[Person] = []
    room = MOST_BYTES
    for user in sample_users(params, tests):
        person = read_person(user, split.filter(user_id=user), tables, list(params.arms))
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


def read_answers(params: Params) -> pl.DataFrame:
    """Every arm's answers over the stream, with their scores."""
    answers = pl.concat(read_parquet(DATA / f"generate/{t}/generations.parquet") for t in stream(params))
    scores = read_parquet(DATA / "evaluate/items.parquet")
    scores = scores.select("arm", "interaction_id", "rouge1", "logp_per_token")
    return answers.join(scores, on=["arm", "interaction_id"])


def read_person(user: str, rows: pl.DataFrame, tables: Mapping[str, pl.DataFrame], arms: list[str]) -> Person:
    """One user, from the rows of all periods and the tables of `read_people`."""
    rows = rows.with_row_index("order").sort("period", "timestamp", "order")
    by_item = {
        name: {row["interaction_id"]: row for row in table.iter_rows(named=True)}
        for name, table in tables.items()
        if name != "answers"
    }
    items = []
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        one = row["interaction_id"]
        label, score = by_item["labels"].get(one, {}), by_item["scores"].get(one, {})
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
                selected=one in by_item["learned"],
                kept=by_item["kept"].get(one, {}).get("after", []),
            )
        )
    numbers = dict(zip(rows["interaction_id"], (item.number for item in items), strict=True))
    answers: dict[int, list[Given]] = {}
    place = {arm: at for at, arm in enumerate(arms)}
    mine = tables["answers"].filter(pl.col("user_id") == user).to_dicts()
    for row in sorted(mine, key=lambda row: place[row["arm"]]):
        shown = [numbers[one] for one in row["contexts"] if one in numbers]
        given = Given(row["arm"], cut(row["text"]), row["rouge1"], row["logp_per_token"], shown)
        answers.setdefault(numbers[row["interaction_id"]], []).append(given)
    return Person(user, items, answers)


def cut(text: str) -> str:
    """A text as long as the page shows it."""
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} … ({len(text):,} characters)"


# --- the timeline -----------------------------------------------------------------------------------------


def timeline(person: Person) -> Spec:
    """Drift scores in time order: filled where learned, ringed where kept; coloured by the true label."""
    train = [item for item in person.items if item.part == "train" and item.score is not None]
    rows = [
        {
            "at": place,
            "score": item.score,
            "label": kind_of(item),
            "selected": item.selected,
            "kept": bool(item.kept),
            "tip": f"{item.number}, {item.date or 'period ' + str(item.period)}: {kind_of(item)}\n"
            f"drift score {item.score:.2f}\n{state_of(item)}\n{item.text[:160]}",
        }
        for place, item in enumerate(train, start=1)
    ]
    bands = []
    for period in sorted({item.period for item in train}):
        places = [place for place, item in enumerate(train, start=1) if item.period == period]
        mine = [item for item in train if item.period == period]
        bands.append(
            {
                "from": places[0] - 0.5,
                "to": places[-1] + 0.5,
                "middle": (places[0] + places[-1]) / 2,
                "even": period % 2 == 0,
                "text": f"period {period}",
                "cut": min((item.score for item in mine if item.selected), default=None),
            }
        )
    labels = sorted({row["label"] for row in rows}, key=lambda label: (colour_of(label, train), label))
    x = {"field": "at", "type": "quantitative", "scale": {"domain": [0.5, len(train) + 0.5], "nice": False}}
    x |= {"axis": None}
    y = quantity("score", "drift score")
    colour = {
        "field": "label",
        "type": "nominal",
        "scale": {"domain": labels, "range": [colour_of(label, train) for label in labels]},
        "legend": {"orient": "bottom", "title": None, "columns": 2, "symbolType": "circle"},
    }
    fill = {"condition": colour | {"test": "datum.selected"}, "value": "var(--paper)"}
    at, span = {"x": x, "y": y}, {"x": x | {"field": "from"}, "x2": {"field": "to"}}
    shade = {"type": "rect", "color": "var(--band)", "aria": False}
    dashed = bar(strokeWidth=1, strokeDash=[3, 3], color="var(--muted)")
    head = {"x": x | {"field": "middle"}, "text": {"field": "text"}}
    over = {"data": {"values": bands}}
    layers = [
        over | layer(shade, span, "datum.even"),
        over | layer(words(y=9, color="var(--muted)"), head),
        over | layer(dashed, span | {"y": y | {"field": "cut"}}, "datum.cut !== null"),
        layer(RING, at, "datum.kept"),
        layer(dot(size=65, filled=False, strokeWidth=1.8), at | {"color": colour, "fill": fill} | TIP),
    ]
    return chart("", rows, layers, on=[], height=220)


def kind_of(item: Item) -> str:
    """An item's true label in words."""
    if item.kind is None:
        return "no label"
    if item.kind == STABLE:
        return "as before"
    return f"{item.kind}, a real change" if item.real else KINDS.get(item.kind, item.kind)


def colour_of(label: str, items: list[Item]) -> str:
    """A real change, something not to be learned, or neither."""
    found = next((item for item in items if kind_of(item) == label), None)
    if found is None or found.kind in (None, STABLE):
        return "var(--muted)"
    return "var(--series-1)" if found.real else "var(--series-0)"


def state_of(item: Item) -> str:
    """What became of an item."""
    learned = "learned" if item.selected else "not learned"
    return f"{learned}, kept after {periods(item.kept)}" if item.kept else f"{learned}, not kept"


def periods(kept: list[int]) -> str:
    """Periods in words: `period 2`, `periods 1 to 4`."""
    if len(kept) == 1:
        return f"period {kept[0]}"
    if kept == list(range(kept[0], kept[-1] + 1)):
        return f"periods {kept[0]} to {kept[-1]}"
    return f"periods {', '.join(map(str, kept))}"
