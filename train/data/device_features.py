"""Training features that lie on the GPU as a whole, where they fit: a batch is picked there, and nothing is copied.

Letters: B batch, V views, N media, G layers that are kept, T tokens of a layer, D_enc encoder width.
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
    """The training views of these samples' media, (V, N, G, T, D_enc) in the stored dtype, on one device."""

    def __init__(self, source: CachedFeatures, samples: Sequence[Sample], *, layers: int, device: torch.device) -> None:
        """`source` draws the views, and gives the others; the last `layers` are kept."""
        self._source = source
        rows, views = np.unique(source.rows_of(samples)), source.training_views
        self._media = np.full(int(rows[-1]) + 1, -1)
        self._media[rows] = np.arange(len(rows))
        self._views = np.full(max(views) + 1, -1)
        self._views[list(views)] = np.arange(len(views))
        parts = [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]
        of_views = [[torch.as_tensor(source.rows(part, view)[:, -layers:]) for part in parts] for view in views]
        self._values = torch.stack([torch.cat([part.to(device) for part in parts]) for parts in of_views])

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray | torch.Tensor:
        """As `FeatureSource`: (B, G, T, D_enc) on the device, in the views drawn for an epoch; else the source's."""
        if epoch is None:
            return self._source.gather(samples)
        media, views = self._media[self._source.rows_of(samples)], self._views[self._source.draw(samples, epoch=epoch)]
        places = torch.from_numpy(np.stack((views, media))).to(self._values.device, non_blocking=True)
        return self._values[places[0], places[1]]


def fit_on_device(features: CachedFeatures, samples: Sequence[Sample], layers: int, free: int) -> bool:
    """Whether their last `layers` take at most a quarter of `free` bytes."""
    rows = np.unique(features.rows_of(samples))
    one = features.rows(rows[:1], 0)[:, -layers:]
    return one.nbytes * len(rows) * len(features.training_views) <= free * _MEMORY_SHARE


def free_beside(model: nn.Module, device: torch.device) -> int:
    """Bytes of a GPU that are free when the model is there; 0 on other devices: there, copying costs nothing."""
    if device.type != "cuda":
        return 0
    coming = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if not tensor.is_cuda)
    return max(0, torch.cuda.mem_get_info(device)[0] - coming)
