"""Media that get a row and a warning: it reaches the ledger by every way, is counted, and `--strict-media` refuses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from epalm.cache.manifest import LEDGER, Ledger
from epalm.cache.objects.local import LocalObjects
from epalm.cache.store import Cache
from epalm.errors import MediaError
from epalm.extract.decoding.workers import DecodePool, attempt
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.inputs.preprocess import ImageInput, Pixels
from epalm.extract.live import LiveFeatures
from epalm.extract.media.limits import Limits, MediaWarning, warn_about
from epalm.extract.pipeline import ExtractSummary
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task
from tests.conftest import Epalm
from tests.extract.test_pipeline import LAYERS, PIXELS, Projections
from tests.extractions import Machine, encode_files, extract_features
from tests.scripted_reader import Media, Scripted


@dataclass(frozen=True)
class OddInput(ImageInput):
    """Warns of pictures whose first pixel is red."""

    pixels: Pixels = PIXELS
    limits: Limits = field(default_factory=Limits)

    def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
        decoded = super().__call__(medium, views)
        if decoded.flat[0] == 255:
            warn_about("it is red", hint="paint it")
        return decoded


def _dataset(root: Path, names: Sequence[str], reds: Sequence[str] = ()) -> Dataset:
    root.mkdir(exist_ok=True)
    for number, name in enumerate([*names, *reds]):
        if not (root / name).exists():
            Image.new("RGB", (4, 4), (255 if name in reds else number, number, 7)).save(root / name)
    samples = [Sample(name, Modality.IMAGE, name, Task.CAPTION, "test") for name in [*names, *reds]]
    return Dataset(str(root), root, tuple(samples))


def _run(dataset: Dataset, cache: Cache, *, strict: bool = False, retry_bad: bool = False) -> ExtractSummary:
    encoder = Projections(OddInput(limits=Limits(strict_media=strict)))
    machine = Machine(workers=0, block_rows=3)
    return extract_features(dataset, Modality.IMAGE, encoder, LAYERS, cache, machine=machine, retry_bad=retry_bad)


@pytest.mark.parametrize("workers", [0, 1])
def test_warnings_arrive_with_the_array_joined_and_within_bounds(tmp_path: Path, workers: int) -> None:
    long = "x" * 20 + "\U0001f600" * 600
    media = Media(tmp_path)
    pairs = [["a", None], ["b", "do this"], [long, long], ["e\n\x1b[2J", ""]]
    texts = [f"warns {json.dumps(pair)}" for pair in pairs]
    requests = media(texts[0], "value 1", *texts[1:])
    with DecodePool(Scripted(), workers) as pool:
        done = list(pool.decode(requests, ahead=4))
    assert all(isinstance(one.result, np.ndarray) for one in done)
    short = [one.warning for one in done[:3]]
    assert short == [MediaWarning("a; a again"), None, MediaWarning("b; b again", "do this")]
    if workers:
        assert done[3].warning == MediaWarning(long[:500], long[:500])
        assert done[4].warning and done[4].warning.message.isprintable()


def test_outside_of_an_attempt_and_of_one_that_fails_nothing_is_kept() -> None:
    warn_about("nobody asks")

    def reads(medium: MediaFile, views: Sequence[View]) -> np.ndarray:
        warn_about("odd")
        warn_about("odd")
        if len(views) > 1:
            raise MediaError("bad")
        return np.zeros(1, np.uint8)

    assert attempt(reads, MediaFile(Path()), (VIEW_0,)).warning == MediaWarning("odd")
    assert isinstance(attempt(reads, MediaFile(Path()), (VIEW_0, VIEW_0)).result, MediaError)


def test_a_warned_medium_has_a_row_and_is_counted_from_then_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    dataset = _dataset(tmp_path / "media", ["a.png", "b.png"], ["r.png", "s.png"])
    first = _run(dataset, cache)
    assert (first.encoded, first.bad, first.warned) == (4, 0, 2)
    again = _run(dataset, cache)
    assert (again.hits, again.encoded, again.bad, again.warned) == (4, 0, 0, 2)
    features = cache.find(first.set_name)
    assert not features.bad_media()
    assert [(one.media, one.error, one.hint) for one in features.warned_media()] == [
        ("r.png", "it is red", "paint it"),
        ("s.png", "it is red", "paint it"),
    ]
    (tmp_path / "media/copy.png").write_bytes((tmp_path / "media/r.png").read_bytes())
    assert _run(_dataset(tmp_path / "media", ["a.png", "copy.png"]), cache).warned == 1  # by content, not by name


def test_a_warned_medium_whose_row_is_gone_is_encoded_again(tmp_path: Path) -> None:
    cache, dataset = Cache(tmp_path / "cache"), _dataset(tmp_path / "media", ["a.png"], ["r.png"])
    features = cache.find(_run(dataset, cache).set_name)
    record = features.records()[0]
    assert features.drop(record.block, record)
    assert not features.warned_media()
    again = _run(dataset, cache)
    assert (again.hits, again.encoded, again.warned) == (0, 2, 1)


def test_strict_media_refuses_until_it_is_tried_again_without(tmp_path: Path) -> None:
    cache, dataset = Cache(tmp_path / "cache"), _dataset(tmp_path / "media", ["a.png", "b.png"], ["r.png"])
    strict = _run(dataset, cache, strict=True)
    assert (strict.encoded, strict.bad, strict.warned) == (2, 1, 0)
    (entry,) = cache.find(strict.set_name).bad_media()
    assert entry.error == "it is red" and "--strict-media" in (entry.hint or "")
    assert _run(dataset, cache).bad == 1
    lenient = _run(dataset, cache, retry_bad=True)
    assert (lenient.hits, lenient.encoded, lenient.bad, lenient.warned) == (2, 1, 0, 1)
    assert (_run(dataset, cache, strict=True).warned, _run(dataset, cache).warned) == (1, 1)


def test_a_command_without_options_for_limits_names_none(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "media", ["a.png"])
    live = LiveFeatures(Projections(OddInput(limits=Limits(max_pixels=15))), LAYERS, dataset)
    with pytest.raises(MediaError, match="more than 15") as caught:
        live.gather(dataset.samples)
    assert caught.value.hint == "scale it down"


def test_lines_of_before_are_read_and_errors_and_warnings_do_not_hide_each_other(tmp_path: Path) -> None:
    old = {"media": "a.png", "digest": "1", "error": "torn", "hint": None}
    (tmp_path / LEDGER).write_text(json.dumps(old) + "\n")
    ledger = Ledger(LocalObjects(tmp_path))
    (before,) = ledger.entries()
    assert (before.media, before.warning) == ("a.png", False)
    ledger.add_all([type(before)("a.png", "1", "odd", None, warning=True)])
    assert [entry.error for entry in ledger.entries()] == ["torn"]
    assert [entry.error for entry in ledger.entries(warning=True)] == ["odd"]


def test_as_typed(tmp_path: Path, epalm: Epalm, small_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dataset(tmp_path / "media", ["a.png"], ["r.png"])
    monkeypatch.setattr("epalm.extract.inputs.preprocess.ImageInput.__call__", _warning_reader())
    asked = ("extract", "-m", "image", "--data", tmp_path / "media", "--weights", small_vit, "--layers", "0")
    words = (*asked, "--workers", 0, "--cache", tmp_path / "cache")
    done = epalm(*words)
    assert done.code == 0 and "0 bad, 1 with a warning" in done.err and "epalm cache ledger" in done.err
    strict = epalm(*words, "--strict-media", "--json")
    assert strict.code == 3 and "count as bad" in strict.err
    assert (json.loads(strict.out)["hits"], json.loads(strict.out)["warned"]) == (2, 1)
    assert json.loads(epalm(*words, "--plan", "--json").out)["warned"] == 1
    (entry,) = json.loads(epalm("cache", "ledger", "--cache", tmp_path / "cache", "--json").out)
    assert (entry["media"], entry["warning"]) == ("r.png", True)
    shown = epalm("cache", "ledger", "--cache", tmp_path / "cache")
    assert "media with a warning" in shown.out and "it is red" in shown.out and "--retry-bad" not in shown.err
    assert "warning: r.png" in epalm("cache", "info", "image", "--cache", tmp_path / "cache").out
    fresh = epalm(*asked, "--cache", tmp_path / "fresh", "--workers", 0, "--strict-media")
    assert fresh.code == 3 and "1 encoded, 1 bad" in fresh.err


def test_without_a_ledger_it_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, encoder = _dataset(tmp_path / "media", ["a.png"], ["r.png"]), Projections(OddInput())
    live = LiveFeatures(encoder, LAYERS, dataset)
    for _ in range(2):
        live.gather(dataset.samples)
    assert capsys.readouterr().err.count("r.png: it is red") == 1
    encode_files([dataset.locate("r.png")], encoder, LAYERS)
    assert "r.png: it is red" in capsys.readouterr().err


def _warning_reader() -> Callable[[ImageInput, MediaFile, Sequence[View]], np.ndarray]:
    inner = ImageInput.__call__

    def read(self: ImageInput, medium: MediaFile, views: Sequence[View]) -> np.ndarray:
        decoded = inner(self, medium, views)
        if medium.path.name == "r.png":
            warn_about("it is red", hint="paint it")
        return decoded

    return read
