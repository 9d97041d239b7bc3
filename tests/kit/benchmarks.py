"""Small data sets in the form of LongLaMP's, LaMP's and Amazon's, made up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

Record = dict[str, Any]

# --- LongLaMP ---------------------------------------------------------------------------------------------


def paper(number: int, year: int | None = None, **changes: Any) -> Record:
    """An item of a profile of abstracts."""
    year = 2000 + number if year is None else year
    text = f"Abstract {number} tells in some words what paper {number} finds."
    return {"abstract": text, "id": f"p{number}", "title": f"Paper {number}", "year": year} | changes


def asked_paper(name: str, number: int, profile: Any, **changes: Any) -> Record:
    """A row of abstracts: its own item is paper `number`."""
    item = paper(number)
    asked = f'Generate an abstract for the title "{item["title"]}" using the following items: 1. one 2. two'
    return {"name": name, "input": asked, "output": item["abstract"], "profile": profile} | changes


def review(number: int, **changes: Any) -> Record:
    """An item of a profile of reviews, which has no id."""
    return {
        "description": f'Thing {number}, "new". Good',
        "overall": 1.0 + number % 5,
        "reviewText": f"Review {number} says what it thinks.",
        "summary": f"Summary {number}",
    } | changes


def asked_review(name: str, number: int, profile: Any, **changes: Any) -> Record:
    """A row of reviews: its own item is review `number`."""
    item = review(number)
    asked = (
        "Generate the review text written by a reviewer who has a given an overall rating of "
        f'"{item["overall"]}" for a product with description "{item["description"]}". '
        f'The summary of the review text is "{item["summary"]}".'
    )
    return {"reviewerId": name, "input": asked, "output": item["reviewText"], "profile": profile} | changes


def post(number: int, author: str = "ada", **changes: Any) -> Record:
    """An item of a profile of posts."""
    text = f"Post {number} goes on about this and that."
    return {"author": author, "content": text, "id": f"t3_{number}", "summary": f"that {number}"} | changes


def asked_post(name: str, number: int, profile: Any, **changes: Any) -> Record:
    """A row of posts: its own item is post `number`."""
    item = post(number)
    asked = f"Generate the content for a reddit post {item['summary']}"
    return {"author": name, "input": asked, "output": item["content"], "profile": profile} | changes


def write_longlamp(folder: Path, config: str, **splits: Iterable[Record]) -> Path:
    """Splits of a configuration, a file each, as the hub has them."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        frame = pl.DataFrame(list(rows), infer_schema_length=None)
        frame.write_parquet(folder / config / f"{split}-00000-of-00001.parquet")
    return folder


# --- LaMP -------------------------------------------------------------------------------------------------


def article(number: int, date: str | None = None, **changes: Any) -> Record:
    """An item of a profile of LaMP-4."""
    date = f"2010-01-{number:02d}" if date is None else date
    text = f"Article {number} reports what happened on that day."
    return {"id": f"{number}", "text": text, "title": f"Headline {number}", "date": date} | changes


def asked_article(id: str, number: int, profile: Any, **changes: Any) -> Record:
    """A question of LaMP-4: its own item is article `number`."""
    asked = f"Generate a headline for the following article: {article(number)['text']}"
    return {"id": id, "input": asked, "profile": profile} | changes


def write_lamp(
    folder: Path, answers: Mapping[str, int], task: str = "LaMP_4", **splits: list[Record]
) -> Path:
    """Splits of LaMP-4: questions, and for those in `answers`, id -> number of the article, its headline."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, questions in splits.items():
        golds = [{"id": asked["id"], "output": article(answers[asked["id"]])["title"]}
                 for asked in questions if asked.get("id") in answers]  # fmt: skip
        (folder / f"{split}_questions.json").write_text(json.dumps(questions))
        (folder / f"{split}_outputs.json").write_text(json.dumps({"task": task, "golds": golds}))
    return folder


# --- Amazon -----------------------------------------------------------------------------------------------


def bought(number: int, user: str = "ADA", **changes: Any) -> Record:
    """A review as Amazon's raw files have it."""
    return {
        "rating": 1.0 + number % 5,
        "title": f"Title {number}",
        "text": f"Review {number} of {user} is this.",
        "images": [],
        "asin": f"V{number}",
        "parent_asin": f"B{number}",
        "user_id": user,
        "timestamp": 1_500_000_000_000 + number,
        "helpful_vote": 0,
        "verified_purchase": True,
    } | changes


def sold(number: int, **changes: Any) -> Record:
    """A product as Amazon's raw files have it."""
    return {
        "main_category": "All Beauty",
        "title": f"Product {number}",
        "average_rating": 4.1,
        "features": [f"Feature {number}"],
        "description": [f"First of {number}.", f"Second of {number}."],
        "price": None,
        "details": {"Brand": "None"},
        "parent_asin": f"B{number}",
    } | changes


def write_lines(path: Path, records: Iterable[Record | str]) -> Path:
    """JSON lines, packed if the name says so; texts as they stand."""
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path
