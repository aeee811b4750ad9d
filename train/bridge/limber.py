"""Each token by itself, through one linear layer (LiMBeR) or two (LLaVA), in front of the first block.

Read the last layer: `[CLS]` alone, or all its tokens (any rule will do). Make G = 1 group of F = T tokens, of several
layers all of theirs. Parameters from 1024 to 4096: 4.2 M; with two layers 21.0 M. No settings of their own.

Papers: Linearly Mapping from Image to Text Space (Merullo et al., ICLR 2023), section 3; Improved Baselines with Visual
Instruction Tuning (Liu et al., 2023), section 3: two layers with GELU. In front of the text as in both.

Letters: B batch, L layers of the encoder, T tokens of a layer, D_enc encoder width, F front positions, D hidden size.
"""

from functools import partial

import torch
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.train.bridge.registry import Bridge

_ONE, _SEVERAL = ("cls", "mean", "pooled"), ("pool:2x2", "time-mean")


class EachToken(nn.Sequential):
    """Linear layers from D_enc to D and from D to D, with GELU between them."""

    groups = 1

    def __init__(self, layers: int, layout: TokenLayout, width: int, hidden_size: int, *, depth: int) -> None:
        parts: list[nn.Module] = [nn.Linear(width, hidden_size)]
        for _ in range(depth - 1):
            parts += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
        super().__init__(*parts)
        self.front = layers * layout.tokens

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D_enc) → (B, 1, L · T, D)."""
        tokens: torch.Tensor = super().forward(rows.flatten(1, 2).to(next(self.parameters()).dtype))
        return tokens.unsqueeze(1)


_LIMBER, _LLAVA = "LiMBeR (ICLR 2023), section 3", "LLaVA-1.5 (2023), section 3"
BRIDGES = {
    "limber": Bridge(partial(EachToken, depth=1), (*_ONE, "all", *_SEVERAL), _LIMBER, in_front=True),
    "mlp": Bridge(partial(EachToken, depth=2), ("all", *_ONE, *_SEVERAL), _LLAVA, in_front=True),
}
