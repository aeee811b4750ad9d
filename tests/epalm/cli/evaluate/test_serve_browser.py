"""`epalm serve` in a browser: an image, a clip and a sound are answered as `epalm predict` does, and nothing leaks."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from epalm.samples import Modality
from tests.browser import OpenPage
from tests.conftest import Epalm

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHORT = ("--recipe", "playground", "--set", "optim.max_steps=2", "--set", "optim.batch_size=8")
QUESTION = "what <b>is</b> this?"
pytestmark = pytest.mark.slow


@dataclass
class Served:
    """A server under way, and where it puts what is temporary."""

    process: "subprocess.Popen[str]"
    url: str
    temporary: Path


@pytest.fixture
def here(epalm: Epalm, worlds: dict[Modality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for modality, world in worlds.items():
        for words in (
            ("extract", "-m", modality, "--data", world, "--weights", "playground", "--workers", 0),
            ("train", "--from-cache", "-m", modality, "--run", modality, *SHORT),
        ):
            done = epalm(*words)
            assert done.code == 0, done.err
    return tmp_path


@pytest.fixture
def served(here: Path) -> Iterator[Served]:
    if find_spec("gradio") is None:
        pytest.skip("no Gradio: pip install --editable '.[dev]'")
    temporary = here / "temporary"
    temporary.mkdir()
    words = [sys.executable, "-m", "epalm", "serve", "--port", "0"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = ""
        while not (found := re.search(r"open (http://127\.0\.0\.1:\d+/)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield Served(process, found[1], temporary)
        process.kill()


def _ask(page: "Page", medium: Path, tag: str, question: str, said: "re.Pattern[str]") -> str:
    """Upload a file in place of the former one, ask, and read the answer as soon as it is `said`, or a fault.

    `tag` shows the file when all of it is there: another one than before.
    """
    if page.locator("#upload").get_by_label("Clear").count():
        page.locator("#upload").get_by_label("Clear").click()
    page.locator("#upload input[type=file]").set_input_files(medium)
    page.locator(f"#shown {tag}").wait_for()
    page.locator("#question textarea, #question input").fill(question)
    page.locator("#ask").press("Enter")  # which finds it while the file that is shown still moves it
    page.locator("#answer").get_by_text(re.compile(f"{said.pattern}|→")).wait_for()
    return page.locator("#answer .text, #answer .fault").inner_text()


def test_a_page_answers_an_image_a_clip_and_a_sound(
    served: Served, open_page: OpenPage, worlds: dict[Modality, Path], here: Path, epalm: Epalm
) -> None:
    visit = open_page(served.url, width=400)
    page = visit.page
    page.locator("#ask").wait_for()
    assert page.title() == "epalm"
    asked = ((Modality.IMAGE, "img", QUESTION), (Modality.VIDEO, "video", ""), (Modality.AUDIO, "audio", QUESTION))
    for modality, tag, question in asked:
        medium = next(path for path in sorted((worlds[modality] / "test").iterdir()))
        predicted = epalm("predict", medium, *filter(None, [question]), "--json")
        text = json.loads(predicted.out)["text"]
        said = re.compile(rf"{'answer' if question else 'caption'} by {modality} in \d+\.\d s")
        assert _ask(page, medium, tag, question, said) == (" ".join(text.split()) or "(it said nothing)")
        assert page.evaluate(f"document.querySelector('#shown {tag}').src").startswith(served.url)

    broken = here / "<img src=x onerror=alert(1)>.png"
    broken.write_bytes(b"\x89PNG no")
    fault = _ask(page, broken, "img", "", re.compile("→"))
    assert "→" in fault and str(served.temporary) not in fault and "Traceback" not in fault
    assert page.locator("#answer img").count() == 0
    assert visit.overflow() <= 0
    assert all(url.startswith((served.url, "blob:")) for url in visit.requests), visit.requests
    assert set(visit.faults) <= {"Method not implemented."}  # which Gradio's own script warns of

    _nothing_but_uploads_is_read(served.url, here)
    assert any(served.temporary.rglob("*.png"))
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait() == 0
    assert not any(served.temporary.rglob("*.png"))


def _nothing_but_uploads_is_read(url: str, here: Path) -> None:
    """Requests as no page makes them: other files, a URL in place of a file, another host's name."""
    secret = here / "secret.png"
    secret.write_text("secret")
    assert _status(f"{url}gradio_api/file={secret}") in (403, 404)
    assert _status(f"{url}gradio_api/file={here}/.epalm/runs/image/config.toml") in (403, 404)
    assert _status(url, {"Host": "elsewhere.example"}) == 400
    assert _status(url) == 200


def _status(url: str, headers: dict[str, str] | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
