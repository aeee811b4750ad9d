"""Image file → RGB pixels, through Pillow, whatever the file's colour mode, depth and orientation.

Knows files and pixels; does not know sizes or statistics of encoders.
"""

import struct
import warnings
import zlib
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from epalm.errors import MediaError
from epalm.extract.media.content import another_medium
from epalm.extract.media.limits import Limits, out_of_memory, require_file
from epalm.extract.media.orientation import FIRST_SIDEWAYS, TURNS, UPRIGHT
from epalm.extract.media.picture_depth import Depth, depth_of
from epalm.extract.media.picture_metadata import without_metadata
from epalm.media import MediaFile
from epalm.samples import Modality

# Formats that only decode pixels: no PostScript interpreter, no format that refers to other files.
_SAFE = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
Image.init()
_FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)  # what this build of Pillow has of them
# Measured while decoding: 16 bytes a pixel for WebP, 14 and with more bits twice that for AVIF, 25 for
# JPEG 2000, against 4 to 12 for the others.
_HUNGRY = {"WEBP": 2, "AVIF": 2, "JPEG2000": 2}
_STRIP = 1 << 20  # pixels that are converted at once
# What Pillow's plug-ins raise on damaged bytes, beside their own errors.
_FAULTS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_HINT = "open it in an image viewer, and save or download it again"


class Picture(NamedTuple):
    """`pixels` (H, W, 3) uint8 of a picture of `size` (height, width); both are the same unless a JPEG came reduced.

    `margins` (left, top, right, bottom) are how much of the outermost rows and columns is none of the picture: less
    than 1, where a JPEG came reduced and its sides do not divide.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    margins: tuple[float, float, float, float]


def read_image(medium: MediaFile, limits: Limits, *, least: tuple[int, int] | None = None) -> Picture:
    """The picture as a viewer shows it; of an animation, the first frame.

    EXIF orientation is applied, transparency is laid over white, 16 bits per channel are scaled to 8.
    `least` (height, width) lets a JPEG come at 1/2, 1/4 or 1/8 of its size, the smallest that is no smaller.

    Raises:
        MediaError: no image, damaged, truncated, beyond the limits, or floating-point pixels.
    """
    require_file(medium, limits)
    # Pillow's own limit is twice this number, and holds for pictures inside pictures, which `image.size` hides.
    Image.MAX_IMAGE_PIXELS = (limits.pixels + 1) // 2
    try:
        with warnings.catch_warnings():
            # Pillow's warnings are about sizes, which are checked here, and about metadata.
            warnings.simplefilter("ignore")
            with medium.open() as file:
                shown, orientation = without_metadata(file)
                return _read(shown, orientation, limits, least)
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"the picture has too many pixels: {_reason(error).partition(',')[0]}",
            hint="scale it down, or raise --max-pixels",
        ) from error
    except MemoryError as error:
        raise out_of_memory("picture") from error
    except _FAULTS as error:
        words, remedy = _reason(error), _HINT
        if isinstance(error, UnidentifiedImageError):
            with suppress(OSError), medium.open() as file:
                words, remedy = another_medium(file, (Modality.IMAGE,)) or (words, remedy)
        raise MediaError(f"the picture cannot be decoded: {words}", hint=remedy) from error


def _read(file: BinaryIO, orientation: int, limits: Limits, least: tuple[int, int] | None) -> Picture:
    with Image.open(file, formats=_FORMATS) as image:
        kind = str(image.format)
        limits.check_pixels(*image.size, share=_HUNGRY.get(kind, 1), of=f"{kind} pictures")
        width, height = image.size
        if kind == "AVIF":
            orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)  # of its boxes, not of its EXIF
        sideways = orientation >= FIRST_SIDEWAYS
        scale = _reduce(image, least if sideways else least[::-1]) if least and kind == "JPEG" else 1
        depth = depth_of(image, file)
        image.load()
        # TIFF is turned by loading, and a reduced one's size has been rounded up.
        stored_size = (width, height) if scale > 1 else image.size
        turn, sides = TURNS[orientation]
        stored = (0.0, 0.0, image.width - stored_size[0] / scale, image.height - stored_size[1] / scale)
        left, top, right, bottom = (stored[side] for side in sides)
        size = stored_size if sideways else stored_size[::-1]
        return Picture(turn(_to_rgb(image, depth)), size, (left, top, right, bottom))


def _reduce(image: Image.Image, least: tuple[int, int]) -> int:
    """Have a JPEG decoded at the smallest scale that is no smaller than `least` (width, height): 1, 2, 4 or 8."""
    width = image.width
    drafted = image.draft(None, least)
    return round(width / drafted[1][2]) if drafted else 1


def _to_rgb(image: Image.Image, depth: Depth) -> np.ndarray:
    """(H, W, 3) uint8; large pictures in strips, as every step of the conversion makes a copy."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return depth.to_rgb(image, 0)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = depth.to_rgb(image.crop((0, top, width, bottom)), top)
    return pixels


def _reason(error: BaseException) -> str:
    """Pillow's words without its object addresses and paths, which differ from run to run."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        "it is of no known image format, or of a kind of it that is not read"
        if "cannot identify image file" in text
        else text
    )
