"""What extraction leaves: each medium's row once, a ledger line per bad one, the same rows after any kill."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.cache.token_rules import TokenLayout
from epalm.errors import EpalmError
from epalm.extract.inputs.augment import VIEW_0, View
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Input, Pixels, VideoInput
from epalm.extract.pipeline import ExtractSummary
from epalm.extract.plan import ExtractionPlan, Pending
from epalm.extract.spec_builder import feature_spec
from epalm.extract.stream import without_rows
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task
from tests.extractions import Machine, encode_files, extract_features, plan_features

PIXELS = Pixels((4, 4), "nearest", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LAYERS = (1, 2)


class Projections:
    """The smallest encoder: `depth` fixed projections of the input."""

    kind, depth, width, layout = "projections", 3, 5, TokenLayout(True, ())
    device, precision = torch.device("cpu"), "float32"

    def __init__(self, read: Input | None = None, modality: Modality = Modality.IMAGE, scale: float = 1.0) -> None:
        self.input: Input = read or ImageInput(PIXELS)
        self.modality, self.scale = modality, scale
        self.batches: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": str(self.scale)}

    def encode(self, batch: torch.Tensor, layers: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        self.batches.append(len(batch))
        flat = batch.flatten(1)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(flat.shape[1], self.depth * self.width, generator=generator) * self.scale
        tokens: torch.Tensor = (flat @ weights).unflatten(1, (self.depth, self.width))
        return tokens[:, list(layers), None]


def _picture(path: Path, value: int) -> None:
    Image.new("RGB", (4, 4), (value % 256, value // 256, 7)).save(path)


def _dataset(root: Path, names: list[str], modality: Modality = Modality.IMAGE) -> Dataset:
    samples = [Sample(f"{name}#{n}", modality, name, Task.CAPTION, "test") for name in names for n in range(2)]
    return Dataset("test", root, tuple(samples))


def _pictures(root: Path, count: int) -> list[str]:
    root.mkdir(exist_ok=True)
    names = [f"{number:03d}.png" for number in range(count)]
    for number, name in enumerate(names):
        _picture(root / name, number)
    return names


def _run(dataset: Dataset, cache: Cache, encoder: Projections | None = None, **options: Any) -> ExtractSummary:
    encoder = encoder or Projections()
    how = {"workers": 0, "batch_size": 4, "block_rows": 8}
    how |= {key: options.pop(key) for key in list(options) if key in how}
    machine = Machine(**how)
    return extract_features(dataset, encoder.modality, encoder, LAYERS, cache, machine=machine, **options)


def _counts(summary: ExtractSummary) -> tuple[int, int, int]:
    return summary.hits, summary.encoded, summary.bad


def _rows(cache: Cache, dataset: Dataset, summary: ExtractSummary) -> np.ndarray:
    reader = cache.find(summary.set_name).open()
    digests = [cache.media.digest(dataset.locate(name)) for name in dataset.media(Modality.IMAGE)]
    return np.asarray(reader.gather(reader.rows_of(digests)))  # (N, L, T, D)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_what_the_encoder_gives(tmp_path: Path, workers: int) -> None:
    dataset = _dataset(tmp_path / "media", _pictures(tmp_path / "media", 19))
    cache, encoder = Cache(tmp_path / "cache"), Projections()
    summary = _run(dataset, cache, encoder, workers=workers)
    assert (summary.media, summary.hits, summary.encoded, summary.bad) == (19, 0, 19, 0)
    assert encoder.batches == [4, 4, 4, 4, 3]  # no batch crosses a block of 8
    files = [dataset.locate(name) for name in dataset.media(Modality.IMAGE)]
    expected = np.concatenate([encode_files([file], encoder, LAYERS) for file in files])
    np.testing.assert_allclose(_rows(cache, dataset, summary), expected, rtol=2e-3, atol=2e-3)
    assert sorted(len(record.rows) for record in cache.find(summary.set_name).records()) == [3, 8, 8]


def test_a_second_run_encodes_nothing_and_later_ones_what_changed(tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = _pictures(media, 10)
    cache = Cache(tmp_path / "cache")
    assert _run(_dataset(media, names), cache).encoded == 10
    again = Projections()
    summary = _run(_dataset(media, names), cache, again)
    assert (summary.hits, summary.encoded, again.batches) == (10, 0, [])

    (media / names[0]).rename(media / "renamed.png")  # same bytes: nothing to do
    _picture(media / names[1], 500)  # changed
    _picture(media / "new.png", 501)
    (media / "copy.png").write_bytes((media / names[2]).read_bytes())
    summary = _run(_dataset(media, ["renamed.png", *names[1:], "new.png", "copy.png"]), cache)
    assert (summary.hits, summary.encoded) == (10, 2)


def test_media_are_held_against_the_cache_once_each_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(features: FeatureSet, items: Sequence[Pending]) -> list[Pending]:
        asked.append(len(items))
        return without_rows(features, items)

    monkeypatch.setattr("epalm.extract.stream.without_rows", counted)
    dataset = _dataset(tmp_path / "media", _pictures(tmp_path / "media", 9))
    assert _run(dataset, Cache(tmp_path / "cache"), block_rows=2).encoded == 9
    assert asked == [2, 2, 2, 1]


def test_media_of_equal_bytes_are_encoded_once(tmp_path: Path) -> None:
    names = _pictures(tmp_path / "media", 3)
    for name in names:
        _picture(tmp_path / "media" / name, 9)
    encoder = Projections()
    assert _run(_dataset(tmp_path / "media", names), Cache(tmp_path / "cache"), encoder).encoded == 1
    assert encoder.batches == [1]


def test_bad_media_of_each_kind_become_ledger_lines(tmp_path: Path) -> None:
    media = tmp_path / "media"
    good = _pictures(media, 5)
    Image.effect_noise((64, 64), 90).save(media / "cut.jpg")
    (media / "cut.jpg").write_bytes((media / "cut.jpg").read_bytes()[:900])
    (media / "empty.png").touch()
    (media / "text.png").write_text("no picture")
    names = [good[0], "missing.png", "cut.jpg", good[1], "empty.png", "../out.png", *good[2:], "text.png"]
    cache = Cache(tmp_path / "cache")
    summary = _run(_dataset(media, names), cache, workers=2)
    assert (summary.encoded, summary.bad) == (5, 5)
    ledger = cache.find(summary.set_name).ledger
    entries = {entry.media: entry for entry in ledger.entries()}
    assert set(entries) == {"missing.png", "cut.jpg", "empty.png", "../out.png", "text.png"}
    for name, words in (
        ("missing.png", "does not exist"),
        ("cut.jpg", "truncated"),
        ("empty.png", "empty"),
        ("../out.png", "outside"),
        ("text.png", "no known image format"),
    ):
        assert words in entries[name].error
        assert entries[name].hint
    assert Path(summary.ledger).is_file()


def test_bad_media_are_not_tried_again_unless_asked(tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = _pictures(media, 2)
    (media / "bad.png").write_text("no picture")
    (media / names[1]).rename(media / "later.png")
    dataset, cache = _dataset(media, [*names, "bad.png"]), Cache(tmp_path / "cache")
    first = _run(dataset, cache)
    lines = Path(first.ledger).read_text().splitlines()
    assert (first.encoded, first.bad) == (1, 2)
    again = _run(dataset, cache)
    assert (again.hits, again.encoded, again.bad) == (1, 0, 2)
    assert Path(first.ledger).read_text().splitlines() == lines  # said once
    (media / "later.png").rename(media / names[1])  # the missing one has come
    assert _counts(_run(dataset, cache)) == (1, 1, 1)
    assert _counts(_run(dataset, cache, retry_bad=True)) == (2, 0, 1)


def test_other_modalities_faults(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "text.mp4").write_text("no video\n" * 30)
    soundfile.write(media / "zero.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(media / "sound.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    cache = Cache(tmp_path / "cache")
    video = Projections(VideoInput(PIXELS, 2), Modality.VIDEO)
    summary = _run(_dataset(media, ["text.mp4", "sound.wav"], Modality.VIDEO), cache, video)
    reasons = {entry.media: entry.error for entry in cache.find(summary.set_name).ledger.entries()}
    assert "no video stream" in reasons["sound.wav"]
    assert "cannot be decoded" in reasons["text.mp4"]
    audio = Projections(AudioInput(16_000, 8, 16, 0.0, 1.0), Modality.AUDIO)
    summary = _run(_dataset(media, ["zero.wav", "sound.wav"], Modality.AUDIO), cache, audio)
    (entry,) = cache.find(summary.set_name).ledger.entries()
    assert (entry.media, summary.encoded) == ("zero.wav", 1)
    assert "no samples" in entry.error


def test_a_file_that_changes_while_it_is_read_gets_no_row(tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = _pictures(media, 3)

    class Meddling(ImageInput):
        def __call__(self, medium: MediaFile, views: Sequence[View] = (VIEW_0,)) -> np.ndarray:
            if medium.path.name == names[1]:
                _picture(medium.path, 999)
                os.utime(medium.path, (1, 1))
            return super().__call__(medium, views)

    dataset, cache = _dataset(media, names), Cache(tmp_path / "cache")
    summary = _run(dataset, cache, Projections(Meddling(PIXELS)))
    assert (summary.encoded, summary.bad) == (2, 1)
    assert _counts(_run(dataset, cache)) == (2, 1, 0)


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset, cache = _dataset(tmp_path / "m", _pictures(tmp_path / "m", 2)), Cache(tmp_path / "cache")
    with pytest.raises(EpalmError) as error:
        _run(dataset, cache, Projections(scale=1e8))
    assert "float32" in (error.value.hint or "")
    assert _run(dataset, cache, Projections(scale=1e8), dtype="float32").encoded == 2


def test_the_plan_counts_without_encoding(tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = [*_pictures(media, 5), "bad.png", "missing.png"]
    (media / "bad.png").write_text("no picture")
    cache, encoder = Cache(tmp_path / "cache"), Projections()
    spec = feature_spec(encoder, LAYERS)

    def plan(dataset: Dataset) -> ExtractionPlan:
        return plan_features(dataset, Modality.IMAGE, encoder, LAYERS, cache)

    before = plan(_dataset(media, names))
    assert cache.existing(spec) is None
    assert (before.media, before.hits, len(before.pending), len(before.unreadable)) == (7, 0, 6, 1)
    assert before.bytes == 6 * 2 * 5 * 2  # rows × layers × width × bytes
    _run(_dataset(media, ["bad.png", *names[:3]]), cache)
    after = plan(_dataset(media, names))
    assert (after.hits, len(after.pending), after.known_bad, len(after.unreadable)) == (3, 2, 1, 1)


SLOW_EXTRACTION = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from tests.extract import test_pipeline as here

    class Slow(here.Projections):
        def encode(self, *given):
            time.sleep(0.05)
            return super().encode(*given)

    if __name__ == "__main__":
        media = Path(sys.argv[2])
        dataset = here._dataset(media, sorted(path.name for path in media.iterdir()))
        here._run(dataset, here.Cache(Path(sys.argv[3])), Slow(), workers=1)
"""


def test_killed_beside_its_decoders_and_run_again_the_blocks_are_the_same(tmp_path: Path) -> None:
    media = tmp_path / "media"
    names = _pictures(media, 60)
    (media / names[5]).write_text("bad")
    (media / names[20]).write_text("bad too")
    dataset = _dataset(media, names)
    readable = _dataset(media, [name for number, name in enumerate(names) if number not in (5, 20)])
    whole = Cache(tmp_path / "whole")
    expected = _run(dataset, whole)
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW_EXTRACTION))
    words = [sys.executable, str(script), str(Path(__file__).parents[2]), str(media), str(tmp_path / "killed")]
    process = subprocess.Popen(words)
    while len(list((tmp_path / "killed").glob("sets/*/records/*.json"))) < 3:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.005)
    process.kill()
    process.wait()
    killed = Cache(tmp_path / "killed")
    summary = _run(dataset, killed)
    assert summary.bad == 2
    assert summary.hits + summary.encoded == 58
    assert summary.hits >= 24  # what was committed before the kill stayed
    mine, theirs = killed.find(summary.set_name), whole.find(expected.set_name)
    assert not mine.verify()
    assert {record.block for record in mine.records()} == {record.block for record in theirs.records()}
    assert np.array_equal(_rows(killed, readable, summary), _rows(whole, readable, expected))
