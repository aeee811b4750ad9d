"""Media of fifteen formats, whole and mutated, and how independent programs decode them."""

import io
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from epalm.extract.inputs.augment import View
from epalm.extract.media.audio import read_waveform
from epalm.extract.media.image import read_image
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import middle_frames, read_frames
from epalm.media import MediaFile
from tests.hostile_pictures import saved
from tests.hostile_streams import clip
from tests.shared_files import program

EACH = 20  # mutations of each format
FRAMES, RATE = 4, 16_000
PICTURES: dict[str, dict[str, Any]] = {
    "png": {}, "jpg": {"quality": 90}, "gif": {}, "webp": {"quality": 90}, "bmp": {},
    "tif": {"compression": "tiff_lzw"}, "avif": {},
}  # fmt: skip
CLIPS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}
SOUNDS = ("wav", "flac", "mp3", "ogg")


def whole(extension: str) -> bytes:
    """The file before it is mutated: shapes with some noise, so that every part of it matters."""
    rng = np.random.default_rng(1)
    if extension in PICTURES:
        ramp = np.add.outer(np.arange(72) * 2, np.arange(96))[..., None] + np.array([0, 30, 60])
        pixels = np.clip(ramp + rng.normal(0, 6, ramp.shape), 0, 255).astype(np.uint8)
        return saved(Image.fromarray(pixels), extension, **PICTURES[extension])
    if extension in CLIPS:
        return clip(extension, CLIPS[extension], count=24, size=(64, 48))
    seconds = np.arange(RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 200 * seconds) * seconds) + rng.normal(0, 0.02, RATE)
    file = io.BytesIO()
    soundfile.write(file, tone, RATE, format=extension.upper())
    return file.getvalue()


def mutations(content: bytes, extension: str) -> Iterator[tuple[str, bytes]]:
    """Bits flipped, the end cut off, a range of zeros, and two stretches swapped, in turn."""
    for seed in range(EACH):
        rng, altered = np.random.default_rng([seed, *extension.encode()]), bytearray(content)
        size = len(content)
        kind = ("flipped", "cut", "zeroed", "swapped")[seed % 4]
        if kind == "flipped":
            for place in rng.integers(0, size, 1 + seed // 4):
                altered[place] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            del altered[int(rng.integers(size // 10, size)) :]
        elif kind == "zeroed":
            start, length = int(rng.integers(0, size)), int(rng.integers(8, 200))
            altered[start : start + length] = bytes(len(altered[start : start + length]))
        else:
            length = int(rng.integers(8, max(9, size // 4)))
            first = int(rng.integers(0, size - 2 * length))
            second = int(rng.integers(first + length, size - length + 1))
            altered[first : first + length], altered[second : second + length] = (
                content[second : second + length], content[first : first + length],
            )  # fmt: skip
        yield f"{seed}-{kind}", bytes(altered)


class AsDecoded:
    """A reader of what epalm's own decoders give, before anything is scaled: chosen by the file's name."""

    def __call__(self, medium: MediaFile, views: Sequence[View]) -> np.ndarray:
        """Pixels (H, W, 3), four frames (4, H, W, 3), or samples (N,)."""
        extension = medium.path.suffix[1:]
        if extension in PICTURES:
            return read_image(medium, Limits()).pixels
        if extension in CLIPS:
            (kept,) = read_frames(medium, lambda total: [middle_frames(total, FRAMES)], lambda _, one: one, Limits())
            return np.stack(kept)
        return read_waveform(medium, Limits(), rate=RATE, keep=60 * RATE).samples


def _run(*words: str | Path) -> bytes:
    return subprocess.run([str(word) for word in words], check=False, capture_output=True, timeout=60).stdout


def _by_imagemagick(path: Path) -> np.ndarray | None:
    shown = _run(program("convert"), f"{path}[0]", "-auto-orient", "-background", "white", "-alpha", "remove",
                 "-colorspace", "sRGB", "-depth", "8", "ppm:-")  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")) if shown else None


def _picture_by_ffmpeg(path: Path) -> np.ndarray | None:
    shown = _run(program("ffmpeg"), "-v", "error", "-i", path, "-frames:v", "1", "-pix_fmt", "rgb24", "-c:v", "ppm",
                 "-f", "image2pipe", "-")  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")) if shown else None


def _frames_by_ffmpeg(path: Path) -> np.ndarray | None:
    shown = _run(program("ffmpeg"), "-v", "error", "-i", path, "-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt",
                 "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-")  # fmt: skip
    frames, place = [], 0
    while head := re.match(rb"P6\n(\d+) (\d+)\n255\n", shown[place : place + 40]):
        width, height = int(head[1]), int(head[2])
        place += head.end()
        frames.append(np.frombuffer(shown, np.uint8, width * height * 3, place).reshape(height, width, 3))
        place += width * height * 3
    if not frames or len({frame.shape for frame in frames}) > 1:
        return None
    return np.stack([frames[number] for number in middle_frames(len(frames), FRAMES)])


def _samples_by_ffmpeg(path: Path) -> np.ndarray | None:
    shown = _run(program("ffmpeg"), "-v", "error", "-i", path, "-map", "0:a:0", "-ac", "1", "-ar", str(RATE), "-f",
                 "f32le", "-")  # fmt: skip
    return np.frombuffer(shown, np.float32) if len(shown) >= 4 else None


def independent(path: Path) -> Iterator[np.ndarray]:
    """What other programs make of the file, one after the other; nothing of those that refuse it."""
    extension = path.suffix[1:]
    programs: list[Callable[[Path], np.ndarray | None]] = [_samples_by_ffmpeg]
    if extension in PICTURES:
        programs = [_by_imagemagick, _picture_by_ffmpeg]
    elif extension in CLIPS:
        programs = [_frames_by_ffmpeg]
    for decode in programs:
        if (decoded := decode(path)) is not None:
            yield decoded


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean difference: of pixels as a share of their range, of sounds of their level; infinite for other sizes."""
    if one.dtype == np.uint8:
        if one.shape != other.shape:
            return float("inf")
        return float(np.abs(one.astype(np.float32) - other.astype(np.float32)).mean()) / 255
    if abs(len(one) - len(other)) > 0.01 * len(one) + 50:
        return float("inf")
    count = min(len(one), len(other))
    level = float(np.sqrt(np.mean(np.square(other[:count], dtype=np.float64)))) or 1.0
    return float(np.abs(one[:count] - other[:count]).mean()) / level
