"""The report as a file: what is in it, what nobody can put into it, what it is limited to, and that it is the same."""

import io
import json
import re
import shlex
import shutil
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epalm.evaluate.report import media as report_media
from epalm.evaluate.report import page as report_page
from epalm.evaluate.report import samples as report_samples
from epalm.evaluate.report.page import PAGES, curves
from epalm.evaluate.report.samples import make_samples, mistakes
from epalm.evaluate.score_files import read_scores
from epalm.extract.decoding import workers
from epalm.media import MediaFile
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.report_runs import HARM, RUNS

JSON = st.recursive(
    st.text() | st.integers() | st.none(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)
)


@pytest.fixture
def here(scored_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(scored_runs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    # Decoded here, which starts faster; the tests in a browser have processes for it.
    monkeypatch.setattr(workers, "default_workers", lambda: 0)
    return tmp_path / "here"


@given(JSON)
@settings(max_examples=30)
def test_data_come_out_as_they_went_in_and_mean_nothing_to_html(value: object) -> None:
    text = PAGES.from_string("{{ value | tojson }}").render(value=value)
    assert json.loads(text) == value
    assert text.isascii() and not set(text) & set("<>&")


def test_one_file_the_same_each_time_with_nothing_to_fetch(here: Path, epalm: Epalm) -> None:
    first = epalm("report", "--samples", 6, "--json")
    assert first.code == 0, first.err
    written = json.loads(first.out)
    path = here / ".epalm/runs/careful/report.html"
    assert written["report"].endswith("careful/report.html") and written["bytes"] == path.stat().st_size
    assert written["shown"] == 6 and written["listed"] == written["samples"] > 100
    page = path.read_bytes()
    again = epalm("report", "careful", "--samples", 6, "--out", here / "again.html")
    assert again.code == 0 and "again.html: " in again.out and "KiB" in again.out
    assert (here / "again.html").read_bytes() == page
    text = page.decode()
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)[0]
    assert policy.startswith("default-src &#39;none&#39;") and "unsafe" not in policy and "http" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "/home/me" not in text and "6b18" * 16 in text
    root = json.loads((here / ".epalm/runs/careful/scores/test.json").read_text())["data"].partition(":")[2]
    assert root and root not in text and "<bdi>data.jsonl</bdi>" in text


def test_hostile_texts_stay_texts(here: Path, epalm: Epalm) -> None:
    name = "<i>x"
    shutil.copytree(here / ".epalm/runs/hasty", here / f".epalm/runs/{name}")
    lines = here / f".epalm/runs/{name}/scores/test.per-sample.jsonl"
    lines.write_text(
        lines.read_text().replace('"text": "not ', '"text": "\\ud800')
    )  # half a character, as JSON may say
    done = epalm("report", "careful", name, "--samples", 0, "--out", "page.html")
    assert done.code == 0, done.err
    text = (here / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and 'onerror="' not in text
    assert name not in text and "&lt;i&gt;x" in text
    assert [row["prompt"] for row in _data(text)["rows"] if row["texts"][0] == HARM] == [HARM]
    assert "\u2028" not in re.sub(r"<script.*", "", text.split("</style>")[0])


def test_worst_best_changed_and_drawn_ones_are_shown_and_no_more_than_fit(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [read_scores(name, Path(".epalm/runs")) for name in RUNS]
    rows = make_samples(runs, 24)
    shown = [row for row in rows.rows if row["shown"]]
    assert len(shown) == 24 and len(rows.frames[0]) == len(rows.rows)
    assert {row["task"] for row in shown} == {"qa", "caption"}
    scores = [row["scores"][0] for row in shown if row["task"] == "qa"]
    assert scores.count(0.0) >= 3 and scores.count(1.0) >= 3
    assert any(row["scores"][0] != row["scores"][1] for row in shown)
    monkeypatch.setattr(report_samples, "MAX_ROWS", 40)
    fewer = make_samples(runs, 24)
    assert len(fewer.rows) == 40 and len(fewer.frames[0]) == len(rows.rows)
    assert [row for row in fewer.rows if row["shown"]] == shown
    long = "x" * 5000
    assert len(report_samples.short(long)) < 1100 and "5,000 characters" in report_samples.short(long)


def test_media_that_cannot_be_shown_say_why(here: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_media, "MAX_BYTES", 60_000)
    done = epalm("report", "--samples", 1000, "--out", "page.html", "--json")
    assert done.code == 0, done.err
    counts = json.loads(done.out)
    assert counts["media_missing"] > 1 and "are not shown" in done.err
    text = (here / "page.html").read_text()
    faulty = [row["media"] for row in _data(text)["rows"] if "fault" in _data(text)["media"][row["media"]]]
    assert counts["shown"] == counts["samples"] - len(faulty) < counts["samples"]
    assert f"; {counts['shown']} of them with their media" in text and f"and {counts['shown']} of" in text
    assert "the file does not exist" in text and "left out: the media of a page" in text
    assert len(text) < 60_000 + 200_000
    (here / "data.jsonl").unlink()
    gone = epalm("report", "--samples", 5, "--out", "page.html")
    assert gone.code == 0 and "data.jsonl does not exist" in gone.err and "--data" in gone.err
    assert "0 of " in gone.out and "samples with their media" in gone.out
    text = (here / "page.html").read_text()
    assert "the data cannot be read" in text and "does not exist" not in text
    asked = epalm("report", "--data", "nowhere.jsonl")
    assert asked.code == 1 and "nowhere.jsonl" in asked.err and asked.err.count("error:") == 1


def test_a_fault_does_not_say_where_the_data_lay(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "private"
    (root / "image").mkdir(parents=True)
    (root / "image/loop.jpg").symlink_to("loop.jpg")

    def faulty(media: list[MediaFile], *_: object, **__: object) -> list[dict[str, Any]]:
        return [{"fault": f"{one.path}: Invalid data found in {str(one.path)!r}"} for one in media]

    monkeypatch.setattr(report_media, "make_previews", faulty)
    scored = read_scores("careful", Path(".epalm/runs"))
    samples = make_samples([scored], 50)
    samples.rows[0] |= {"media": "image/loop.jpg", "shown": True}
    lines = Path("data.jsonl").read_text() + json.dumps(
        {"id": "loop", "modality": "image", "media": "image/loop.jpg", "task": "caption", "split": "test"}
    )
    Path("data.jsonl").write_text(lines)
    shown = report_media.shown_media(scored, samples, f"data.jsonl:{root}", follow_links=False, workers=0)
    faults = {name: one["fault"] for name, one in shown.items()}
    assert "symbolic links" in faults["image/loop.jpg"] and not any(str(tmp_path) in one for one in faults.values())
    assert any(one == f"{name}: Invalid data found in {name!r}" for name, one in faults.items())


def test_the_whole_of_a_wrong_answer_is_searched_for(here: Path) -> None:
    path = here / ".epalm/runs/careful/scores/test.per-sample.jsonl"
    long = " ".join(f"word{number}" for number in range(300))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    wrong = next(line for line in lines if line["task"] == "qa" and not line["scores"]["exact match"])
    for line in lines:
        line["text"] = f" {long}" if line is wrong else line["text"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = make_samples([read_scores("careful", Path(".epalm/runs"))], 0)
    (one,) = [one for one in mistakes(samples) if one["predicted"].startswith("word0 ")]
    (row,) = [row for row in samples.rows if row["id"] == wrong["id"]]
    assert len(one["predicted"]) < 100 and all(word in row["texts"][0].split() for word in one["search"].split()[:100])


def test_a_training_that_went_astray_and_samples_that_nobody_scored(here: Path, epalm: Epalm) -> None:
    run = here / ".epalm/runs/careful"
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n{"step": 3, "loss": 2}'
    )
    written = json.loads((run / "scores/test.json").read_text())
    (run / "scores/test.json").write_text(json.dumps(written | {"tasks": {}}))
    (run / "scores/test.per-sample.jsonl").write_text("")
    done = epalm("report", "careful", "--out", "page.html")
    assert done.code == 0, done.err
    text = (here / "page.html").read_text()
    assert "there is nothing to score against" in text and '"points":[[3.0,2.0]]' in text


def test_a_long_curve_is_averaged_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "_POINTS", 500)
    lines = [{"step": step, "loss": float(step % 2)} for step in range(1, 2001)]
    (curve,) = curves(lines)
    assert len(curve["points"]) == 500 and {value for _, value in curve["points"]} == {0.5}
    assert curve["points"][0] == [2.5, 0.5] and (curve["plot"], curve["validation"]) == ("loss", False)
    assert next(curves(lines[:3]))["points"] == [[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]]
    assert not list(curves([])) and not list(curves([{"step": 1, "loss": float("nan")}]))


@pytest.mark.parametrize("line", ["NaN", "[]", '{"id": "1"}', '{"scores": {"CIDEr": NaN}}', '{"text": 1}'])
def test_damaged_scores_are_one_message(here: Path, epalm: Epalm, line: str) -> None:
    path = here / ".epalm/runs/careful/scores/test.per-sample.jsonl"
    whole = json.loads(path.read_text().splitlines()[0])
    value = json.loads(line)
    path.write_text(json.dumps(whole | value if isinstance(value, dict) and "id" not in value else value))
    done = epalm("report", "--samples", 0)
    assert done.code == 1 and "test.per-sample.jsonl cannot be read" in done.err and "Traceback" not in done.err


def test_what_cannot_be_reported_is_one_message(here: Path, epalm: Epalm) -> None:
    (here / ".epalm/runs/new").mkdir()
    (here / ".epalm/runs/new/config.toml").touch()
    written = json.loads((here / ".epalm/runs/hasty/scores/test.json").read_text())
    (here / ".epalm/runs/hasty/scores/test.json").write_text(json.dumps(written | {"samples": "0" * 64}))
    for words, says in (
        (("new",), "epalm score --run new"),
        (("nothing",), "no run folder"),
        (RUNS, "different samples"),
        (("--runs", "none"), "there is no run"),
        (("careful", "--samples", 0, "--out", "no/folder.html"), "cannot be written"),
    ):
        done = epalm("report", *words)
        assert done.code == 1 and says in done.err and "Traceback" not in done.err, done.err
        assert done.err.count("error:") == 1
    assert not list((here / ".epalm/runs").rglob("*.html"))


def test_predictions_from_elsewhere_have_a_report_as_well(here: Path, epalm: Epalm) -> None:
    for suffix in ("json", "per-sample.jsonl"):
        shutil.copy(here / f".epalm/runs/careful/scores/test.{suffix}", here / f"theirs.scores.{suffix}")
    scores = json.loads((here / "theirs.scores.json").read_text())
    (here / "theirs.scores.json").write_text(json.dumps(scores | {"per_sample": "theirs.scores.per-sample.jsonl"}))
    done = epalm("report", "theirs.scores.json", "--samples", 0)
    assert done.code == 0, done.err
    text = (here / "theirs.report.html").read_text()
    assert "Predictions from elsewhere" in text and 'id="curves"' not in text


def test_the_commands_of_the_document(here: Path, epalm: Epalm) -> None:
    for name, copy in zip(RUNS, ("my-run", "baseline"), strict=True):
        shutil.copytree(here / ".epalm/runs" / name, here / ".epalm/runs" / copy)
    shutil.copy(here / "data.jsonl", here / "moved.jsonl")
    blocks = re.findall(r"```bash\n(.*?)```", (Path(__file__).parents[3] / "docs/report.md").read_text(), re.DOTALL)
    commands = [words for line in "".join(blocks).splitlines() if (words := shlex.split(line, comments=True))]
    assert len(commands) == 4
    for words in commands:
        done = epalm(*words[1:], "--samples", 0)
        assert done.code == 0, done.err


def _data(page: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0])
    return data


def _preview(path: Path, modality: Modality) -> dict[str, Any]:
    (preview,) = report_media.make_previews([MediaFile(path)], modality, workers=0)
    return preview


def _bytes(url: str) -> io.BytesIO:
    return io.BytesIO(b64decode(url.partition(";base64,")[2]))


def test_previews_are_small_and_made_anew(tmp_path: Path) -> None:
    Image.effect_noise((900, 600), 60).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    picture = _preview(tmp_path / "a.png", Modality.IMAGE)
    assert picture == _preview(tmp_path / "a.png", Modality.IMAGE)
    with Image.open(_bytes(picture["pictures"][0])) as image:
        assert (image.format, image.size) == ("WEBP", (320, 213))
    assert "picture" in _preview(tmp_path / "bad.png", Modality.IMAGE)["fault"]
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", rng.uniform(-0.1, 0.1, (44_100 * 12, 2)), 44_100)
    sound = _preview(tmp_path / "a.wav", Modality.AUDIO)
    assert sound["seconds"] == report_media.SECONDS
    assert soundfile.info(_bytes(sound["sound"])).duration == pytest.approx(report_media.SECONDS, abs=0.2)
    assert sound == _preview(tmp_path / "a.wav", Modality.AUDIO)


def test_a_clip_becomes_a_strip_of_frames(worlds: Mapping[Modality, Path]) -> None:
    clip = next(iter(sorted((worlds[Modality.VIDEO] / "test").iterdir())))
    strip = _preview(clip, Modality.VIDEO)
    assert len(strip["pictures"]) == 4 and "sound" not in strip
