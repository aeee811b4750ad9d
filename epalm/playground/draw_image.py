"""Draw an image scene: one coloured shape on a plain background, jittered, with a little noise."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from epalm.playground.world import Scene

SIDE = 64  # pixels
COLORS = {
    "red": (214, 40, 40),
    "green": (40, 168, 60),
    "blue": (46, 74, 214),
    "yellow": (232, 206, 40),
    "pink": (232, 110, 190),
    "cyan": (50, 208, 214),
}
_BACKGROUNDS = {"black": 12, "white": 243, "gray": 128}
_RADII = {"small": 6.0, "medium": 10.0, "large": 15.0}  # pixels
_PLACES = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "center": (0.5, 0.5),
}
_SMOOTH = 4  # drawn this many times larger, then reduced


def draw_image(scene: Scene, rng: random.Random) -> np.ndarray:
    """RGB picture (SIDE, SIDE, 3) uint8 of an image scene."""
    level = _BACKGROUNDS[scene["background"]] + rng.randint(-9, 9)
    x, y = (SIDE * part + rng.uniform(-2.5, 2.5) for part in _PLACES[scene["place"]])
    radius = _RADII[scene["size"]] * rng.uniform(0.93, 1.07)
    canvas = Image.new("RGB", (SIDE * _SMOOTH, SIDE * _SMOOTH), (level, level, level))
    color = jitter_color(COLORS[scene["color"]], rng)
    draw_shape(ImageDraw.Draw(canvas), scene["shape"], x * _SMOOTH, y * _SMOOTH, radius * _SMOOTH, color)
    return add_noise(np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX)), rng)


def jitter_color(color: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    """The colour, a little off in each channel."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-12, 12))) for channel in color)
    return red, green, blue


def add_noise(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture (..., 3) with noise of three grey levels, uint8."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 3, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, color: tuple[int, int, int]
) -> None:
    """A filled shape of that radius, in pixels, about (x, y)."""
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=color)
    elif shape == "ring":
        draw.ellipse(box, outline=color, width=max(1, round(radius * 0.45)))
    elif shape == "square":
        side = radius * 0.9
        draw.rectangle((x - side, y - side, x + side, y + side), fill=color)
    elif shape == "triangle":
        corners = [(x + radius * 1.1 * math.sin(a), y - radius * 1.1 * math.cos(a)) for a in _THIRDS]
        draw.polygon(corners, fill=color)
    elif shape == "cross":
        arm = radius * 0.33
        draw.rectangle((x - radius, y - arm, x + radius, y + arm), fill=color)
        draw.rectangle((x - arm, y - radius, x + arm, y + radius), fill=color)
    else:
        raise ValueError(f"no shape {shape!r}")


_THIRDS = (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
