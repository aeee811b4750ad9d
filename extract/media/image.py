"""Image file → RGB pixels of 8 bits, through Pillow, whatever the file's colour mode, depth and orientation.

Pillow keeps more than 8 bits of greys alone, and not always at their place; what it leaves out is added here. Knows
files and pixels; does not know sizes or statistics of encoders.
"""

import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from epalm.errors import MediaError
from epalm.extract.media.containers import another_medium
from epalm.extract.media.limits import OR_RAISE, Limits, out_of_memory, require_status
from epalm.extract.media.picture_metadata import without_metadata
from epalm.media import MediaFile
from epalm.samples import Modality

# Formats that only decode pixels: no PostScript interpreter, no format that refers to other files.
_SAFE = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "ICO", "TGA")
Image.init()
_FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)  # what this build of Pillow has of them
# Measured while decoding: 16 bytes a pixel for WebP, 14 and with more bits twice that for AVIF, against 4 to 12 for the
# others.
_HUNGRY = {"WEBP": 2, "AVIF": 2}
_STRIP = 1 << 20  # pixels that are converted at once
# What Pillow's plug-ins raise on damaged bytes, beside their own errors.
_FAULTS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, RuntimeError, struct.error,
    zlib.error, AssertionError,
)  # fmt: skip
_HINT = "open it in an image viewer, and save or download it again"
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF tags
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # between greys of 2 and 4 bits, as Pillow loads them
Orientation = tuple[bool, int, int]
UPRIGHT: Orientation = (False, 1, 1)
# The eight ways in which pixels may be stored, of pictures and of clips alike, by their EXIF numbers: whether rows are
# shown as columns, and then the steps from one row to the next, and from one column to the next.
ORIENTATIONS: dict[int, Orientation] = {
    1: UPRIGHT, 2: (False, 1, -1), 3: (False, -1, -1), 4: (False, -1, 1),
    5: (True, 1, 1), 6: (True, 1, -1), 7: (True, -1, -1), 8: (True, -1, 1),
}  # fmt: skip
_TOLERANCE = 0.01  # about half a degree, within which FFmpeg's command takes an angle for a multiple of 90


class Picture(NamedTuple):
    """`pixels` (H, W, 3) uint8 of a picture of `size` (height, width); both are the same unless a JPEG came reduced.

    `margins` (left, top, right, bottom) are how much of the outermost rows and columns is none of the picture: less
    than 1, where a JPEG came reduced and its sides do not divide.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    margins: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Depth:
    """What a loaded picture's values mean where Pillow does not say it."""

    white: int = 65535  # of a grey that is held in more than 8 bits
    inverted: bool = False
    key: tuple[int, ...] | None = None  # a grey or colour that is transparent, in the file's depth
    low: Image.Image | None = None  # the lower bytes of a colour of 16 bits, where `key` is one


def read_image(medium: MediaFile, limits: Limits, *, least: tuple[int, int] | None = None) -> Picture:
    """The picture as a viewer shows it; of an animation, the first frame.

    EXIF orientation is applied, transparency is laid over white, 16 bits per channel are scaled to 8. `least` (height,
    width) lets a JPEG come at 1/2, 1/4 or 1/8 of its size, the smallest that is no smaller. Raises MediaError: no
    image, damaged, truncated, beyond the limits, or floating-point pixels.
    """
    require_status(medium, limits)
    # Pillow's own limit is twice this number, and holds for pictures inside pictures, which `image.size` hides.
    Image.MAX_IMAGE_PIXELS = (limits.max_pixels + 1) // 2
    try:
        with warnings.catch_warnings(action="ignore"), medium.open() as file:  # of sizes, and of metadata
            return _read(*without_metadata(file), limits, least)
    except Image.DecompressionBombError as error:
        fault = str(error).partition(",")[0]
        hint = f"scale it down{OR_RAISE}max-pixels"
        raise MediaError(f"the picture has too many pixels: {fault}", hint=hint) from error
    except MemoryError as error:
        raise out_of_memory("picture") from error
    except _FAULTS as error:
        words, remedy = (str(error).splitlines() or [type(error).__name__])[0], _HINT
        if isinstance(error, UnidentifiedImageError):
            words = "it is of no known image format, or of a kind of it that is not read"
            with suppress(OSError), medium.open() as file:
                words, remedy = another_medium(file, (Modality.IMAGE,)) or (words, remedy)
        raise MediaError(f"the picture cannot be decoded: {words}", hint=remedy) from error


def _read(file: BinaryIO, exif: bytes, limits: Limits, least: tuple[int, int] | None) -> Picture:
    with Image.open(file, formats=_FORMATS) as image:
        kind = str(image.format)
        limits.check_pixels(*image.size, share=_HUNGRY.get(kind, 1), of=f"{kind} pictures")
        width, height = image.size
        orientation, scale = _orientation(exif or image.info.get("exif", b"")), 1
        sideways, *strides = orientation
        if least and kind == "JPEG" and (drafted := image.draft(None, least if sideways else least[::-1])):
            scale = round(width / drafted[1][2])  # 1, 2, 4 or 8
        depth = _depth_of(image, file)
        image.load()
        # TIFF is turned by loading, and a reduced one's size has been rounded up.
        size = (height, width) if scale > 1 else (image.height, image.width)
        margins = [(0.0, image.height - size[0] / scale), (0.0, image.width - size[1] / scale)]
        if sideways:
            size, margins = size[::-1], margins[::-1]
        (top, bottom), (left, right) = (pair[::step] for pair, step in zip(margins, strides, strict=True))
        return Picture(turned(_to_rgb(image, depth), orientation), size, (left, top, right, bottom))


def _orientation(exif: bytes) -> Orientation:
    tags = Image.Exif()
    try:
        tags.load(exif)
        return ORIENTATIONS.get(tags.get(ExifTags.Base.Orientation, 1), UPRIGHT)
    except Exception:  # Pillow's reader raises anything on damaged bytes
        return UPRIGHT


def of_display_matrix(matrix: np.ndarray) -> Orientation | None:
    """The orientation of a clip's display matrix (9,), whatever its scale.

    None where it is none of the eight: all zeros, singular, a shear, or an angle between.
    """
    steps = matrix.reshape(3, 3)[:2, :2].astype(np.float64)  # (right, down) of a step to the right, and of one down
    lengths = np.hypot(*steps.T)[:, None]
    if not lengths.all():
        return None
    units = steps / lengths
    right, down = (round(step) for step in units.sum(axis=0).tolist())
    sideways = abs(units[0, 0]) < abs(units[0, 1])
    exact = [[0, down], [right, 0]] if sideways else [[right, 0], [0, down]]
    return (sideways, down, right) if np.abs(units - exact).max() <= _TOLERANCE else None


def turned(pixels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Pixels as stored (H, W, ...) → as shown."""
    sideways, down, right = orientation
    return (pixels.swapaxes(0, 1) if sideways else pixels)[::down, ::right]


def _to_rgb(image: Image.Image, depth: _Depth) -> np.ndarray:
    """(H, W, 3) uint8; large pictures in strips, as every step of the conversion makes a copy."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return _strip_to_rgb(image, 0, depth)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip_to_rgb(image.crop((0, top, width, bottom)), top, depth)
    return pixels


def _strip_to_rgb(strip: Image.Image, top: int, depth: _Depth) -> np.ndarray:
    """(H, W, 3) uint8 of a strip of the picture that begins in row `top`. Raises MediaError for floats."""
    if strip.mode == "F":
        raise MediaError("floating-point pixels have no known range", hint="save it with 8 or 16 bits")
    if strip.mode.startswith("I"):
        values = np.asarray(strip)
        values = values.view(np.uint32) if values.dtype == np.int32 else values
        grey = np.rint(np.minimum(values, depth.white) * (255 / depth.white)).astype(np.uint8)
        if depth.key is not None:
            grey[values == depth.key[0]] = 255
        return np.repeat((255 - grey if depth.inverted else grey)[..., None], 3, axis=2)
    if depth.key is not None:
        pixels, key = np.array(strip.convert("RGB")), np.array(depth.key)
        if depth.low is None:
            transparent = pixels == key
        else:
            low = np.asarray(depth.low.crop((0, top, strip.width, top + strip.height)))
            transparent = (pixels == key >> 8) & (low == key & 255)
        pixels[transparent.all(axis=2)] = 255
        return pixels
    if "transparency" not in strip.info and strip.mode not in ("RGBA", "RGBa", "LA", "La", "PA"):
        return np.asarray(strip.convert("RGB"))
    colours = strip.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))


def _depth_of(image: Image.Image, file: BinaryIO) -> _Depth:
    """Of an opened image that is not loaded yet. Raises MediaError for signed pixels in TIFF."""
    if isinstance(image, TiffImageFile):
        return _of_tiff(image)
    key = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or image.mode == "P" or key is None:
        return _Depth()
    raw, key = str(image.tile[0].args), key if isinstance(key, tuple) else (key,)
    if raw != "RGB;16B":
        largest = 65535 if image.mode == "I;16" else 255
        return _Depth(key=tuple(value * _GREY_STEPS.get(raw, 1) & largest for value in key))
    # Of 16 bits a colour Pillow reads the upper bytes; the lower ones take another reading.
    place = file.tell()
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as low:
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        low.load()
    file.seek(place)
    return _Depth(key=key, low=low)


def _of_tiff(image: TiffImageFile) -> _Depth:
    tags = image.tag_v2
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise MediaError("signed pixels have no known range", hint="save it with unsigned 8 or 16 bits")
    bits = max(tags.get(_BITS, (1,)))
    if bits == 16 and tags.get(_PLANAR) == _SEPARATE:  # Pillow takes planes that are not compressed for ones of 8 bits
        order = "L" if tags.prefix[:1] == b"I" else "B"
        for index, tile in enumerate(image.tile):
            if tile.codec_name == "raw" and isinstance(tile.args, tuple) and len(tile.args[0]) == 1:
                image.tile[index] = tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
    return _Depth(white=2**bits - 1, inverted=tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)
