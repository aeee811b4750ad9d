"""Views of a medium: number 0 is deterministic, each later one a random draw that never changes.

What a view draws follows from the medium's bytes, its number and the augmentation seed alone: not from the order,
the process, the batch or the machine. Knows no augmentation, only where one gets its random numbers.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from epalm.fingerprint import canonical_json

_SEED_BYTES = 16


@dataclass(frozen=True, slots=True)
class View:
    """`number` 0 is the deterministic view; `seed` (128 bits) is what the others draw from."""

    number: int
    seed: int

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose ("frames", "pixels", "mask"); those of another do not depend on them.

        Draw with `random()` alone: NumPy promises the bits of PCG64, and `random()` is the thinnest layer over them.
        """
        return np.random.Generator(np.random.PCG64(_digest("draw", format(self.seed, "032x"), purpose)))


VIEW_0 = View(0, 0)


def view_of(digest: str, number: int, seed: int) -> View:
    """View `number` of the medium whose bytes have that digest, under the augmentation seed `seed`.

    Raises:
        ValueError: a negative number.
    """
    if number < 0:
        raise ValueError(f"view {number}: views are numbered from 0")
    return View(number, _digest("view", digest, number, seed)) if number else VIEW_0


def _digest(*parts: str | int) -> int:
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts))).digest()[:_SEED_BYTES], "big")
