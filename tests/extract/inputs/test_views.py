"""Inputs in several views: view 0 as ever, the others a pure function of their seed, all from one decoding."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from epalm.errors import MediaError
from epalm.extract.inputs.augment import VIEW_0, PixelAugmentation, SpecAugment, view_of
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Input, Pixels, VideoInput
from epalm.extract.media import containers as containers_module
from epalm.extract.media import image as image_module
from epalm.extract.media import video as video_module
from epalm.extract.media.limits import Limits, require_status
from epalm.media import MediaFile

PIXELS = Pixels((16, 24), "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
FLIPS = PixelAugmentation(operations=0)  # crops and flips alone, so that greys stay
INPUTS: dict[str, Input] = {
    "a.png": ImageInput(PIXELS),
    "a.mp4": VideoInput(PIXELS, 5),
    "short.mp4": VideoInput(PIXELS, 40),
    "a.wav": AudioInput(16_000, 32, 100, -4.0, 4.5, augmentation=SpecAugment(8, 20)),
}
VIEWS = [VIEW_0, *(view_of("digest", number, 7) for number in range(1, 5))]


def _clip(path: Path, pixels_of: Callable[[int], np.ndarray], count: int = 30) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv444p", {"crf": "0", "g": "6"}
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_of(number), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("media"), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / "a.png")
    for name in ("a.mp4", "short.mp4"):
        _clip(folder / name, lambda _: rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    soundfile.write(folder / "a.wav", rng.normal(0, 0.1, 20_000), 16_000)
    return folder


@pytest.mark.parametrize("name", INPUTS)
def test_views_depend_on_nothing_but_their_seed(media: Path, name: str) -> None:
    read, medium = INPUTS[name], MediaFile(media / name)
    together = read(medium, VIEWS)
    assert together.shape[0] == len(VIEWS)
    assert together.dtype == (np.float32 if name == "a.wav" else np.uint8)
    np.testing.assert_array_equal(together[::-1], read(medium, VIEWS[::-1]))
    for place, view in enumerate(VIEWS):
        np.testing.assert_array_equal(together[place], read(medium, [view])[0])
    np.testing.assert_array_equal(together[0], read(medium)[0])
    assert len(np.unique(together.reshape(len(VIEWS), -1), axis=0)) == len(VIEWS)


@pytest.mark.parametrize("name", INPUTS)
def test_augmentation_switched_off(media: Path, name: str) -> None:
    read: Any = INPUTS[name]
    off = replace(read, augmentation=None)
    assert off.describe_augmentation() is None
    assert off.describe() == read.describe()
    views = off(MediaFile(media / name), VIEWS)
    assert (views == views[:1]).all()


def test_what_decides_the_views_is_described() -> None:
    described = [
        read.describe_augmentation()
        for read in (
            *INPUTS.values(),
            ImageInput(PIXELS, augmentation=PixelAugmentation(magnitude=3)),
            VideoInput(PIXELS, 5, augmentation=PixelAugmentation(flip=False)),
            AudioInput(16_000, 32, 100, -4.0, 4.5),
        )
    ]
    assert len({str(one) for one in described}) == len(described) - 1  # the two clips' are the same
    assert all("limits" not in str(read.describe()) for read in INPUTS.values())


@pytest.mark.parametrize("name", INPUTS)
def test_a_stretch_of_a_shard_is_as_good_as_a_file(media: Path, tmp_path: Path, name: str) -> None:
    content = (media / name).read_bytes()
    (tmp_path / "shard.tar").write_bytes(b"\xff" * 777 + content + b"\xee" * 555)
    stretch = MediaFile(tmp_path / "shard.tar", 777, len(content))
    read = INPUTS[name]
    np.testing.assert_array_equal(read(stretch, VIEWS), read(MediaFile(media / name), VIEWS))


@pytest.mark.parametrize("name", INPUTS)
def test_bad_stretches(media: Path, tmp_path: Path, name: str) -> None:
    content = (media / name).read_bytes()
    (tmp_path / "shard.tar").write_bytes(content)
    for offset, size, reason in (
        (0, len(content) + 1, "ends at byte"),
        (len(content) + 9, 9, "ends at byte"),
        (0, 0, "empty"),
        (0, len(content) // 3, "decoded|cut off"),
    ):
        if name == "a.wav" and "decoded" in reason:
            continue  # a part of a recording is a recording
        with pytest.raises(MediaError, match=reason):
            INPUTS[name](MediaFile(tmp_path / "shard.tar", offset, size))
    with pytest.raises(MediaError, match="more than 100"):
        require_status(MediaFile(tmp_path / "shard.tar", 0, 101), Limits(max_bytes=100))
    require_status(MediaFile(tmp_path / "shard.tar", 0, 100), Limits(max_bytes=100))


@given(data=st.data(), content=st.binary(max_size=100))
def test_a_stretch_reads_as_a_file_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("stretch") / "a"
    path.write_bytes(b"before" + content + b"after")
    with MediaFile(path, 6, len(content)).open() as file:
        assert file.read() == content
        assert file.seek(0, 2) == len(content)
        start = data.draw(st.integers(0, 120))
        count = data.draw(st.integers(-1, 120))
        file.seek(start)
        assert file.read(count) == (content[start:] if count < 0 else content[start : start + count])
        with pytest.raises(OSError, match="before the stretch"):
            file.seek(-1 - len(content), 2)


def test_one_decoding_serves_all_views(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    to_rgb, open_container = image_module._to_rgb, containers_module.open_container

    def counting(opener: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            nonlocal opened
            opened += 1
            return opener(*arguments)

        return count

    monkeypatch.setattr(image_module, "_to_rgb", counting(to_rgb))
    monkeypatch.setattr(video_module, "open_container", counting(open_container))
    for name in ("a.png", "a.mp4"):
        INPUTS[name](MediaFile(media / name), VIEWS)
    assert opened == 2


def test_all_frames_of_a_view_share_one_draw(tmp_path: Path) -> None:
    still = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    _clip(tmp_path / "a.mp4", lambda _: still)
    views = VideoInput(PIXELS, 6)(MediaFile(tmp_path / "a.mp4"), VIEWS)
    assert (views == views[:, :1]).all()
    assert len(np.unique(views[:, 0].reshape(len(VIEWS), -1), axis=0)) == len(VIEWS)


def test_each_view_takes_one_frame_of_each_interval(tmp_path: Path) -> None:
    _clip(tmp_path / "a.mp4", lambda number: np.full((48, 64, 3), 8 * number, np.uint8))
    views = [view_of("digest", number, 0) for number in range(40)]
    raw = VideoInput(PIXELS, 6, augmentation=FLIPS)(MediaFile(tmp_path / "a.mp4"), views)
    numbers = np.rint(raw.mean(axis=(2, 3, 4)) / 8).astype(int)  # (views, frames)
    np.testing.assert_array_equal(numbers[0], [2, 7, 12, 17, 22, 27])
    np.testing.assert_array_equal(numbers // 5, np.broadcast_to(np.arange(6), numbers.shape))
    assert all(len(np.unique(column)) == 5 for column in numbers.T)


def test_masks_are_zeros_before_normalising(media: Path) -> None:
    read = INPUTS["a.wav"]
    raw = read(MediaFile(media / "a.wav"), VIEWS)
    changed = raw[1:] != raw[:1]
    assert (raw[1:][changed] == 0).all()
    assert changed.any(axis=(1, 2)).sum() >= 3
    normal = read.normalise(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(normal, (raw + 4.0) / 9.0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (2, 4, 5, 7, 3)])
def test_pixels_are_normalised_as_published(shape: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    mean, std = np.array(PIXELS.mean, np.float32), np.array(PIXELS.std, np.float32)
    expected = np.moveaxis((raw.astype(np.float32) / np.float32(255) - mean) / std, -1, -3)
    normal = ImageInput(PIXELS).normalise(torch.from_numpy(raw))
    assert normal.dtype == torch.float32
    assert normal.is_contiguous()
    np.testing.assert_allclose(normal.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_decoding_needs_no_torch() -> None:
    code = "import sys, epalm.extract.inputs.preprocess; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
