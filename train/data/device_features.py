"""Training features that lie on the GPU as a whole, where they fit: a batch is picked there, and nothing is copied.

Letters: B batch, V views, N media, K perceptual tokens, D_enc encoder width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from epalm.samples import Sample
from epalm.train.data.features import CachedFeatures

_MEMORY_SHARE = 0.25  # of what the model leaves free
_AT_ONCE = 4096  # media copied at a time


class DeviceFeatures:
    """The training views of these samples' media, (V, N, K, D_enc) in the stored dtype, on one device."""

    def __init__(self, source: CachedFeatures, samples: Sequence[Sample], *, tokens: int, device: torch.device) -> None:
        """`source` draws the views; `tokens` are the last layers that are kept."""
        self._source = source
        rows = np.unique(source.rows_of(samples))
        views = source.training_views
        self._media = np.full(int(rows[-1]) + 1, -1)
        self._media[rows] = np.arange(len(rows))
        self._views = np.full(max(views) + 1, -1)
        self._views[list(views)] = np.arange(len(views))
        parts = [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]
        self._values = torch.stack(
            [torch.cat([source.last_tokens(part, view, tokens).to(device) for part in parts]) for view in views]
        )

    def tokens(self, samples: Sequence[Sample], *, epoch: int) -> torch.Tensor:
        """The samples' tokens (B, K, D_enc) in the views drawn for an epoch, on the device."""
        media, views = self._media[self._source.rows_of(samples)], self._views[self._source.draw(samples, epoch=epoch)]
        places = torch.from_numpy(np.stack((views, media))).to(self._values.device, non_blocking=True)
        return self._values[places[0], places[1]]


def fit_on_device(features: CachedFeatures, samples: Sequence[Sample], tokens: int, free: int) -> bool:
    """Whether they take at most a quarter of `free` bytes."""
    media = len(np.unique(features.rows_of(samples)))
    return features.bytes_of(tokens) * media * len(features.training_views) <= free * _MEMORY_SHARE


def free_beside(model: nn.Module, device: torch.device) -> int:
    """Bytes of a GPU that are free when the model is there; 0 on other devices: there, copying costs nothing."""
    if device.type != "cuda":
        return 0
    coming = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if not tensor.is_cuda)
    return max(0, torch.cuda.mem_get_info(device)[0] - coming)
