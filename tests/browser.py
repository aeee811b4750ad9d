"""A headless Chromium for tests of pages, and what went wrong in it.

It is found by EPALM_CHROMIUM or on the PATH. Where there is none such tests are skipped, or fail with
EPALM_BROWSER_TESTS=1.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Scheme = Literal["light", "dark"]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--no-sandbox",
)  # fmt: skip


@dataclass
class Visit:
    """A page that is open, what its console and scripts complained of, and the URLs it asked for, "data:" left out."""

    page: "Page"
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


OpenPage = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One browser for a file of tests: while it runs, its thread has an event loop, in which no other can be run."""
    path = os.environ.get("EPALM_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not path:
        _absent("no Chromium: apt-get install chromium, or set EPALM_CHROMIUM to one")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("no playwright: pip install --editable '.[dev]'")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, headless=True, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[OpenPage]:
    """Open a URL: `open_page(url, width=1280, height=900, scheme="light")`."""
    contexts = []

    def open_(url: str, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        visit = Visit(context.new_page())
        page = visit.page
        page.on("console", lambda line: visit.faults.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: visit.faults.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith("data:") else visit.requests.append(asked.url))
        page.goto(url)
        return visit

    yield open_
    for context in contexts:
        context.close()


def _absent(reason: str) -> NoReturn:
    if os.environ.get("EPALM_BROWSER_TESTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
