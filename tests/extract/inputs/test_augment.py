"""Augmented views are draws that depend on medium, number and seed alone, and stay within their bounds."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.extract.inputs.augment import (
    GREY,
    OPERATIONS,
    RATIO,
    VIEW_0,
    PixelAugmentation,
    PixelDraw,
    SpecAugment,
    View,
    view_of,
)
from epalm.extract.inputs.fit import Interpolation

DIGEST = "ab" * 32
BICUBIC: Interpolation = "bicubic"
DRAWS = [PixelAugmentation().draw(view_of(DIGEST, number, 3).rng("pixels"), 120, 160) for number in range(1, 401)]
digests = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
views = st.builds(view_of, digests, st.integers(1, 1000), st.integers(0, 2**63))
sides = st.integers(1, 60)


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# ---- views


@given(digests, st.integers(0, 2**63))
def test_view_0_is_the_same_for_every_medium_and_seed(digest: str, seed: int) -> None:
    assert view_of(digest, 0, seed) == VIEW_0 == View(0, 0)


@given(st.sets(st.tuples(digests, st.integers(1, 50), st.integers(0, 2**63)), min_size=2))
def test_another_medium_number_or_seed_draws_otherwise(keys: set[tuple[str, int, int]]) -> None:
    drawn = {view_of(*key).rng("pixels").random(2).tobytes() for key in keys}
    assert len(drawn) == len(keys)


@given(views)
def test_purposes_have_numbers_of_their_own(view: View) -> None:
    first = view.rng("pixels").random(8)
    view.rng("frames").random(3)
    assert np.array_equal(view.rng("pixels").random(8), first)
    assert not np.intersect1d(view.rng("frames").random(8), first).size


# A change of the numbers below changes every augmented row there is: it needs the extraction version raised, so that
# rows drawn before and after are never taken for the same.
def test_draws_known_from_before() -> None:
    view = view_of(DIGEST, 1, 0)
    assert view.seed == 215258818964346801426762515807844643744
    assert view.rng("frames").random() == 0.3131730698837859
    crop = (13 / 480, 147 / 640, 409 / 480, 452 / 640)
    expected = PixelDraw(*crop, True, (("ShearX", 0.7),))
    assert PixelAugmentation().draw(view.rng("pixels"), 480, 640) == expected
    masked = SpecAugment().apply(np.ones((1024, 128), np.float32), view.rng("mask")) == 0
    assert _bounds(masked.all(axis=0)) == (52, 24)
    assert _bounds(masked.all(axis=1)) == (928, 47)


def test_another_process_draws_the_same_and_starts_without_torch() -> None:
    code = (
        "import sys\nfrom epalm.extract.inputs.augment import PixelAugmentation\n"
        "from epalm.extract.inputs.augment import view_of\n"
        f"print(PixelAugmentation().draw(view_of({DIGEST!r}, 7, 3).rng('pixels'), 120, 160), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{DRAWS[6]} False"


# ---- pixels


@given(views, st.integers(20, 4000), st.integers(20, 4000))
def test_the_crop_is_within_the_picture_and_its_bounds(view: View, height: int, width: int) -> None:
    draw = PixelAugmentation(scale=(0.5, 1.0)).draw(view.rng("pixels"), height, width)
    rows, columns = draw.height * height, draw.width * width
    assert np.allclose([rows, columns, draw.top * height], np.rint([rows, columns, draw.top * height]))
    assert draw.top >= 0 and draw.top + draw.height <= 1 + 1e-9
    assert draw.left >= 0 and draw.left + draw.width <= 1 + 1e-9
    rows, columns = round(rows), round(columns)
    assert (columns - 1) / (rows + 1) <= RATIO[1]
    assert (columns + 1) / (rows - 1) >= RATIO[0]
    if RATIO[0] < width / height < RATIO[1]:  # else a crop of that area need not fit
        assert 0.5 * height * width <= (rows + 1) * (columns + 1)


@given(views, sides, sides, sides, sides)
@settings(deadline=None)
def test_every_size_of_picture_and_result(view: View, height: int, width: int, rows: int, columns: int) -> None:
    draw = PixelAugmentation(operations=3).draw(view.rng("pixels"), height, width)
    picture = _picture(height, width)
    result = draw.apply(picture, (rows, columns), BICUBIC)
    assert result.shape == (rows, columns, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(result, draw.apply(picture, (rows, columns), BICUBIC))
    assert np.array_equal(picture, _picture(height, width))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_extreme_pictures_take_every_operation(name: str, shape: tuple[int, int]) -> None:
    for magnitude in (-1.0, 0.7):
        draw = PixelDraw(0.9, 0.9, 0.2, 0.2, True, ((name, magnitude),))
        assert draw.apply(_picture(*shape), shape, BICUBIC).shape == (*shape, 3)


@given(views, st.integers(1, 8))
@settings(deadline=None)
def test_one_draw_does_the_same_to_every_frame_whatever_its_size(view: View, factor: int) -> None:
    draw = PixelAugmentation(operations=0).draw(view.rng("pixels"), 24, 32)
    small = _picture(24, 32)
    large = small.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (round(draw.height * 24), round(draw.width * 32))
    assert np.array_equal(draw.apply(small, size, "nearest"), draw.apply(large, size, "nearest"))


def test_draws_are_spread() -> None:
    assert 150 < sum(draw.flipped for draw in DRAWS) < 250
    counts = np.bincount([len(draw.operations) for draw in DRAWS])  # two, each applied half of the time
    assert 60 < counts[0] < 140
    assert 60 < counts[2] < 140
    names = [operation for draw in DRAWS for operation, _ in draw.operations]
    assert set(names) == set(OPERATIONS)
    assert max(names.count(name) for name in OPERATIONS) < 80
    magnitudes = [magnitude for draw in DRAWS for name, magnitude in draw.operations if name == "Rotate"]
    assert set(magnitudes) == {0.7, -0.7}
    areas = np.array([draw.height * draw.width for draw in DRAWS])
    assert areas.min() < 0.55
    assert areas.max() > 0.85
    assert len({(draw.top, draw.left) for draw in DRAWS}) > 300


def test_no_flip_and_no_operations() -> None:
    policy = PixelAugmentation(flip=False, operations=0)
    draws = [policy.draw(view_of(DIGEST, number, 0).rng("pixels"), 40, 40) for number in range(1, 60)]
    assert not any(draw.flipped or draw.operations for draw in draws)


def test_what_the_operations_do() -> None:
    picture = _picture(20, 30)

    def after(name: str, magnitude: float = 0.7) -> np.ndarray:
        draw = PixelDraw(0.0, 0.0, 1.0, 1.0, False, ((name, magnitude),))
        return draw.apply(picture, (20, 30), BICUBIC)

    assert np.array_equal(after("Identity"), picture)
    assert np.array_equal(after("Brightness", 0.5), picture)
    assert after("Brightness").mean() > picture.mean()
    assert np.ptp(after("AutoContrast"), axis=(0, 1)).tolist() == [255] * 3
    for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        plus, minus = after(name), after(name, -0.7)
        assert not np.array_equal(plus, minus)
        assert (plus == GREY).all(axis=-1).any() and (minus == GREY).all(axis=-1).any()
        assert np.array_equal(after(name, 0.0), picture)
    flipped = PixelDraw(0.0, 0.0, 1.0, 1.0, True, ()).apply(picture, (20, 30), BICUBIC)
    assert np.array_equal(flipped, picture[:, ::-1])


# ---- filter banks


def _bounds(masked: np.ndarray) -> tuple[int, int]:
    """First masked place and their number; they lie side by side."""
    places = np.flatnonzero(masked)
    if not len(places):
        return 0, 0
    assert places[-1] - places[0] + 1 == len(places)
    return int(places[0]), len(places)


@given(views, st.integers(1, 60), st.integers(1, 40), st.integers(0, 50), st.integers(0, 70))
def test_masks_are_in_one_piece_and_within_their_widths(
    view: View, frames: int, mels: int, frequency: int, time: int
) -> None:
    bank = np.full((frames, mels), -4.0, np.float32)
    result = SpecAugment(frequency, time).apply(bank, view.rng("mask"))
    assert result.shape == bank.shape
    assert result.dtype == np.float32
    assert (bank == -4).all()
    masked = result == 0
    assert (masked | (result == -4)).all()
    over_bins, over_frames = masked.all(axis=0), masked.all(axis=1)
    assert np.array_equal(masked, over_bins[None, :] | over_frames[:, None])
    if not masked.all():
        assert _bounds(over_bins)[1] <= min(frequency, mels)
        assert _bounds(over_frames)[1] <= min(time, frames)


def test_masks_are_spread_over_all_widths_and_places() -> None:
    ones = np.ones((200, 64), np.float32)
    rngs = [view_of(DIGEST, number, 5).rng("mask") for number in range(1, 401)]
    masks = [SpecAugment(24, 0).apply(ones, rng).all(axis=0) for rng in rngs]
    widths = [int((~mask).sum()) for mask in masks]
    assert set(widths) == set(range(25))
    assert not np.stack(masks).all(axis=0).any()


@given(views)
def test_no_mask_changes_nothing(view: View) -> None:
    bank = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    assert np.array_equal(SpecAugment(0, 0).apply(bank, view.rng("mask")), bank)


# ---- policies


def test_policies_say_what_they_are() -> None:
    assert PixelAugmentation().describe()["magnitude"] == 7
    assert PixelAugmentation(flip=False).describe() != PixelAugmentation().describe()
    assert SpecAugment().describe() == {"augmentation": "specaugment", "frequency": 24, "time": 96}
