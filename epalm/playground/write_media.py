"""Drawn scenes as real media files: PNG and JPEG, MP4 (H.264), WAV."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

from epalm.playground.draw_audio import RATE, draw_audio
from epalm.playground.draw_image import draw_image
from epalm.playground.draw_video import FRAMES_PER_SECOND, draw_video
from epalm.playground.world import Scene
from epalm.samples import Modality

# x264's quantiser: little enough loss that small shapes keep their outline. A constant one, because on frames as small
# as these x264's rate control does not give the same bytes every time.
_QUANTISER = "14"


def write_medium(scene: Scene, stem: Path, rng: random.Random) -> Path:
    """Draw the scene into a file of that stem; the modality decides the extension. Returns its path."""
    if scene.modality is Modality.IMAGE:
        path = stem.with_suffix(rng.choice((".png", ".jpg")))
        Image.fromarray(draw_image(scene, rng)).save(path, quality=95, subsampling=0)
    elif scene.modality is Modality.VIDEO:
        path = stem.with_suffix(".mp4")
        _write_video(path, draw_video(scene, rng))
    else:
        path = stem.with_suffix(".wav")
        soundfile.write(path, draw_audio(scene, rng), RATE, subtype="PCM_16")
    return path


def _write_video(path: Path, frames: np.ndarray) -> None:
    """Frames (T, H, W, 3) uint8 as H.264; one thread, so that the same frames give the same bytes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"qp": _QUANTISER, "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
