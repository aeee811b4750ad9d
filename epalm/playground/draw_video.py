"""Draw a video scene: a shape that moves across, comes closer or goes away, while a light flashes once.

Start, pace and the flash's frame are jittered so that no single frame gives the motion or the moment away.
"""

import random

import numpy as np
from PIL import Image, ImageDraw

from epalm.playground.draw_image import COLORS, add_noise, draw_shape, jitter_color
from epalm.playground.world import Scene

SIDE = 48  # pixels
FRAMES = 16
FRAMES_PER_SECOND = 8
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "closer": (0, 0), "away": (0, 0)}
_FLASHES = {"early": (1, 3), "halfway": (6, 8), "late": (11, 13)}  # first frame, from … to
_FLASH_FRAMES = 2  # as long as the interval of one sampled frame, so that sampling eight never misses it
_SMOOTH = 3


def draw_video(scene: Scene, rng: random.Random) -> np.ndarray:
    """RGB clip (FRAMES, SIDE, SIDE, 3) uint8 of a video scene."""
    color = jitter_color(COLORS[scene["color"]], rng)
    flash = rng.randint(*_FLASHES[scene["flash"]])
    direction = _STEPS[scene["motion"]]
    reach = SIDE * rng.uniform(0.18, 0.28)
    centre = [SIDE * rng.uniform(0.42, 0.58) for _ in range(2)]
    radius, growth = 7.5 * rng.uniform(0.93, 1.07), 0.0
    if direction == (0, 0):
        radius, growth = 8.5 * rng.uniform(0.93, 1.07), 0.55 if scene["motion"] == "closer" else -0.55
    frames = []
    for number in range(FRAMES):
        phase = 2 * number / (FRAMES - 1) - 1  # −1 … 1
        level = 205 if flash <= number < flash + _FLASH_FRAMES else 30
        canvas = Image.new("RGB", (SIDE * _SMOOTH, SIDE * _SMOOTH), (level, level, level))
        x, y = (c + reach * phase * step for c, step in zip(centre, direction, strict=True))
        draw_shape(
            ImageDraw.Draw(canvas),
            scene["shape"],
            x * _SMOOTH,
            y * _SMOOTH,
            radius * (1 + growth * phase) * _SMOOTH,
            color,
        )
        frames.append(np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX)))
    return add_noise(np.stack(frames), rng)
