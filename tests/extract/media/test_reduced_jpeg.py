"""JPEGs decoded at a reduced scale give what full decoding gives, within the tolerance that is promised."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epalm.extract.inputs.augment import view_of
from epalm.extract.inputs.fit import Interpolation
from epalm.extract.inputs.preprocess import ImageInput, Pixels
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media" / "image"
LARGEST, MEAN, MEAN_OF_PATTERNS = 16, 1.2, 4  # of 255, as ImageInput says
SMOOTH: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos")


def _clouds(width: int, height: int, seed: int = 0) -> Image.Image:
    """A photograph's spectrum: the finer the structure, the fainter."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        for colour in range(3):
            grid = Image.fromarray(rng.normal(0, 200 / cells, (cells, cells)).astype(np.float32))
            pixels[..., colour] += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _stripes(width: int, height: int) -> Image.Image:
    """The worst: hard edges between saturated colours, whose colours a JPEG stores at half the resolution."""
    rows, columns = np.mgrid[0:height, 0:width]
    parts = (columns // 7 + rows // 7) % 2, (columns // 31) % 2, (columns + 2 * rows) // 53 % 2
    return Image.fromarray((np.stack(parts, -1) * 255).astype(np.uint8))


def _deviation(path: Path, side: int, interpolation: Interpolation) -> np.ndarray:
    pixels = Pixels((side, side), interpolation, (0.5,) * 3, (0.5,) * 3)
    full, reduced = (ImageInput(pixels, reduced_jpeg=on)(MediaFile(path)).astype(int) for on in (False, True))
    deviation: np.ndarray = np.abs(full - reduced)
    return deviation


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((1600, 1600), (200, 200), (200, 200)),
        ((1600, 1600), (201, 200), (400, 400)),
        ((1600, 800), (200, 200), (200, 400)),
        ((1600, 1600), (500, 500), (800, 800)),
        ((1600, 1600), (801, 801), (1600, 1600)),
        ((1601, 1603), (200, 200), (201, 201)),
    ],
)
def test_the_smallest_scale_that_is_no_smaller(
    tmp_path: Path, size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "a.jpg")
    picture = read_image(MediaFile(tmp_path / "a.jpg"), Limits(), least=least)
    assert picture.pixels.shape == (*expected, 3)
    scale = max(size) / max(picture.pixels.shape[1] - picture.margins[2], picture.pixels.shape[0] - picture.margins[3])
    assert scale in (1, 2, 4, 8)


@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(150, 700),
    height=st.integers(150, 700),
    side=st.integers(16, 64),
    orientation=st.integers(1, 8),
    interpolation=st.sampled_from(SMOOTH),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
)
def test_within_tolerance_for_any_size_and_orientation(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    side: int,
    orientation: int,
    interpolation: Interpolation,
    mode: str,
) -> None:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    _clouds(width, height).convert(mode).save(path, exif=exif)
    deviation = _deviation(path, side, interpolation)
    assert deviation.max() <= LARGEST
    assert deviation.mean() <= MEAN


def test_large_pictures(tmp_path: Path) -> None:
    for name, picture, mean in (
        ("clouds.jpg", _clouds(4032, 3024), MEAN),
        ("stripes.jpg", _stripes(2049, 1537), MEAN_OF_PATTERNS),
    ):
        picture.save(tmp_path / name, quality=90, progressive=True)
        for interpolation in SMOOTH:
            deviation = _deviation(tmp_path / name, 224, interpolation)
            assert 0 < deviation.max() <= LARGEST
            assert deviation.mean() <= mean


@pytest.mark.parametrize("interpolation", SMOOTH)
def test_real_pictures(interpolation: Interpolation) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    for path in sorted(SHARED.glob("*.jpg")):
        for side in (16, 32, 48, 64, 112):
            deviation = _deviation(path, side, interpolation)
            assert deviation.max() <= LARGEST, path
            assert deviation.mean() <= MEAN, path


def test_only_jpegs_and_only_on_request(tmp_path: Path) -> None:
    pixels = Pixels((16, 16), "bicubic", (0.5,) * 3, (0.5,) * 3)
    plain, reduced = ImageInput(pixels), ImageInput(pixels, reduced_jpeg=True)
    assert plain.describe() != reduced.describe()
    assert "jpeg" not in plain.describe()
    _stripes(640, 480).save(tmp_path / "a.png")
    _stripes(640, 480).save(tmp_path / "a.jpg")
    png = MediaFile(tmp_path / "a.png")
    np.testing.assert_array_equal(plain(png), reduced(png))
    assert (plain(MediaFile(tmp_path / "a.jpg")) != reduced(MediaFile(tmp_path / "a.jpg"))).any()


@pytest.mark.parametrize("interpolation", ["nearest", "box", "hamming"])
def test_hard_interpolation_decodes_in_full(tmp_path: Path, interpolation: Interpolation) -> None:
    _stripes(640, 480).save(tmp_path / "a.jpg")
    assert not _deviation(tmp_path / "a.jpg", 16, interpolation).any()


def test_augmented_views_come_near_those_of_full_decoding(tmp_path: Path) -> None:
    _clouds(1000, 803).save(tmp_path / "a.jpg")
    pixels = Pixels((32, 32), "bicubic", (0.5,) * 3, (0.5,) * 3)
    views = [view_of("digest", number, 0) for number in range(1, 9)]
    full, reduced = (
        ImageInput(pixels, reduced_jpeg=on)(MediaFile(tmp_path / "a.jpg"), views).astype(int) for on in (False, True)
    )
    deviations = np.abs(full - reduced).mean(axis=(1, 2, 3))  # of each view: the crop is rounded to whole pixels
    assert deviations.max() < 8
