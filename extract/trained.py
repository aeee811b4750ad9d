"""An encoder that is trained: raw inputs for the training loop, and a module that turns them into tokens.

Knows encoders and media; knows no language model and no optimiser.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from epalm.cache.media_index import MediaIndex
from epalm.errors import UsageError
from epalm.extract.encoders.protocol import Encoder, TrainableEncoder
from epalm.extract.encoders.registry import EncoderChoice
from epalm.extract.live import LiveFeatures
from epalm.samples import Dataset, Sample


class EncoderModule(nn.Module):
    """Raw inputs (B, ...) → tokens (B, L, D) of chosen layers, with gradients; every tensor of it is trained."""

    def __init__(self, encoder: TrainableEncoder, layers: Sequence[int]) -> None:
        super().__init__()
        self.model = encoder.module.requires_grad_(True)
        self._encoder, self._layers = encoder, list(layers)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """See the class; `raw` is what the encoder's input gave, before its statistics."""
        inputs = self._encoder.input.normalise(raw.to(self._encoder.device))
        return self._encoder.encode(inputs)[:, self._layers].float()


class TrainableFeatures(LiveFeatures):
    """As `LiveFeatures`; `gather` gives the tokens of the encoder as it is by then."""

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
        """See `LiveFeatures`. Raises UsageError when the encoder cannot be trained."""
        if not isinstance(encoder, TrainableEncoder):
            raise UsageError(f"encoder {encoder.kind!r} cannot be trained", hint="leave out --unfreeze encoder")
        super().__init__(encoder, layers, dataset, view_seed=view_seed, choice=choice, index=index)
        self.encoder = EncoderModule(encoder, layers)

    def inputs(self, samples: Sequence[Sample], *, epoch: int | None = None) -> torch.Tensor:
        """Raw inputs (B, ...) of the samples: view 0, or the view of a training epoch. Raises MediaError."""
        wanted = [(sample.media, self._number(sample, epoch)) for sample in samples]
        pairs = list(dict.fromkeys(wanted))
        read = self._threads.map(lambda pair: self._read(*pair)[0], pairs)
        arrays = dict(zip(pairs, read, strict=True))
        return torch.from_numpy(np.stack([arrays[pair] for pair in wanted]))


def load_trained(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the encoder the tensors that a training saved, by the names of an `EncoderModule`.

    Raises:
        UsageError: they are another encoder's.
    """
    own: dict[str, torch.Tensor] = {}
    if tensors and isinstance(encoder, TrainableEncoder):
        own = {f"model.{name}": value for name, value in encoder.module.named_parameters()}
    differ = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
    if differ:
        raise UsageError(f"the run's encoder is another one: {differ[0]} differs", hint="train again")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
