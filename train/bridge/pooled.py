"""Neighbouring tokens made one, in front of the first block: by their mean, or by a linear map of the four (DePALM).

`avgpool` reads the last layer's tokens pooled 2×2 (a sequence's by four), `[CLS]` beside them; `linear-pool` reads all
of them. Both make G = 1 group of F = a quarter of the tokens, and `[CLS]`: W₂ RMSNorm(P(W₁ x)), where P is the mean,
which has been taken already, since it commutes with an affine W₁; or a linear map of four tokens behind one another,
which `[CLS]` passes by. Parameters from 1024 to 4096: 21.0 M and 88.1 M. No settings of their own.

Paper: Improved Baselines for Data-efficient Perceptual Augmentation of LLMs (DePALM, 2024), "R-avgpool", "R-linear".

Letters: B batch, L layers of the encoder, T tokens of a layer, D_enc encoder width, F front positions, D hidden size.
"""

from typing import Any

import torch
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.train.bridge.registry import Bridge


class Resampled(nn.Module):
    """W₁, RMSNorm, W₂ on each of L · T tokens."""

    groups = 1

    def __init__(self, layers: int, layout: TokenLayout, width: int, hidden_size: int) -> None:
        super().__init__()
        self.front = layers * layout.tokens
        self.inner, self.outer = nn.Linear(width, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.norm = nn.RMSNorm(hidden_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D_enc) → (B, 1, F, D)."""
        tokens = self.pool(self.inner(rows.to(self.inner.weight.dtype)))
        resampled: torch.Tensor = self.outer(self.norm(tokens)).flatten(1, 2)
        return resampled.unsqueeze(1)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D) → (B, L, F / L, D)."""
        return tokens


class LinearlyPooled(Resampled):
    """With a linear map of the four tokens of each cell of the grid: 2×2 of its last two axes, or 4 of its only one."""

    def __init__(self, layers: int, layout: TokenLayout, width: int, hidden_size: int) -> None:
        """Raises UsageError: the grid does not divide."""
        cell = (2, 2) if len(layout.grid) > 1 else (4,)
        if not layout.grid or any(side % part for side, part in zip(layout.grid[-len(cell) :], cell, strict=True)):
            raise UsageError(
                f"bridge linear-pool makes one token of {'×'.join(map(str, cell))}, and the grid is of "
                f"{'×'.join(map(str, layout.grid)) or 'no'} tokens",
                hint="--bridge limber reads any",
            )
        super().__init__(layers, layout.narrowed("pool:" + "x".join(map(str, cell))), width, hidden_size)
        self._cell, self._grid, self._cls = cell, layout.grid, layout.cls
        self.pooling = nn.Linear(4 * hidden_size, hidden_size)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `Resampled`."""
        first, cells = tokens[:, :, : int(self._cls)], tokens[:, :, int(self._cls) :]
        if len(self._cell) == 2:
            *_, height, width = self._grid
            cells = cells.unflatten(2, (-1, height // 2, 2, width // 2, 2)).transpose(4, 5).flatten(2, 4)
        cells = cells.reshape(*tokens.shape[:2], -1, 4 * tokens.shape[3])
        return torch.cat((first, self.pooling(cells)), 2)


_AS_BOTH: dict[str, Any] = {"in_front": True, "prompt": ("plain", 1)}
BRIDGES = {
    "avgpool": Bridge(Resampled, ("pool:2x2", "pool:4"), 'DePALM (2024), "R-avgpool"', **_AS_BOTH),
    "linear-pool": Bridge(LinearlyPooled, ("all", "time-mean"), 'DePALM (2024), "R-linear"', **_AS_BOTH),
}
