"""Media as Python code has them: pictures, pixels, waveforms and bytes become files that the decoders read.

So what is given in memory is decoded as a file of it would be; nothing is lost on the way.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps

from epalm.errors import MediaError, UsageError
from epalm.extract.media.audio import MAX_CHANNELS
from epalm.media import MediaFile
from epalm.samples import Modality

# `Any` stands for a path, bytes, a picture, pixels, or (waveform, rate).
_FORMS = {
    Modality.IMAGE: "a path, bytes, a PIL.Image, or a uint8 array (height, width, 3)",
    Modality.VIDEO: "a path, bytes, or a uint8 array (frames, height, width, 3)",
    Modality.AUDIO: "a path, bytes, or (waveform, rate): a float array (samples,) or (samples, channels), rate in Hz",
}
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F")


def is_many(media: Any) -> bool:
    """Whether this is a list of media; a pair of a waveform and its rate is one medium."""
    return isinstance(media, list | tuple) and not (
        isinstance(media, tuple) and bool(media) and isinstance(media[0], np.ndarray)
    )


@contextmanager
def as_files(media: Sequence[Any], modality: Modality) -> Iterator[list[tuple[str, MediaFile]]]:
    """The media as files, while the block runs, each with what to call it in a message.

    Raises:
        UsageError: a value that is no medium of that modality.
        MediaError: a picture that Pillow cannot load.
    """
    with tempfile.TemporaryDirectory(prefix="epalm-media-") as folder:
        yield [_as_file(one, Path(folder) / str(number), modality) for number, one in enumerate(media)]


def _as_file(medium: Any, draft: Path, modality: Modality) -> tuple[str, MediaFile]:
    if isinstance(medium, str | Path):
        return str(medium), MediaFile(Path(medium))
    name = f"medium {draft.name}"
    if isinstance(medium, bytes):
        draft.write_bytes(medium)
    elif modality is Modality.IMAGE and isinstance(medium, Image.Image):
        _write_picture(medium, draft, name)
    elif modality is Modality.IMAGE and _are_pixels(medium, 3):
        Image.fromarray(np.ascontiguousarray(medium)).save(draft, "PNG", compress_level=1)
    elif modality is Modality.VIDEO and _are_pixels(medium, 4):
        _write_clip(medium, draft)
    elif modality is Modality.AUDIO and _is_sound(medium):
        waveform, rate = medium
        kept, subtype = (np.float64, "DOUBLE") if waveform.dtype.itemsize > 4 else (np.float32, "FLOAT")
        soundfile.write(draft, waveform.astype(kept), int(rate), format="WAV", subtype=subtype)
    else:
        given = f"({', '.join(map(_in_words, medium))})" if isinstance(medium, tuple) else _in_words(medium)
        raise UsageError(f"{name} is {given}, and this model takes {modality} media", hint=f"give {_FORMS[modality]}")
    return name, MediaFile(draft)


def _are_pixels(medium: Any, axes: int) -> bool:
    fits = isinstance(medium, np.ndarray) and medium.dtype == np.uint8 and medium.ndim == axes
    return fits and medium.shape[-1] == 3 and medium.size > 0


def _is_sound(medium: Any) -> bool:
    if not (isinstance(medium, tuple) and len(medium) == 2 and isinstance(medium[0], np.ndarray)):
        return False
    waveform, rate = medium
    fits = waveform.ndim in (1, 2) and waveform.dtype.kind == "f" and waveform.size > 0
    return bool(fits and waveform.shape[1:] <= (MAX_CHANNELS,) and isinstance(rate, int | np.integer) and rate > 0)


def _in_words(value: Any) -> str:
    return f"a {value.dtype} array {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.60}"


def _write_picture(picture: Image.Image, draft: Path, name: str) -> None:
    try:
        shown = ImageOps.exif_transpose(picture)
        if shown.mode not in (*_PNG_MODES, *_TIFF_MODES):
            shown = shown.convert("RGBA" if shown.mode in ("RGBa", "La", "PA") else "RGB")
        shown.info = {key: shown.info[key] for key in ("transparency",) if key in shown.info}
        shown.save(draft, "TIFF" if shown.mode in _TIFF_MODES else "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise MediaError(f"{name}: the picture cannot be loaded: {error}", hint="open it anew") from error


def _write_clip(pixels: np.ndarray, draft: Path) -> None:
    with av.open(str(draft), "w", format="mov") as container:
        stream = container.add_stream("png", rate=Fraction(25))
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
