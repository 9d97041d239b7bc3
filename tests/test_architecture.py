"""Pictures and tables of docs/ that scripts there make are what they would make today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn() -> ModuleType:
    return script("architecture")


@pytest.mark.slow
def test_the_leaders_are_of_the_published_results() -> None:
    """Else: python docs/leaders.py."""
    drawn = script("leaders")
    assert drawn.PICTURE.read_text(encoding="utf-8") == drawn.picture()
    assert {name for name, _ in drawn.SHOWN.values()} >= {"SPRInG", "retrieval alone"}


def test_picture_and_table_are_of_this_code(drawn: ModuleType) -> None:
    """Else: python docs/architecture.py."""
    assert drawn.PICTURE.read_text(encoding="utf-8") == drawn.picture()
    text = drawn.PAGE.read_text(encoding="utf-8")
    assert drawn.page(text) == text
    assert "| `engine/` |" in text


def test_picture_says_where_the_steps_are(drawn: ModuleType) -> None:
    """What a reader looks for; and every stage, room and module stands in the drawing."""
    cells = drawn.called()
    assert "drift" in cells["adapt"]["method"] and "training" in cells["adapt"]["engine"]
    assert {"retrieval", "gate", "mixing"} <= set(cells["generate"]["method"])
    of_data = {"data": ["calendar", "split"]}
    assert cells["split"] == of_data | {room: [] for room in ("method", "rivals", "engine", "measures")}
    words = {"".join(text.itertext()) for text in ElementTree.fromstring(drawn.picture()).iter() if text.text}
    assert {*cells, *drawn.ROOMS} <= words
    assert {name for rooms in cells.values() for names in rooms.values() for name in names} <= words
