"""What model libraries' own processors do to pixels, read from their settings. Reads no file and loads no model."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from epalm.errors import UsageError
from epalm.extract.inputs.fit import Fit
from epalm.extract.inputs.preprocess import ImageInput, Pixels, Triple
from epalm.extract.media.audio import RATES

_EQUAL = 1e-5  # of a pixel's range


@contextmanager
def preprocessing_settings(file: str = "preprocessor_config.json") -> Iterator[None]:
    """Around the reading of settings that somebody may have written by hand: raise UsageError for any fault of it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        fault = f"the settings of what the encoder reads cannot be used: {first}"
        raise UsageError(fault, hint=f"correct {file} beside the weights") from error


@preprocessing_settings("config.json")
def timm_pixels(settings: Mapping[str, Any], resize: str) -> Pixels:
    """Those of `timm.data.resolve_model_data_config`; with `resize` "own" as timm's evaluation transform fits them.

    Raises UsageError: they cannot be used.
    """
    height, width = settings["input_size"][1:]
    pixels = Pixels((height, width), settings["interpolation"], tuple(settings["mean"]), tuple(settings["std"]))
    require_usable(pixels)
    if resize == "stretch":
        return pixels
    to = math.floor(height / settings["crop_pct"]), math.floor(width / settings["crop_pct"])
    if settings["crop_mode"] != "border":
        return replace(pixels, fit=Fit("both" if settings["crop_mode"] == "squash" else "shorter", to))
    red, green, blue = (round(255 * value) for value in pixels.mean)
    return replace(pixels, fit=Fit("longer", to, (red, green, blue)))


@preprocessing_settings()
def transformers_pixels(processor: Any, resize: str) -> Pixels:
    """Those of an image or video processor of transformers; with `resize` "own" as it fits them.

    Raises UsageError: its settings cannot be used, or it does something else than is known here, as a random picture
    shows.
    """
    from epalm.extract.inputs.fit_tensor import TensorFit

    to = dict(processor.size or {})
    edge = to.get("shortest_edge")
    fit = TensorFit("shorter", (edge, edge)) if edge else TensorFit("both", (to.get("height", 0), to.get("width", 0)))
    size = (processor.crop_size.height, processor.crop_size.width) if processor.do_center_crop else fit.to
    interpolation: Any = Image.Resampling(int(processor.resample)).name.lower()
    pixels = Pixels(size, interpolation, *statistics(processor))
    require_usable(pixels)
    known = min(*fit.to, *size) > 0 and processor.do_resize
    if known and resize == "stretch":
        return pixels
    for own in (replace(pixels, fit=fit), replace(pixels, fit=replace(fit, exact=True))):
        if known and _gives(processor, own):
            return own
    fault = f"the model's own processor, {type(processor).__name__}, has steps that epalm does not know"
    raise UsageError(fault, hint="use --resize stretch" if known else "choose another encoder")


def require_usable(pixels: Pixels) -> None:
    """Raise ValueError or LookupError where that can be no resizing, or no statistics of three channels."""
    Image.Resampling[pixels.interpolation.upper()]
    finite = all(math.isfinite(value) for value in (*pixels.mean, *pixels.std))
    if not (finite and len(pixels.mean) == len(pixels.std) == 3 and min(pixels.std) > 0):
        raise ValueError(f"mean {pixels.mean} and deviation {pixels.std} of pixels")


@preprocessing_settings()
def sampling_rate(value: Any) -> int:
    """It, in Hz. Raises UsageError: it is none that recordings can be resampled to."""
    if not RATES[0] <= int(value) <= RATES[1]:
        raise ValueError(f"a sampling rate of {value} Hz")
    return int(value)


def statistics(processor: Any) -> tuple[Triple, Triple]:
    """Mean and deviation of a processor of transformers, as of values in 0 … 1."""
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1)  # of the values that it normalises
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0, 1)
    return _in_unit(mean, scale), _in_unit(std, scale)


def _in_unit(values: Any, scale: float) -> Triple:
    """A triple, or one value for all, of values in 0 … `scale`: as of values in 0 … 1."""
    red, green, blue = values if isinstance(values, list | tuple) else (values,) * 3
    return red / scale, green / scale, blue / scale


def _gives(processor: Any, pixels: Pixels) -> bool:
    """Whether the processor makes the same of a random picture, be it lying or upright."""
    import torch

    random, (height, width), fit = np.random.default_rng(0), pixels.size, pixels.fit
    assert fit
    for shape in ((height + 20, 2 * width + 31), (2 * height + 31, width + 20)):
        picture = random.integers(0, 256, (*shape, 3), np.uint8)
        named = {"videos": [picture[None]]} if hasattr(processor, "do_sample_frames") else {"images": [picture]}
        theirs = torch.as_tensor(next(iter(processor(**named, return_tensors="pt").values())))
        mine = ImageInput(pixels).normalise(torch.from_numpy(fit(picture, pixels.size, pixels.interpolation)))
        if theirs.numel() != mine.numel():
            return False
        if (theirs.reshape(mine.shape) - mine).abs().max() > _EQUAL / min(pixels.std):
            return False
    return True
