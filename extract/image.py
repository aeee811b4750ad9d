"""Image file → RGB pixels, through Pillow, whatever the file's colour mode, depth and orientation.

Knows files and pixels; does not know sizes or statistics of encoders.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from epalm.errors import MediaError
from epalm.extract.media_file import require_file

MAX_PIXELS = 100_000_000  # checked before decoding: a tiny file can unfold to gigabytes
# Formats that only decode pixels: no PostScript interpreter, no format that refers to other files.
_SAFE = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
Image.init()
_FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)  # what this build of Pillow has of them
# What Pillow's plug-ins raise on damaged bytes, beside their own errors.
_FAULTS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_HINT = "open it in an image viewer, and save or download it again"


def read_image(path: Path) -> np.ndarray:
    """The picture (H, W, 3) uint8 as a viewer shows it; of an animation, the first frame.

    EXIF orientation is applied, transparency is laid over white, 16 bits per channel are scaled to 8.

    Raises:
        MediaError: no image, damaged, truncated, more than `MAX_PIXELS`, or floating-point pixels.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow's warnings are about sizes, which are checked here, and about metadata.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise MediaError(
                        f"{image.width}×{image.height} pixels are more than {MAX_PIXELS:,}",
                        hint="scale it down",
                    )
                image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except _FAULTS as error:
        raise MediaError(f"the picture cannot be decoded: {_reason(error)}", hint=_HINT) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise MediaError("floating-point pixels have no known range", hint="save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow may hold in 32
        pixels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        image = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
    if not transparent:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _reason(error: BaseException) -> str:
    """Pillow's words without its object addresses and paths, which differ from run to run."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "it is of no known image format" if "cannot identify image file" in text else text
