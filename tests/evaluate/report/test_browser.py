"""The report in a browser: nothing fails, nothing is asked of a network, and all that can be used does what it says."""

import re
import shutil
from pathlib import Path

import pytest

from epalm.extract.decoding import workers
from tests.browser import OpenPage, Scheme, Visit
from tests.conftest import Epalm
from tests.report_runs import HARM, HARMFUL_ID, RUNS


@pytest.fixture(scope="module")
def pages() -> dict[str, Path]:
    """Written once, by the first test."""
    return {}


@pytest.fixture
def url(
    scored_runs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pages: dict[str, Path],
    epalm: Epalm,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Of the comparison; that of one run lies beside it."""
    if not pages:
        folder = tmp_path_factory.mktemp("pages")
        shutil.copytree(scored_runs, folder / "here")
        for name, runs in (("two", RUNS), ("one", RUNS[:1])):
            pages[name] = folder / f"{name}.html"
            done = epalm(
                "report", *runs, "--samples", 100, "--runs", folder / "here/.epalm/runs", "--out", pages[name],
                "--data", _data(scored_runs),
            )  # fmt: skip
            assert done.code == 0, done.err
            monkeypatch.setattr(workers, "default_workers", lambda: 0)  # processes decoded the media of the first
    return pages["two"].as_uri()


def _data(scored: Path) -> str:
    scores = (scored / ".epalm/runs/careful/scores/test.json").read_text()
    (root,) = re.findall(r'"data": "data.jsonl:([^"]+)"', scores)
    return f"{scored / 'data.jsonl'}:{root}"


def _require_clean(visit: Visit, url: str) -> None:
    assert visit.faults == []
    assert visit.requests == [url]
    assert visit.overflow() == 0


def _count(visit: Visit) -> int:
    (number,) = re.findall(r"of ([\d,]+) samples", visit.page.inner_text("#count"))
    return int(number.replace(",", ""))


@pytest.mark.parametrize("width", [400, 1600])
def test_it_opens_from_disk_at_any_width_in_light_and_dark(url: str, open_page: OpenPage, width: int) -> None:
    schemes: tuple[Scheme, ...] = ("light", "dark") if width == 400 else ("dark", "light")
    for page in (url, url.replace("two.html", "one.html")):
        visit = open_page(page, width=width, scheme=schemes[0])
        visit.page.wait_for_selector(".card")
        visit.page.locator(".plot svg").nth(2).wait_for()  # plots are drawn once they have their width
        assert visit.page.locator(".plot svg").count() == 3
        for details in visit.page.locator("details").all():
            details.evaluate("element => { element.open = true; }")
        for scheme in schemes:
            visit.page.emulate_media(color_scheme=scheme)
            shade = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall(r"\d+", shade)[0]) > 128) == (scheme == "light")
            _require_clean(visit, page)


def test_filters_search_and_order_do_what_they_say(url: str, open_page: OpenPage) -> None:
    visit = open_page(url)
    page = visit.page
    assert _count(visit) == 100  # those with media
    page.uncheck("#with-media")
    everything = _count(visit)
    assert everything > 100 and page.locator(".card").count() == 24
    page.click("#next")
    assert page.inner_text("#page-number").startswith("page 2 of")
    page.select_option("#grade", "wrong")
    assert 0 < _count(visit) < everything
    assert all("wrong" in text for text in page.locator(".card").all_inner_texts())
    page.select_option("#task", "caption")
    assert page.inner_text("#count") == "No sample is like that."
    page.click("#filters button[type=reset]")
    page.locator("#count", has_text=" 100 ").wait_for()
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("test/00001/")
    texts = page.locator(".card").all_inner_texts()
    assert texts and all("test/00001/" in text for text in texts)
    page.fill("#query", "")
    page.uncheck("#with-media")
    kind = page.locator("#type option").nth(1).text_content() or ""
    page.select_option("#type", kind)
    questions = page.locator(".card .question").all_inner_texts()
    assert questions and all(question.startswith(kind) for question in questions)
    page.select_option("#type", "")
    page.select_option("#sort", "best")
    best = float(page.locator(".card .score").first.inner_text())
    page.select_option("#sort", "worst")
    assert float(page.locator(".card .score").first.inner_text()) == 0 < best
    _require_clean(visit, url)


def test_what_changed_between_runs_is_a_click_away(url: str, open_page: OpenPage) -> None:
    visit = open_page(url)
    button = visit.page.locator("[data-change=worse]").first
    announced = int(re.findall(r"\d+", button.inner_text())[0])
    button.click()
    assert _count(visit) == announced
    for card in visit.page.locator(".card").all():
        first, other = (float(text) for text in card.locator(".score").all_inner_texts())
        assert other < first
    for show in visit.page.locator("[data-search]").all():
        show.click()
        assert _count(visit) > 0 and visit.page.input_value("#grade") == "wrong"
    _require_clean(visit, url)


def test_media_are_seen_and_heard(url: str, open_page: OpenPage) -> None:
    visit = open_page(url)
    page = visit.page
    page.fill("#query", "audio/")
    audio = page.locator(".card audio").first
    audio.evaluate("sound => sound.readyState || new Promise((done) => { sound.onloadedmetadata = done; })")
    assert 0.3 < audio.evaluate("sound => sound.duration") < 11  # seconds
    moves = (
        "new Promise((done) => { sound.ontimeupdate = () => sound.currentTime > 0.05 && done(true); sound.play(); })"
    )
    assert audio.evaluate(f"sound => {{ sound.muted = true; return {moves}; }}")
    assert page.locator(".card .head").first.is_visible()
    assert audio.evaluate("sound => sound.error") is None
    for query, per_card in (("video/", 4), ("image/test", 1)):
        page.fill("#query", query)
        first = page.locator(".card .medium:has(img)").first.locator("img")
        assert first.count() == per_card
        for image in first.all():
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 10
    page.fill("#query", "gone not-there")
    page.uncheck("#with-media")
    assert "no preview" in page.inner_text(".card .absent") or "not among" in page.inner_text(".card .absent")
    _require_clean(visit, url)


def test_plots_tell_their_values(url: str, open_page: OpenPage) -> None:
    visit = open_page(url)
    page = visit.page
    loss = page.locator("[data-plot=loss] svg")
    loss.scroll_into_view_if_needed()
    loss.hover(position={"x": 200, "y": 100})
    assert re.search(r"step \d+\s*careful, training [\d.]+", page.inner_text("#tooltip"))
    before = page.inner_text("#tooltip")
    loss.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tooltip") != before
    page.locator("[data-plot=histogram] svg").hover(position={"x": 120, "y": 100})
    assert "captions" in page.inner_text("#tooltip")
    _require_clean(visit, url)


def test_hostile_texts_are_shown_and_do_nothing(url: str, open_page: OpenPage) -> None:
    visit = open_page(url)
    page = visit.page
    page.uncheck("#with-media")
    page.fill("#query", HARMFUL_ID)
    assert _count(visit) == 1
    assert page.locator(".card .question").text_content() == HARM
    page.locator(".card .words").press("Enter")
    assert page.locator("dialog[open] .question").text_content() == HARM
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("window.harmed") is None and page.locator("img[src=x]").count() == 0
    _require_clean(visit, url)
