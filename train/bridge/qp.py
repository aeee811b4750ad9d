"""Query pooling: MAPL's mapper, wider, for the first block or for many (DePALM, Vallaeys et al., 2024, section 3).

`qp-l0` reads all tokens of the last layer and makes one group of 32, which enters block 0 and stays. `qp-inner` reads
all tokens of the last 4 layers; one mapper pools each into 32, which serve an equal share of the blocks entered, each
behind a norm, scale and shift of its own, and leave behind the last of them. The mapper of inner width 1024 with 2
layers has the published 17.9 M parameters from width 1024 to 4096; with 4 layers it has 30.5 M.

Letters: B batch, L encoder layers, T tokens of a layer, D_enc encoder width, G blocks entered, Q queries,
D hidden size.
"""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.train.bridge import mapl
from epalm.train.bridge.registry import Bridge


class Settings(mapl.Settings):
    """Of the mapper: wider, and less deep."""

    inner_width: mapl.Width = 1024
    depth: PositiveInt = 2


class InnerPooling(nn.Module):
    """A mapper for all L layers, and of each of G blocks, in order, the scale and shift of what enters there."""

    def __init__(
        self, layers: int, layout: TokenLayout, width: int, hidden_size: int, *, entered: int, **settings: Any
    ) -> None:
        """G is `entered`; `settings` are the mapper's."""
        super().__init__()
        self.mapper = mapl.Mapper(layers, layout, width, hidden_size, **settings)
        self.groups, self.front = entered, self.mapper.front
        self.scale = nn.Parameter(torch.ones(entered, hidden_size))
        self.shift = nn.Parameter(torch.zeros(entered, hidden_size))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D_enc) → (B, G, Q, D): block g of G gets layer g · L // G, shallow to deep."""
        pooled = self.mapper(rows)
        pooled = nn.functional.rms_norm(pooled, pooled.shape[-1:])
        serving = torch.arange(self.groups, device=rows.device) * rows.shape[1] // self.groups
        return pooled[:, serving] * self.scale[:, None] + self.shift[:, None]


_SOURCE = "DePALM, Vallaeys et al., 2024"
BRIDGES = {
    "qp-l0": Bridge(mapl.Mapper, mapl.READS, _SOURCE, prompt=("plain", 1), settings=Settings),
    "qp-inner": Bridge(
        InnerPooling,
        mapl.READS,
        _SOURCE,
        layers=4,
        behind=3,
        leaves=True,
        by_block=True,
        prompt=("plain", 16),
        settings=Settings,
    ),
}
