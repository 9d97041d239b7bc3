"""The report page in a real browser: silent, within its width, readable by keyboard, by axe and on paper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from kit.experiment import HOSTILE, HOSTILE_USER, run, write_experiment, write_params
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 820, 1280)
LOOKS = [*((width, "light") for width in WIDTHS), (390, "dark")]
A4 = 688  # CSS pixels between margins of 14 mm
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; in a container that runs as root it has no sandbox of its own."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up experiment whose texts and one user's name are hostile."""
    root = tmp_path_factory.mktemp("experiment")
    write_params(root)
    write_experiment(root)
    run(root)
    return root / "data/report/report.html"


class Opened:
    """A page that is wholly drawn, and everything it said or asked for."""

    def __init__(self, browser: Browser, report: Path, *, width: int = 1280, scheme: Any = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        size = {"width": width, "height": 900}
        look: Any = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
        self.page: Page = browser.new_context(**look).new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("html[data-drawn=all]")


Visit = Callable[..., Opened]


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Visit:
    """Opens a page once in each look; what a test does to it, it undoes, or no other test looks at."""
    return cache(lambda report, **look: Opened(browser, report, **look))


def sticking_out(page: Page) -> list[str]:
    """What is wider than the page, save what scrolls in a box of its own."""
    return page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((one) => {
            if (!one.checkVisibility() || one.closest("symbol, #tip, .spoken")) return false;
            for (let up = one; up; up = up.parentElement)
              if (up !== one && ["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
            const box = one.getBoundingClientRect();
            return box.width > 0 && box.right > document.documentElement.clientWidth + 1;
        }).map((one) => one.outerHTML.slice(0, 120))"""
    )


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_page_is_silent_and_fits(visit: Visit, report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    """No word on the console, nothing asked of a network, nothing beyond the edge; dark is dark."""
    opened = visit(report, width=width, scheme=scheme)
    assert opened.said == [] and opened.asked == [report.as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert sticking_out(opened.page) == []
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 28)")
    shot = opened.page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert len(shot) > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Visit, report: Path, scheme: Any) -> None:
    page = visit(report).page
    page.emulate_media(color_scheme=scheme)
    page.evaluate("shut = document.querySelectorAll('details:not([open])')")
    page.evaluate("shut.forEach((one) => { one.open = true; })")
    found = Axe().run(page).response["violations"]
    page.evaluate("shut.forEach((one) => { one.open = false; })")
    page.emulate_media(color_scheme="light")
    assert {one["id"]: [node["target"] for node in one["nodes"][:3]] for one in found} == {}


def test_first_screen_answers_without_scrolling(visit: Visit, report: Path) -> None:
    page = visit(report).page
    page.evaluate("scrollTo(0, 0)")
    for part in (".answer", ".picture svg", ".numbers"):
        box = page.locator(part).bounding_box()
        assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 900, part
    assert page.locator(".numbers strong").all_inner_texts() == ["5", "80 s", "2 CPU cores"]


def test_every_drawing_is_drawn(visit: Visit, report: Path) -> None:
    """As SVG with a mark for every value; those of users who are not shown wait."""
    figures = visit(report).page.locator(".chart:visible")
    assert figures.count() > 15
    for place in range(figures.count()):
        assert figures.nth(place).locator("svg [role=graphics-symbol][aria-label]").count() > 0


def test_values_show_on_hover_and_by_keyboard(visit: Visit, report: Path) -> None:
    page = visit(report).page
    page.locator("[data-chart=periods-logp_per_token]").scroll_into_view_if_needed()
    mark = page.locator("[data-chart=periods-logp_per_token] path[aria-label^='spring, period 2']")
    mark.hover()
    tip = page.locator("#tip")
    assert tip.is_visible() and tip.inner_text().startswith("spring, period 2\n−")
    page.mouse.move(0, 0)
    page.locator("[data-chart=paired-rouge1] .canvas").focus()
    page.keyboard.press("ArrowDown")
    first = tip.inner_text()
    page.keyboard.press("ArrowDown")
    assert " over base\n" in first and tip.inner_text() != first
    assert page.locator("#spoken").text_content() == tip.text_content()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_arms_are_switched_on_and_off(browser: Browser, report: Path) -> None:
    """On a page of its own: all drawings change."""
    page = Opened(browser, report).page
    lines = "[data-chart=periods-logp_per_token] .mark-line path"
    coloured = page.locator(f"{lines}[stroke^='var(--series'], {lines}[stroke='var(--muted)']")
    pale = page.locator(f"{lines}[stroke='var(--faint)']")
    assert (coloured.count(), pale.count()) == (5, 0)
    page.locator(".switch summary").click()
    page.get_by_role("checkbox", name="oppu-each").uncheck()
    expect(page.locator(".switch .count")).to_have_text("4")
    expect(coloured).to_have_count(4)
    expect(pale).to_have_count(1)
    assert page.locator("#periods .shown li:visible").all_inner_texts() == [
        "base",
        "rag-accum",
        "spring",
        "spring-parametric",
    ]
    page.get_by_role("checkbox", name="others in grey").uncheck()
    expect(pale).to_have_count(0)
    expect(page.locator("[data-chart=paired-rouge1] .mark-symbol path")).to_have_count(3)
    assert page.locator(".answered[data-arm=oppu-each]:visible").count() == 0
    page.get_by_role("button", name="all", exact=True).click()
    expect(coloured).to_have_count(5)
    assert page.locator(".answered[data-arm=oppu-each]:visible").count() == 1


def test_tables_are_sorted_and_searched(visit: Visit, report: Path) -> None:
    page = visit(report).page
    table = page.locator("#results table").first
    first = lambda: table.locator("tbody tr:visible th").first.inner_text()  # noqa: E731
    table.get_by_role("button", name="Log-likelihood").focus()
    page.keyboard.press("Enter")
    assert first() == "spring-parametric"  # the made-up likelihood rises with the place of the arm
    page.keyboard.press("Enter")
    assert first() == "base" and table.locator("[aria-sort=ascending]").count() == 1
    page.get_by_role("searchbox", name="Search rows: 5 arms").fill("parametric")
    assert table.locator("tbody tr:visible").count() == 1
    assert page.locator("table.sortable").count() == page.locator(".filter").count() + 1  # the first screen's


def test_users_are_shown_one_at_a_time(visit: Visit, report: Path) -> None:
    """Their texts beside every arm's answer, and what an arm saw of them a click away."""
    page = visit(report).page
    people = page.locator(".person")
    assert people.count() == 2 and page.locator(".person:visible").count() == 1
    assert page.locator(".person:visible h3").inner_text() == HOSTILE_USER
    page.locator("#person").select_option(label="user-1")
    assert page.locator(".person:visible h3").inner_text() == "user-1"
    page.wait_for_selector(".person:visible svg")
    last = page.locator(".person:visible details[open]")
    assert HOSTILE in last.locator(".wrote .text").inner_text()
    assert last.locator(".answered:visible").count() == 5
    link = last.locator(".seen a").first
    link.focus()
    assert HOSTILE in page.locator("#tip").inner_text()
    box = page.locator("#tip").bounding_box()
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 900
    page.keyboard.press("Enter")
    target = page.locator(f"[id='{page.url.split('#')[1]}']")
    assert target.is_visible() and target.locator("th").inner_text().startswith("1")


def test_nothing_of_a_hostile_text_runs(visit: Visit, report: Path) -> None:
    opened = visit(report)
    assert opened.said == [] and opened.page.locator("img").count() == 0
    assert opened.page.title() == f"A report {HOSTILE}"
    assert "{{ 7 * 7 }}" in opened.page.locator("h1").inner_text()


def test_command_is_copied(visit: Visit, report: Path) -> None:
    page = visit(report).page
    page.locator("#copy").click()
    expect(page.locator("#copy")).to_have_text("copied")
    assert "-S suite=main -S seed=0" in page.locator("#command").inner_text()


def test_paper_cuts_nothing(visit: Visit, report: Path) -> None:
    """As wide as A4 between its margins: nothing sticks out, and what scrolls on a screen is whole."""
    page = visit(report, width=820).page
    page.set_viewport_size({"width": A4, "height": 1000})
    page.emulate_media(media="print")
    page.wait_for_timeout(200)
    assert sticking_out(page) == []
    cut = """all => all.filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
                       .map((one) => one.outerHTML.slice(0, 120))"""
    assert page.eval_on_selector_all(".scroll, .canvas, pre", cut) == []
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4", prefer_css_page_size=True).startswith(b"%PDF")


# --- many users ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 320 users: more than a drawing marks one by one."""
    root = tmp_path_factory.mktemp("crowd")
    write_params(root)
    write_experiment(root, users=320, per_period=3)
    run(root)
    return root / "data/report/report.html"


@pytest.mark.parametrize("width", WIDTHS[::2])
def test_a_page_of_many_users_is_small_and_fits(visit: Visit, crowd: Path, width: int) -> None:
    opened = visit(crowd, width=width)
    assert crowd.stat().st_size < 2_000_000
    assert opened.said == [] and opened.asked == [crowd.as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert sticking_out(opened.page) == []


def test_of_many_users_all_are_counted_and_some_are_shown(visit: Visit, crowd: Path) -> None:
    """Two of each kind, as the parameters say; the bars hold all, and the marks say of how many they are."""
    page = visit(crowd).page
    bars = page.locator("[data-chart=leads-leads] .mark-rect path[aria-label]").all()
    counts = [int(str(bar.get_attribute("aria-label")).split(" of 320 users")[0]) for bar in bars]
    assert sum(counts) == 320 and all(counts)
    heights = {
        count: box["height"] for bar, count in zip(bars, counts, strict=True) if (box := bar.bounding_box())
    }
    assert heights[max(counts)] / heights[min(counts)] == pytest.approx(max(counts) / min(counts), rel=0.15)
    said = "300 of 320 users, evenly spaced in rank"
    assert said in page.locator(".key-note").inner_text()
    assert said in page.locator(".picture svg").text_content()
    lines = page.locator("#comparisons tbody tr").count()
    assert page.locator(".picture svg .mark-rect path[aria-label^='one user']").count() == 300 * lines
    rows = page.locator("table:has([data-show]) tbody tr")
    assert rows.count() == 6 and page.locator(".person").count() == 6
    kinds = [row.locator("td").last.inner_text() for row in rows.all()]
    assert kinds == ["highest lead"] * 2 + ["lowest lead"] * 2 + ["by chance"] * 2


def test_axe_finds_nothing_on_a_page_of_many_users(visit: Visit, crowd: Path) -> None:
    found = Axe().run(visit(crowd).page).response["violations"]
    assert {one["id"]: [node["target"] for node in one["nodes"][:3]] for one in found} == {}


def test_a_user_is_found_by_name_among_those_shown(visit: Visit, crowd: Path) -> None:
    page = visit(crowd).page
    name = page.locator("[data-show='3']").inner_text()
    page.get_by_role("searchbox", name="Search rows: 6 users").fill(name)
    assert page.locator("[data-show]:visible").all_inner_texts() == [name]
    page.locator("[data-show]:visible").click()
    assert page.locator(".person:visible h3").all_inner_texts() == [name]
    assert page.locator("#person").input_value() == "3"
