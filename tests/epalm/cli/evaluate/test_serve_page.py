"""What requests that no page makes get from `epalm serve`: other files, addresses and hosts are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from epalm.errors import MediaError
from epalm.extract.media.limits import Limits
from epalm.samples import Modality
from tests.conftest import Epalm

if TYPE_CHECKING:
    from starlette.testclient import TestClient

MARKUP = "<b>red</b>"


class _Model:
    """A run for pictures that answers with markup, and reads nothing."""

    limits = Limits(max_bytes=1000)
    modality = Modality.IMAGE
    run = SimpleNamespace(folder=SimpleNamespace(name="mine"))

    def __init__(self) -> None:
        self.read: list[Path] = []

    def answer(self, file: Path, question: str) -> str:
        self.read.append(file)
        return MARKUP

    def caption(self, file: Path) -> str:
        raise MediaError(f"{file}: {MARKUP}", hint=MARKUP)


@pytest.fixture(scope="module")
def model() -> _Model:
    return _Model()


@pytest.fixture(scope="module")
def client(model: _Model, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[TestClient]":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        pytest.importorskip("gradio", reason="no Gradio: pip install --editable '.[dev]'")
        from starlette.testclient import TestClient

        from epalm.cli.evaluate.serve_page import page

        with TestClient(page(cast(Any, [model]), "127.0.0.1"), base_url="http://127.0.0.1") as client:
            yield client


def _ask(client: "TestClient", file: Any, question: Any, *, queued: bool = False) -> dict[str, Any]:
    """What the server says in the end to a question put as the page puts it, or as Gradio's queue would take it."""
    config = client.get("/config").json()
    (asking,) = (one for one in config["dependencies"] if len(one["inputs"]) == 2)
    words = {"data": [file, question], "fn_index": asking["id"], "session_hash": "me"}
    if not queued:
        done = client.post("/gradio_api/run/predict", json=words)
        return {"success": done.status_code == 200, "output": done.json()}
    assert client.post("/gradio_api/queue/join", json=words).status_code == 200
    stream = client.get("/gradio_api/queue/data", params={"session_hash": "me"}).text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    return next(one for one in events if one["msg"] == "process_completed")


def _named(path: str, *, stream: bool = False) -> dict[str, Any]:
    return {"path": path, "is_stream": stream, "meta": {"_type": "gradio.FileData"}}


def test_what_is_shown_is_escaped(client: "TestClient") -> None:
    (path,) = client.post("/gradio_api/upload", files={"files": ("<i>.png", b"bytes")}).json()
    for question in ("what?", ""):
        done = _ask(client, _named(path), question)
        (shown,) = done["output"]["data"]
        assert (
            done["success"] and "&lt;b&gt;red" in shown and "<b>" not in shown and str(Path(path).parent) not in shown
        )
    (shown,) = _ask(client, None, "what?")["output"]["data"]
    assert "no file" in shown
    (shown,) = _ask(client, _named(path), "?" * 501)["output"]["data"]
    assert "501 characters" in shown


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("place", ["file", "question"])
def test_only_uploads_are_read(client: "TestClient", model: _Model, place: str, queued: bool, tmp_path: Path) -> None:
    import gradio.processing_utils

    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.png", b"bytes")}).json()
    model.read.clear()
    uploads = Path(path).parents[1]
    there = set(uploads.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        fetched: list[Any] = []
        for name in ("save_url_to_cache", "async_ssrf_protected_download", "ssrf_protected_download"):
            if hasattr(gradio.processing_utils, name):
                patch.setattr(gradio.processing_utils, name, lambda *words, **_: fetched.append(words))
        for wrong in (str(secret), f"{path}/../../../{secret}", "http://192.0.2.1/a.png", f"file://{secret}"):
            for stream in (False, True):
                named = _named(wrong, stream=stream)
                done = _ask(client, *((named, "what?") if place == "file" else (_named(path), named)), queued=queued)
                refused = not done["success"] or 'class="fault"' in done["output"]["data"][0]
                assert refused or (place == "question" and "secret" not in done["output"]["data"][0])
        assert not fetched and all(read.name == "a.png" and read.is_relative_to(uploads) for read in model.read)
    assert set(uploads.rglob("*.png")) <= there
    assert client.get(f"/gradio_api/file={secret}").status_code in (403, 404)


def test_neither_large_files_nor_other_names_are_let_in(client: "TestClient") -> None:
    assert client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 1001)}).status_code == 413
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_without_gradio_it_says_what_to_install(epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epalm.cli.evaluate.serve.find_spec", lambda _: None)
    done = epalm("serve")
    assert done.code == 1 and "pip install 'epalm[serve]'" in done.err


def test_without_a_run_it_says_how_to_train_one(epalm: Epalm, tmp_path: Path) -> None:
    done = epalm("serve", "--runs", tmp_path)
    assert done.code == 1 and "epalm extract" in done.err and "Traceback" not in done.err
