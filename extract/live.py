"""The encoder in the training loop: samples → features, with no cache between.

Does what a reader of cached features does, from media files. Knows nothing about training.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm.datasets.paths import resolve_media
from epalm.errors import MediaError
from epalm.extract.encoder import Encoder
from epalm.extract.encoders import EncoderChoice
from epalm.extract.pipeline import default_workers
from epalm.samples import Sample


class LiveFeatures:
    """Features decoded and encoded when asked for; a medium that samples share is encoded once a batch."""

    def __init__(
        self, encoder: Encoder, layers: tuple[int, ...], root: Path, *, choice: EncoderChoice | None = None
    ) -> None:
        """`choice` is what built the encoder: told along, so that it can be built again."""
        self._encoder, self._chosen, self._root, self._choice = encoder, list(layers), root, choice
        self.layers, self.width = len(layers), encoder.width
        # Decoders release the interpreter's lock: threads suffice for one batch at a time.
        self._threads = ThreadPoolExecutor(default_workers(), "decode")

    def gather(self, samples: Sequence[Sample], *, epoch: int = 0) -> np.ndarray:
        """The samples' features (B, K, D) float32; `epoch` changes nothing, as there is one view of a medium.

        Raises:
            MediaError: a medium cannot be read; the message names it.
        """
        names = list(dict.fromkeys(sample.media for sample in samples))
        inputs = np.stack(list(self._threads.map(self._read, names)))
        tokens = self._encoder.encode(torch.from_numpy(inputs))[:, self._chosen].float().cpu().numpy()
        place = {name: row for row, name in enumerate(names)}
        features: np.ndarray = tokens[[place[sample.media] for sample in samples]]
        return features

    def describe(self) -> dict[str, Any]:
        """What decides the numbers, as JSON."""
        return {
            "source": "live",
            "encoder": self._encoder.describe(),
            "layers": self._chosen,
            "preprocessing": self._encoder.input.describe(),
            "choice": self._choice.to_record() if self._choice else None,
        }

    def _read(self, media: str) -> np.ndarray:
        try:
            return self._encoder.input(resolve_media(self._root, media))
        except MediaError as error:
            raise MediaError(f"{media}: {error.message}", hint=error.hint) from error
