"""From the integers that a picture holds to RGB of 8 bits: depths, white as zero, transparency laid over white.

Pillow keeps more than 8 bits of greys alone, and not always at their place; what it leaves out is added here.
"""

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from epalm.errors import MediaError
from epalm.extract.media.chunks import BOXES, walk

_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339  # TIFF tags
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # between greys of 2 and 4 bits, as Pillow loads them
_SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000 codestream begins: the components' precisions follow


@dataclass(frozen=True)
class Depth:
    """What a loaded picture's values mean where Pillow does not say it."""

    white: int = 65535  # of a grey that is held in more than 8 bits
    inverted: bool = False
    key: tuple[int, ...] | None = None  # a grey or colour that is transparent, in the file's depth
    low: Image.Image | None = None  # the lower bytes of a colour of 16 bits, where `key` is one
    step: float = 1.0  # by which greys and colours of less than 8 bits are to be stretched

    def to_rgb(self, strip: Image.Image, top: int) -> np.ndarray:
        """(H, W, 3) uint8 of a strip of the picture that begins in row `top`. Raises MediaError for floats."""
        if strip.mode == "F":
            raise MediaError("floating-point pixels have no known range", hint="save it with 8 or 16 bits")
        if strip.mode.startswith("I"):
            return self._deep_grey(np.asarray(strip))
        if self.key is not None:
            return self._without_key(np.array(strip.convert("RGB")), top)
        if self.step != 1:
            table = [min(255, round(value * self.step)) for value in range(256)]
            strip = strip.point(table * len(strip.getbands()))
        if "transparency" not in strip.info and strip.mode not in ("RGBA", "RGBa", "LA", "La", "PA"):
            return np.asarray(strip.convert("RGB"))
        colours = strip.convert("RGBA")
        white = Image.new("RGBA", colours.size, "white")
        return np.asarray(Image.alpha_composite(white, colours).convert("RGB"))

    def _deep_grey(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.int32:
            values = values.view(np.uint32)
        grey = np.rint(np.minimum(values, self.white) * (255 / self.white)).astype(np.uint8)
        if self.key is not None:
            grey[values == self.key[0]] = 255
        return np.repeat((255 - grey if self.inverted else grey)[..., None], 3, axis=2)

    def _without_key(self, pixels: np.ndarray, top: int) -> np.ndarray:
        key = np.array(self.key)
        if self.low is None:
            transparent = (pixels == key).all(axis=2)
        else:
            height, width = pixels.shape[:2]
            low = np.asarray(self.low.crop((0, top, width, top + height)))
            transparent = ((pixels == key >> 8) & (low == key & 255)).all(axis=2)
        pixels[transparent] = 255
        return pixels


def depth_of(image: Image.Image, file: BinaryIO) -> Depth:
    """Of an opened image that is not loaded yet. Raises MediaError for signed pixels in TIFF."""
    if isinstance(image, TiffImageFile):
        return _of_tiff(image)
    if image.format == "JPEG2000":
        return _of_jpeg2000(image, file)
    key = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or image.mode == "P" or key is None:
        return Depth()
    raw = str(image.tile[0].args)
    key = key if isinstance(key, tuple) else (key,)
    if raw == "RGB;16B":
        return Depth(key=key, low=_low_bytes(file))
    if image.mode == "I;16":
        return Depth(key=key)
    return Depth(key=tuple(value * _GREY_STEPS.get(raw, 1) & 255 for value in key))


def _of_tiff(image: TiffImageFile) -> Depth:
    tags = image.tag_v2
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise MediaError("signed pixels have no known range", hint="save it with unsigned 8 or 16 bits")
    bits = max(tags.get(_BITS, (1,)))
    if bits == 16 and tags.get(_PLANAR) == _SEPARATE:  # Pillow takes planes that are not compressed for ones of 8 bits
        order = "L" if tags.prefix[:1] == b"I" else "B"
        for index, tile in enumerate(image.tile):
            if tile.codec_name == "raw" and isinstance(tile.args, tuple) and len(tile.args[0]) == 1:
                image.tile[index] = tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))
    return Depth(white=2**bits - 1, inverted=tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)


def _of_jpeg2000(image: Image.Image, file: BinaryIO) -> Depth:
    """Pillow shifts values to 8 or 16 bits, so that white is not white."""
    place = file.tell()
    size = _codestream_head(file)
    file.seek(place)
    count = int.from_bytes(size[40:42], "big")
    bits = {1 + (value & 127) for value in size[42 : 42 + 3 * count : 3]}
    if max(bits, default=0) > 8 and image.mode != "I;16":  # white would wrap to black
        raise MediaError(
            "colours of more than 8 bits in JPEG 2000 are not read", hint="save it with 8 bits, or as PNG or TIFF"
        )
    if len(bits) != 1 or image.mode == "P":
        return Depth()
    depth = bits.pop()
    held = 16 if image.mode.startswith("I") else 8
    white = (2**depth - 1) << (held - depth) if depth < held else 2**held - 1
    return Depth(white=white, step=255 / white if held == 8 else 1.0)


def _codestream_head(file: BinaryIO) -> bytes:
    """The beginning of a JPEG 2000 codestream, which may lie in one of several boxes."""
    starts = (box.start for box in walk(file, BOXES, file.seek(0, os.SEEK_END)) if box.name == b"jp2c")
    for start in (0, *starts):
        file.seek(start)
        head = file.read(1 << 16)
        if head.startswith(_SIZ):
            return head
    return b""


def _low_bytes(file: BinaryIO) -> Image.Image:
    """The lower bytes of a PNG with 16 bits a colour, of which Pillow's own reading takes the upper ones."""
    place = file.tell()
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as image:
        image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
        image.load()
    file.seek(place)
    return image
