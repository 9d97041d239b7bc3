"""Amazon Reviews 2023 (Hou et al., arXiv 2403.03952): reviews, and what they are about, joined by product.

Of a category there are two files of JSON lines, also packed by gzip: `CATEGORY.jsonl` with the reviews,
`meta_CATEGORY.jsonl` with the products. Variants of a product (`asin`) have one `parent_asin`, which joins
both. Files have up to tens of gigabytes: they are read line by line, reviews twice, and only reviews of the
users that are kept, and products that these name, are held.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from spring.data.rows import Opened, Problem, RawRow, Reason, Skip, SourceError
from spring.data.sources.fields import digest_of, read_fields, text_of
from spring.data.sources.formats import json_files
from spring.data.sources.formats.record import Part, Record
from spring.data.values import MISSING, fold_words, parse_number
from spring.engine.strict import PositiveInt, Strict, added

TASK = "review"
_COLUMNS = {
    "user_id": "user_id", "interaction_id": "asin", "timestamp": "timestamp", "query.RATING": "rating",
    "query.SUMMARY": "title", "response": "text", "rating": "rating",
}  # fmt: skip
_REVIEW = ("user_id", "asin", "parent_asin", "timestamp", "rating", "title", "text")
_PRODUCT = ("parent_asin", "title", "description", "features")
_BREAK = re.compile(r"<br\s*/?>", re.I)
_MARK = re.compile(r"\[\[[A-Z]+:[^\]]*\]\]")  # [[VIDEOID:...]], [[ASIN:...]]: what the page put there
_FIRST = 1e11  # milliseconds, in 1973: smaller counts would pass for seconds
_STARS = (1.0, 5.0)
_ENDINGS = (".jsonl", ".jsonl.gz")


class AmazonSource(Strict):
    """A category of Amazon Reviews 2023."""

    reviews: str  # CATEGORY.jsonl or .jsonl.gz
    products: str  # meta_CATEGORY.jsonl or .jsonl.gz
    min_reviews: PositiveInt  # of a user, before anything is refused
    max_users: PositiveInt | None  # those with most reviews, before anything is refused
    missing: Annotated[tuple[str, ...], added(MISSING)]  # words that stand for no value


class Product(NamedTuple):
    """What a prompt says of a product."""

    title: str
    description: str  # or its features; empty where there are neither


class Review(NamedTuple):
    """A review as it stands there, or why it is none."""

    where: str
    record: dict[str, Any] | Problem


def read(source: AmazonSource) -> Iterator[RawRow | Skip | Opened]:
    """Raw rows in the order of the reviews. Raises SourceError if a file cannot be read."""
    reviews, products = (
        _part(getattr(source, name), f"ingest.amazon.{name}") for name in ("reviews", "products")
    )
    kept: list[Review] = []
    users = _users(reviews, source)
    seen: set[str] = set()
    for where, record in _lines(reviews, _REVIEW, "reviews"):
        if isinstance(record, Skip):
            yield record
        elif isinstance(record, Problem) or not (user := text_of(record.get("user_id"))):
            kept.append(Review(where, record))
        elif user not in users:
            yield Skip("review of a user with fewer than min_reviews or beyond max_users")
        elif (digest := digest_of(record)) in seen:
            yield Skip("exact copy of another review")
        else:
            seen.add(digest)
            kept.append(Review(where, record))
    named = {text_of(review.record.get("parent_asin")) for review in kept if isinstance(review.record, dict)}
    found = _products(products, named)
    yield Opened("products", len(found))
    words, untold = fold_words(source.missing), 0
    for number, review in enumerate(kept, start=1):
        row = _row(number, review, found, words)
        untold += row.damage is None and row.query["DESCRIPTION"] == row.query["PRODUCT"]
        yield row
    yield Opened("reviews described by the product's title", untold)


def _part(path: str, key: str) -> Part:
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"{key}: {file} is no file (seen from {Path.cwd()})")
    if not file.name.lower().endswith(_ENDINGS):
        raise SourceError(
            f"{key}: {file} must end in {' or '.join(_ENDINGS)}, as the data set's raw files do"
        )
    return Part(file, file.name, {})


def _lines(part: Part, wanted: tuple[str, ...], name: str) -> Iterator[Record]:
    return json_files.read_large(part, wanted, key=f"ingest.amazon.{name}")


def _users(reviews: Part, source: AmazonSource) -> frozenset[str]:
    """Those who are kept."""
    counts: Counter[str] = Counter()
    for _, record in _lines(reviews, ("user_id",), "reviews"):
        if isinstance(record, dict) and (user := text_of(record.get("user_id"))):
            counts[user] += 1
    enough = [user for user, count in counts.items() if count >= source.min_reviews]
    return frozenset(sorted(enough, key=lambda user: (-counts[user], user))[: source.max_users])


def _products(part: Part, named: set[str | None]) -> dict[str, Product]:
    """The products that reviews name; of several lines of one the first."""
    found: dict[str, Product] = {}
    for _, record in _lines(part, _PRODUCT, "products"):
        id = text_of(record.get("parent_asin")) if isinstance(record, dict) else None
        if isinstance(record, dict) and id in named and id and id not in found:
            told = _joined(record.get("description")) or _joined(record.get("features"))
            found[id] = Product(text_of(record.get("title")) or "", told)
    return found


def _joined(value: object) -> str:
    """A list of paragraphs as one text."""
    paragraphs = value if isinstance(value, list) else [value]
    return "\n".join(text for each in paragraphs if (text := (text_of(each) or "").strip()))


def _plain(text: str) -> str:
    """A text as it was typed, without the marks of the page that showed it."""
    return html.unescape(_MARK.sub("", _BREAK.sub("\n", text))).strip()


def _row(number: int, review: Review, products: dict[str, Product], words: frozenset[str]) -> RawRow:
    if isinstance(review.record, Problem):
        return RawRow(row=number, where=review.where, damage=review.record)
    texts, damage = read_fields(review.record, _COLUMNS, words)
    for name in ("response", "query.SUMMARY"):
        if name in texts:
            texts[name] = _plain(texts[name])
    stars = parse_number(texts.get("rating", ""))
    if stars is not None:
        texts["query.RATING"] = f"{stars:g}"
        if not _STARS[0] <= stars <= _STARS[1]:
            damage = damage or Problem("rating", Reason.IMPOSSIBLE_RATING, texts["rating"])
    id = text_of(review.record.get("parent_asin"))
    product = products.get(id or "", Product("", ""))
    if not product.title.strip():
        damage = damage or Problem("query.PRODUCT", Reason.NO_PRODUCT, id)
    user, asin, timestamp = (texts.get(name) for name in ("user_id", "interaction_id", "timestamp"))
    if (count := parse_number(timestamp or "")) is not None and count < _FIRST:
        timestamp = f"{timestamp} milliseconds since 1970"  # which is no time that is read
    return RawRow(
        row=number,
        where=review.where,
        user_id=user,
        interaction_id=asin and f"{user}/{asin}/{timestamp}",
        timestamp=timestamp,
        task=TASK,
        query={
            "PRODUCT": product.title,
            "DESCRIPTION": product.description or product.title,
            "RATING": texts.get("query.RATING"),
            "SUMMARY": texts.get("query.SUMMARY"),
        },
        response=texts.get("response"),
        rating=texts.get("rating"),
        damage=damage,
    )
