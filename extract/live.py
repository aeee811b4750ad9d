"""The encoder in the training loop, frozen or trained: samples → features, with no cache between.

Does what a reader of cached features does, from media files. Knows no language model and no optimiser.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from epalm.cache.media_index import MediaIndex
from epalm.console import warn
from epalm.errors import MediaError, UsageError
from epalm.extract.decoding.workers import default_workers
from epalm.extract.encoders.registry import Encoder, EncoderChoice, TrainableEncoder
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.augment import VIEW_0, View, view_of
from epalm.extract.media.limits import collected_warnings, joined, require_status
from epalm.extract.spec_builder import feature_spec
from epalm.fingerprint import digest_json
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample

_DIGITS = 12  # hex, of the number of a view


class LiveFeatures:
    """Features decoded and encoded when asked for; a view that samples of a batch share is encoded once."""

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        dataset: Dataset,
        *,
        view_seed: int | None = None,
        choice: EncoderChoice | None = None,
        index: MediaIndex | None = None,
    ) -> None:
        """`view_seed`: each training epoch draws another augmented view; None: always view 0.

        `choice` is what built the encoder, for `describe`. `index` remembers digests.
        """
        self._encoder, self._chosen, self._dataset, self._choice = encoder, layers, dataset, choice
        self._view_seed, self._index = view_seed, index
        self._digests: dict[str, str] = {}
        self._warned: set[str] = set()  # media that a warning was shown of
        self.layers, self.width = len(layers), encoder.width
        # Decoders release the interpreter's lock: threads suffice for one batch at a time.
        self._threads = ThreadPoolExecutor(default_workers(), "decode")

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        """The samples' features (B, L, T, D) float32: view 0, or a view drawn for each sample of a training epoch.

        Raises:
            MediaError: a medium cannot be read; the message names it.
        """
        inputs, places = self._decoded(samples, epoch)
        batches = BatchEncoder(self._encoder, self._chosen, "float32", len(inputs))
        tokens = batches.submit(inputs)()[:, 0]
        features: np.ndarray = tokens[places]
        return features

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        """SHA-256 (hex) of each sample's medium; "" for one that cannot be read."""
        files = {}
        for media in dict.fromkeys(sample.media for sample in samples):
            if media not in self._digests:
                with suppress(MediaError):  # it is for the reading to say so
                    files[media] = self._dataset.locate(media)
        found = self._index.digests([*files.values()]) if self._index else [one.digest() for one in files.values()]
        self._digests.update({media: digest for media, digest in zip(files, found, strict=True) if digest})
        return [self._digests.get(sample.media, "") for sample in samples]

    def describe(self) -> dict[str, Any]:
        """What decides the numbers, as JSON."""
        return {
            "source": "live",
            "encoder": self._encoder.describe(),
            "layers": list(self._chosen),
            "preprocessing": self._encoder.input.describe(),
            "version": feature_spec(self._encoder, self._chosen).version,
            "view_seed": self._view_seed,
            "choice": self._choice.to_record() if self._choice else None,
        }

    def _decoded(self, samples: Sequence[Sample], epoch: int | None) -> tuple[list[np.ndarray], list[int]]:
        """The raw inputs (1, ...) of each medium in each view that is wanted, and which of them is each sample's."""
        wanted = [(sample.media, self._number(sample, epoch)) for sample in samples]
        place = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
        inputs = list(self._threads.map(lambda pair: self._read(*pair), place))
        return inputs, [place[pair] for pair in wanted]

    def _number(self, sample: Sample, epoch: int | None) -> int:
        """Of the view: 0, or one that no other sample and epoch are likely to draw."""
        if epoch is None or self._view_seed is None:
            return 0
        return 1 + int(digest_json([sample.id, epoch])[:_DIGITS], 16)

    def _read(self, media: str, number: int) -> np.ndarray:
        try:
            file = self._dataset.locate(media)
            require_status(file, self._encoder.input.limits)
            with collected_warnings() as warnings:
                decoded = self._encoder.input(file, (self._view(media, file, number),))
        except MediaError as error:
            raise MediaError(f"{media}: {error.message}", hint=error.hint) from error
        if (odd := joined(warnings)) and media not in self._warned:
            self._warned.add(media)
            warn(f"{media}: {odd.message}")
        return decoded

    def _view(self, media: str, file: MediaFile, number: int) -> View:
        if number == 0 or self._view_seed is None:
            return VIEW_0
        if media not in self._digests:
            self._digests[media] = file.digest() or ""
        return view_of(self._digests[media], number, self._view_seed)


class EncoderModule(nn.Module):
    """Raw inputs (B, ...) → tokens (B, L, T, D) of chosen layers, with gradients; every tensor of it is trained."""

    def __init__(self, encoder: TrainableEncoder, layers: Sequence[int]) -> None:
        super().__init__()
        self.model = encoder.module.requires_grad_(True)
        self._encoder, self._layers = encoder, list(layers)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """See the class; `raw` is what the encoder's input gave, before its statistics."""
        inputs = self._encoder.input.normalise(raw.to(self._encoder.device))
        return self._encoder.encode(inputs)[:, self._layers].float().unsqueeze(2)


class TrainableFeatures(LiveFeatures):
    """As `LiveFeatures`; `gather` gives the tokens of the encoder as it is by then."""

    def __init__(self, encoder: Encoder, layers: tuple[int, ...], dataset: Dataset, **options: Any) -> None:
        """See `LiveFeatures`. Raises UsageError when the encoder cannot be trained."""
        if not isinstance(encoder, TrainableEncoder):
            raise UsageError(f"encoder {encoder.kind!r} cannot be trained", hint="leave out --unfreeze encoder")
        super().__init__(encoder, layers, dataset, **options)
        self.encoder = EncoderModule(encoder, layers)

    def inputs(self, samples: Sequence[Sample], *, epoch: int | None = None) -> torch.Tensor:
        """Raw inputs (B, ...) of the samples: view 0, or the view of a training epoch. Raises MediaError."""
        inputs, places = self._decoded(samples, epoch)
        return torch.from_numpy(np.concatenate(inputs)[places])
