"""The eight orientations in which pixels may be stored, by their EXIF numbers: of pictures and of clips alike.

Knows pixels and matrices; knows no format.
"""

from collections.abc import Callable

import numpy as np

Turn = Callable[[np.ndarray], np.ndarray]
Four = tuple[int, int, int, int]
UPRIGHT, FIRST_SIDEWAYS = 1, 5
# From pixels as stored to pixels as shown; which stored side becomes left, top, right, bottom; and where a step to the
# right and a step down lead, as (right, down, right, down).
TURNS: dict[int, tuple[Turn, Four, Four]] = {
    UPRIGHT: (lambda pixels: pixels, (0, 1, 2, 3), (1, 0, 0, 1)),
    2: (np.fliplr, (2, 1, 0, 3), (-1, 0, 0, 1)),
    3: (lambda pixels: np.rot90(pixels, 2), (2, 3, 0, 1), (-1, 0, 0, -1)),
    4: (np.flipud, (0, 3, 2, 1), (1, 0, 0, -1)),
    FIRST_SIDEWAYS: (lambda pixels: pixels.swapaxes(0, 1), (1, 0, 3, 2), (0, 1, 1, 0)),
    6: (lambda pixels: np.rot90(pixels, -1), (3, 0, 1, 2), (0, 1, -1, 0)),
    7: (lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2), (3, 2, 1, 0), (0, -1, -1, 0)),
    8: (np.rot90, (1, 2, 3, 0), (0, -1, 1, 0)),
}
_TOLERANCE = 0.01  # about half a degree, within which FFmpeg's command takes an angle for a multiple of 90


def of_display_matrix(matrix: np.ndarray) -> int | None:
    """The orientation of a clip's display matrix (9,), whatever its scale.

    None where it is none of the eight: all zeros, singular, a shear, or an angle between.
    """
    steps = matrix.reshape(3, 3)[:2, :2].astype(np.float64)
    lengths = np.hypot(*steps.T)[:, None]
    if not lengths.all():
        return None
    units = (steps / lengths).ravel()
    return next((number for number, (*_, four) in TURNS.items() if np.abs(units - four).max() <= _TOLERANCE), None)
