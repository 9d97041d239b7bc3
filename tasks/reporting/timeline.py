"""One user's drift scores in time order, as a drawing, and what became of an item in words."""

from __future__ import annotations

from spring.measures.statistics import STABLE
from tasks.reporting.people import Item, Person
from tasks.reporting.vega import TIP, Spec, bar, chart, dot, layer, quantity, words

KINDS = {"noise": "noise, not to be learned"}  # a label in words; others as they are
RING = dot(size=190, filled=False, strokeWidth=1.2, color="var(--ink)", opacity=0.65) | {"aria": False}


def timeline(person: Person) -> Spec:
    """Drift scores in time order: filled where learned, ringed where kept; coloured by the true label."""
    train = [item for item in person.items if item.part == "train" and item.score is not None]
    rows: list[Spec] = [
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
    labels = sorted({kind_of(item) for item in train}, key=lambda label: (colour_of(label, train), label))
    x: Spec = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [0.5, len(train) + 0.5], "nice": False},
    }
    x |= {"axis": None}
    y = quantity("score", "drift score")
    colour: Spec = {
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
    over = {"data": {"values": bands(train)}}
    layers = [
        over | layer(shade, span, "datum.even"),
        over | layer(words(y=9, color="var(--muted)"), head),
        over | layer(dashed, span | {"y": y | {"field": "cut"}}, "datum.cut !== null"),
        layer(RING, at, "datum.kept"),
        layer(dot(size=65, filled=False, strokeWidth=1.8), at | {"color": colour, "fill": fill} | TIP),
    ]
    return chart("", rows, layers, on=[], height=220)


def bands(train: list[Item]) -> list[Spec]:
    """Every period: from where to where it goes, and the lowest score in it that was learned, if any."""
    found: list[Spec] = []
    for period in sorted({item.period for item in train}):
        mine = [(place, item) for place, item in enumerate(train, start=1) if item.period == period]
        first, last = mine[0][0], mine[-1][0]
        learned = [item.score for _, item in mine if item.selected and item.score is not None]
        found.append(
            {
                "from": first - 0.5,
                "to": last + 0.5,
                "middle": (first + last) / 2,
                "even": period % 2 == 0,
                "text": f"period {period}",
                "cut": min(learned, default=None),
            }
        )
    return found


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
