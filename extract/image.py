"""Image file → RGB pixels, through Pillow, whatever the file's colour mode, depth and orientation.

Knows files and pixels; does not know sizes or statistics of encoders.
"""

import struct
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from epalm.errors import MediaError
from epalm.extract.limits import Limits, out_of_memory
from epalm.extract.media_file import require_file
from epalm.extract.orientation import FIRST_SIDEWAYS, TURNS, UPRIGHT
from epalm.media import MediaFile

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
            with medium.open() as file, Image.open(file, formats=_FORMATS) as image:
                kind = str(image.format)
                limits.check_pixels(*image.size, share=_HUNGRY.get(kind, 1), of=f"{kind} pictures")
                width, height = image.size
                scale = _reduce(image, least) if least and kind in ("JPEG", "MPO") else 1
                image.load()
                # Loading turns some formats already, and a reduced one's size has been rounded up.
                return _as_shown(image, (width, height) if scale > 1 else image.size, scale)
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"the picture has too many pixels: {_reason(error).partition(',')[0]}",
            hint="scale it down, or raise --max-pixels",
        ) from error
    except MemoryError as error:
        raise out_of_memory("picture") from error
    except _FAULTS as error:
        raise MediaError(f"the picture cannot be decoded: {_reason(error)}", hint=_HINT) from error


def _reduce(image: Image.Image, least: tuple[int, int]) -> int:
    """Have a JPEG decoded at the smallest scale that is no smaller than `least` (height, width): 1, 2, 4 or 8."""
    width = image.width
    drafted = image.draft(None, least if _orientation(image) >= FIRST_SIDEWAYS else least[::-1])
    return round(width / drafted[1][2]) if drafted else 1


def _as_shown(image: Image.Image, size: tuple[int, int], scale: int) -> Picture:
    """The loaded image, which is of `size` (width, height) when not reduced."""
    orientation = _orientation(image)
    turn, sides = TURNS[orientation]
    stored = (0.0, 0.0, image.width - size[0] / scale, image.height - size[1] / scale)
    left, top, right, bottom = (stored[side] for side in sides)
    shown = size if orientation >= FIRST_SIDEWAYS else size[::-1]
    return Picture(turn(_to_rgb(image)), shown, (left, top, right, bottom))


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return orientation if orientation in TURNS else UPRIGHT


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8; large pictures in strips, as every step of the conversion makes a copy."""
    if image.mode == "F":
        raise MediaError("floating-point pixels have no known range", hint="save it with 8 or 16 bits")
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return _strip_to_rgb(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip_to_rgb(image.crop((0, top, width, bottom)))
    return pixels


def _strip_to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits, which Pillow may hold in 32
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    if not transparent:
        return np.asarray(image.convert("RGB"))
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))


def _reason(error: BaseException) -> str:
    """Pillow's words without its object addresses and paths, which differ from run to run."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "it is of no known image format" if "cannot identify image file" in text else text
