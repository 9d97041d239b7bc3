"""Takes docs/img/report.png, the first screen of the report page: `python docs/screenshot.py [PAGE]`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "data/report/report.html"
PICTURE = ROOT / "docs/img/report.png"


def take(page: Path, picture: Path) -> None:
    """The page as a reader first sees it, in Debian's Chromium."""
    chromium = shutil.which("chromium") or sys.exit("error: no chromium: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        window = browser.new_page(viewport={"width": 1200, "height": 880}, color_scheme="light")
        window.goto(page.resolve().as_uri())
        window.wait_for_selector("html[data-drawn=all]")
        window.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE, PICTURE)
