"""What an encoder of patches gets of a picture equals what the default processor of transformers makes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Siglip2ImageProcessor

from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.extract.inputs.patches import naflex_input, real_patches
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.media import MediaFile

SHARED = Path(__file__).parents[3].parent / "shared" / "media" / "image"
EQUAL = 1e-5  # of a pixel's range


def _same(processor: Siglip2ImageProcessor, path: Path) -> None:
    read = naflex_input(processor)
    picture = np.array(read_image(MediaFile(path), Limits()).pixels)
    theirs = processor(images=[picture], input_data_format="channels_last", return_tensors="pt")
    mine = read.normalise(torch.from_numpy(read(MediaFile(path))))
    assert mine[0, 0, :2].tolist() == theirs["spatial_shapes"][0].tolist()
    assert real_patches(mine)[0].int().tolist() == theirs["pixel_attention_mask"][0].tolist()
    assert (mine[:, 1:] - theirs["pixel_values"]).abs().max() * 0.5 < EQUAL


@pytest.mark.parametrize("size", [(90, 61), (61, 90), (1200, 9), (4, 5), (64, 64)])
@pytest.mark.parametrize("patches", [12, 16, 300])
def test_patches_of_random_pictures(size: tuple[int, int], patches: int, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    _same(Siglip2ImageProcessor(patch_size=8, max_num_patches=patches), tmp_path / "picture.png")


def test_patches_that_are_not_normalised(tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / "picture.png")
    _same(Siglip2ImageProcessor(patch_size=8, max_num_patches=16, do_normalize=False), tmp_path / "picture.png")


def test_patches_of_real_pictures() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    for path in sorted(SHARED.iterdir()):
        _same(Siglip2ImageProcessor(), path)


def test_views_are_drawn_on_the_same_grid(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    read, medium = naflex_input(Siglip2ImageProcessor(patch_size=8, max_num_patches=16)), tmp_path / "picture.png"
    both = read(MediaFile(medium), (VIEW_0, view_of("digest", 1, 0)))
    assert np.array_equal(both[0, 0], both[1, 0]) and not np.array_equal(both[0], both[1])
    assert np.array_equal(read(MediaFile(medium))[0], both[0])
