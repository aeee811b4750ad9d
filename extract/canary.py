"""A canary: a few stored rows encoded again, to notice that this machine would give other numbers by now.

Knows the encoder and the rows; does not know where media lie or who asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epalm.cache.reader import FeatureReader
from epalm.errors import MediaError
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.views import view_of
from epalm.media import MediaFile

# Of a token's length, how far a row may be off: rounding of the stored dtype, other kernels, other batch sizes.
TOLERANCE = {"float32": 5e-3, "bfloat16": 5e-2, "float16": 2e-2}


@dataclass(frozen=True, slots=True)
class Deviation:
    """One medium's row: the largest distance of a token to the stored one, as a share of that one's length."""

    media: str
    view: int
    share: float
    tolerance: float

    @property
    def alarming(self) -> bool:
        """Whether it is more than rounding."""
        return not self.share <= self.tolerance


def compare_rows(
    reader: FeatureReader,
    layers: Sequence[int],
    encoder: Encoder,
    media: Sequence[tuple[str, MediaFile, str]],
    *,
    view_seed: int,
) -> list[Deviation]:
    """Encode (name, file, digest) media again, in their last view and in view 0, and compare.

    `layers` are those that the reader's rows hold. Raises MediaError when one cannot be decoded.
    """
    batches = BatchEncoder(encoder, layers, "float32", 1)
    found = []
    for name, file, digest in media:
        rows = reader.rows_of([digest])
        for view in sorted({0, reader.views_of(rows)[-1]}):
            try:
                inputs = encoder.input(file, (view_of(digest, view, view_seed),))
            except MediaError as error:
                raise MediaError(f"{name}: {error.message}", hint=error.hint) from error
            now = batches.collect(batches.submit([inputs]))[0, 0]  # (L, T, D)
            then = reader.gather(rows, view=view)[0].astype(np.float32)
            share = np.linalg.norm(now - then, axis=-1) / np.maximum(np.linalg.norm(then, axis=-1), 1e-6)
            found.append(Deviation(name, view, float(share.max()), TOLERANCE[encoder.precision]))
    return found
