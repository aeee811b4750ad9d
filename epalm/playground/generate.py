"""Write the playground to disk: scenes drawn as real media files, and their questions and captions as samples.

A picture (PNG, JPEG) is one coloured shape on a plain background. In a clip (MP4 with H.264) the shape moves across,
comes closer or goes away, while a light flashes once; start, pace and the flash's frame are jittered so that no single
frame gives the motion or the moment away. A sound (WAV) is one to four tones of one timbre, each with the same sweep of
pitch. A folder appears complete or not at all.
"""

import json
import math
import random
import shutil
import uuid
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from epalm.errors import UsageError
from epalm.playground.world import QUESTIONS, SPLITS, Scene, captions, draw_scenes
from epalm.samples import Modality, Task

_VERSION, _SEED = 2, 0  # the version is raised whenever the same seed would give other files
_MARKER = "playground.json"
COUNTS = {  # media per split: train, val, test
    Modality.IMAGE: (1500, 80, 150),
    Modality.VIDEO: (900, 60, 120),
    Modality.AUDIO: (900, 60, 120),
}
_THIRDS = (0.0, 2 * math.pi / 3, 4 * math.pi / 3)

PICTURE_SIDE = 64  # pixels
CLIP_SIDE = 48  # pixels
FRAMES = 16
FRAMES_PER_SECOND = 8
_FLASH_FRAMES = 2  # as long as the interval of one sampled frame, so that sampling eight never misses it
# x264's quantiser: little enough loss that small shapes keep their outline. A constant one, because on frames as small
# as these x264's rate control does not give the same bytes every time.
_QUANTISER = "14"

RATE = 16_000  # samples per second
SECONDS = 1.29  # 127 frames of 25 ms every 10 ms


def generate_playground(root: Path, modality: Modality, *, counts: tuple[int, int, int] | None = None) -> Path:
    """Draw the media of one modality below `root`, with `samples.jsonl` beside them, and return `root`.

    A folder that already holds exactly this is left alone; one of another version or size is replaced. `counts` are the
    media of the train, val and test split [default: `COUNTS`]. Raises UsageError: `root` holds something else, which is
    never deleted.
    """
    counts = counts or COUNTS[modality]
    marker, there = _expected(modality, counts), _marker(root)
    if there == marker:
        return root
    if there is None and root.exists() and any(root.iterdir()):
        raise UsageError(
            f"{root} holds files that are not the playground's", hint="move them, or work in another folder"
        )
    draft = root.parent / f".{root.name}-{uuid.uuid4().hex[:8]}"
    try:
        _write(draft, modality, counts)
        (draft / _MARKER).write_text(json.dumps(marker))
        if _marker(root) not in (None, marker):
            shutil.rmtree(root)
        try:
            draft.rename(root)
        except OSError:
            if _marker(root) != marker:  # no other process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def is_drawn(root: Path, modality: Modality) -> bool:
    """Whether the playground lies there, whole and of this version."""
    return _marker(root) == _expected(modality, COUNTS[modality])


def _expected(modality: Modality, counts: tuple[int, int, int]) -> dict[str, Any]:
    return {"version": _VERSION, "modality": modality, "seed": _SEED, "media": list(counts)}


def _marker(root: Path) -> object:
    with suppress(OSError, ValueError):
        marker = json.loads((root / _MARKER).read_text())
        return marker if isinstance(marker, dict) else None
    return None


def _write(folder: Path, modality: Modality, counts: tuple[int, int, int]) -> None:
    """The media, and of each one question per attribute, in one of its wordings, and one sample of captions."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{_SEED}/{modality}")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as lines:
        for split, count in zip(SPLITS, counts, strict=True):
            (folder / split).mkdir()
            for number, scene in enumerate(draw_scenes(modality, split, count, rng)):
                stem = f"{split}/{number:05d}"
                media = write_medium(scene, folder / stem, rng).relative_to(folder).as_posix()
                base = {"modality": modality, "media": media, "split": split}
                for attribute, wordings in QUESTIONS[modality].items():
                    asked = {"prompt": rng.choice(wordings), "answers": {scene[attribute]: 1.0}}
                    row = {"id": f"{stem}/{attribute}", **base, "task": Task.QA, **asked}
                    lines.write(json.dumps(row) + "\n")
                row = {"id": f"{stem}/caption", **base, "task": Task.CAPTION, "references": captions(scene)}
                lines.write(json.dumps(row) + "\n")


def write_medium(scene: Scene, stem: Path, rng: random.Random) -> Path:
    """Draw the scene into a file of that stem; the modality decides the extension. Returns its path."""
    if scene.modality is Modality.IMAGE:
        path = stem.with_suffix(rng.choice((".png", ".jpg")))
        Image.fromarray(draw_image(scene, rng)).save(path, quality=95, subsampling=0)
    elif scene.modality is Modality.VIDEO:
        import av

        path, frames = stem.with_suffix(".mp4"), draw_video(scene, rng)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.thread_count = "yuv420p", 1  # with more, the same frames give other bytes
            stream.options = {"qp": _QUANTISER, "preset": "veryfast"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    else:
        import soundfile

        path = stem.with_suffix(".wav")
        soundfile.write(path, draw_audio(scene, rng), RATE, subtype="PCM_16")
    return path


def draw_image(scene: Scene, rng: random.Random) -> np.ndarray:
    """RGB picture (PICTURE_SIDE, PICTURE_SIDE, 3) uint8 of an image scene."""
    level = scene.figure("background") + rng.randint(-9, 9)
    x, y = (PICTURE_SIDE * part + rng.uniform(-2.5, 2.5) for part in scene.figure("place"))
    radius = scene.figure("size") * rng.uniform(0.93, 1.07)
    color = _color(scene, rng)
    return _add_noise(_draw_shape(scene["shape"], color, level, PICTURE_SIDE, 4, (x, y), radius), rng)


def draw_video(scene: Scene, rng: random.Random) -> np.ndarray:
    """RGB clip (FRAMES, CLIP_SIDE, CLIP_SIDE, 3) uint8 of a video scene."""
    color = _color(scene, rng)
    flash = rng.randint(*scene.figure("flash"))
    direction = scene.figure("motion")
    reach = CLIP_SIDE * rng.uniform(0.18, 0.28)
    centre = [CLIP_SIDE * rng.uniform(0.42, 0.58) for _ in range(2)]
    radius, growth = 7.5 * rng.uniform(0.93, 1.07), 0.0
    if direction == [0, 0]:
        radius, growth = 8.5 * rng.uniform(0.93, 1.07), 0.55 if scene["motion"] == "closer" else -0.55
    frames = []
    for number in range(FRAMES):
        phase = 2 * number / (FRAMES - 1) - 1  # −1 … 1
        level = 205 if flash <= number < flash + _FLASH_FRAMES else 30
        x, y = (c + reach * phase * step for c, step in zip(centre, direction, strict=True))
        size = radius * (1 + growth * phase)
        frames.append(_draw_shape(scene["shape"], color, level, CLIP_SIDE, 3, (x, y), size))
    return _add_noise(np.stack(frames), rng)


def draw_audio(scene: Scene, rng: random.Random) -> np.ndarray:
    """Mono waveform (samples,) float32 in −1 … 1 of an audio scene, at `RATE`."""
    count = scene.figure("count")
    sound, silence = (seconds * rng.uniform(0.95, 1.02) for seconds in scene.figure("pace"))
    pitch = scene.figure("pitch") * 2 ** rng.uniform(-0.15, 0.15)
    octaves = scene.figure("sweep") * rng.uniform(0.9, 1.1)
    wave = np.zeros(int(SECONDS * RATE), dtype=np.float32)
    start = rng.uniform(0.01, max(0.02, SECONDS - 0.02 - count * (sound + silence)))
    for number in range(count):
        tone = _tone(scene["timbre"], pitch, octaves, int(sound * RATE))
        first = int((start + number * (sound + silence)) * RATE)
        tone = tone[: len(wave) - first]
        wave[first : first + len(tone)] += tone
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 0.002, len(wave))
    return (rng.uniform(0.4, 0.7) * wave + noise).clip(-1, 1).astype(np.float32)


def _color(scene: Scene, rng: random.Random) -> tuple[int, ...]:
    color = ImageColor.getrgb(scene.figure("color"))
    return tuple(min(255, max(0, channel + rng.randint(-12, 12))) for channel in color)


def _add_noise(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture (..., 3) with noise of three grey levels, uint8."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 3, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


def _draw_shape(
    shape: str, color: tuple[int, ...], level: int, side: int, smooth: int, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """A picture (side, side, 3) of a filled shape on grey of that level; drawn `smooth` times larger, then reduced."""
    canvas = Image.new("RGB", (side * smooth, side * smooth), (level, level, level))
    draw = ImageDraw.Draw(canvas)
    x, y, radius = centre[0] * smooth, centre[1] * smooth, radius * smooth
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=max(1, round(radius * 0.45)))
    elif shape == "square":
        half = radius * 0.9
        draw.rectangle((x - half, y - half, x + half, y + half), fill=color)
    elif shape == "triangle":
        draw.polygon([(x + radius * 1.1 * math.sin(a), y - radius * 1.1 * math.cos(a)) for a in _THIRDS], fill=color)
    else:  # a cross
        arm = radius * 0.33
        draw.rectangle((x - radius, y - arm, x + radius, y + arm), fill=color)
        draw.rectangle((x - arm, y - radius, x + arm, y + radius), fill=color)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def _tone(timbre: str, pitch: float, octaves: float, samples: int) -> np.ndarray:
    along = np.linspace(-1, 1, samples)
    phase = 2 * np.pi * np.cumsum(pitch * 2 ** (octaves * along)) / RATE
    if timbre == "pure":
        wave = np.sin(phase)
    elif timbre == "hollow":  # odd harmonics only, as of a clarinet
        wave = np.sum([np.sin(n * phase) / n for n in (1, 3, 5, 7, 9)], axis=0)
    else:  # bright: all harmonics, as of a bowed string
        wave = np.sum([np.sin(n * phase) / n**0.7 for n in range(1, 11)], axis=0) * 0.6
    fade = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (0.008 * RATE))
    return (0.8 * wave * fade).astype(np.float32)
