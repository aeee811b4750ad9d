"""MAPL: learnt queries go with an encoder's tokens through a small transformer (Mañas et al., 2023, section 3.2).

Reads all tokens of the last layer, makes one group of 32 tokens, which enters block 0 and stays. Settings are those of
DePALM (Vallaeys et al., 2024), section 3: post-norm layers as wide in the feed-forward part, no positions. From width
1024 to 4096 it has 2.9 M parameters.

Letters: B batch, L encoder layers, T tokens of a layer, D_enc encoder width, W inner width, Q queries, D hidden size.
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.recipes.settings import Section
from epalm.train.bridge.registry import Bridge

HEADS = 8
Width = Annotated[int, Field(gt=0, multiple_of=HEADS)]
READS = ("all", "time-mean", "pool:2x2")


class Settings(Section):
    """Of the mapper."""

    inner_width: Width = 256  # W
    depth: PositiveInt = 4  # transformer layers
    queries: PositiveInt = 32  # Q
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # within the layers


def encoder_layer(width: int, dropout: float) -> nn.TransformerEncoderLayer:
    """A post-norm transformer layer, (B, T, W) → (B, T, W), with 8 heads and GELU."""
    return nn.TransformerEncoderLayer(width, HEADS, width, dropout, activation="gelu", batch_first=True)


def find_padding(tokens: torch.Tensor) -> torch.Tensor:
    """Which of tokens (..., T, D_enc) are padding (..., T): exact zeros, unless all of them are."""
    zeros = (tokens == 0).all(-1)
    return zeros & ~zeros.all(-1, keepdim=True)


class Mapper(nn.Module):
    """Linear to W, the tokens and Q queries through the layers, of which the queries are kept, linear to D."""

    def __init__(
        self,
        layers: int,
        _layout: TokenLayout,
        width: int,
        hidden_size: int,
        *,
        inner_width: int,
        depth: int,
        queries: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.groups, self.front = layers, queries
        self.down = nn.Linear(width, inner_width)
        self.queries = nn.Parameter(torch.randn(queries, inner_width))
        self.layers = nn.ModuleList(encoder_layer(inner_width, dropout) for _ in range(depth))
        self.up = nn.Linear(inner_width, hidden_size)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D_enc) → (B, L, Q, D), each layer by itself."""
        tokens, count = rows.flatten(0, 1).to(self.down.weight.dtype), self.front
        padding = nn.functional.pad(find_padding(tokens), (0, count))
        hidden = torch.cat((self.down(tokens), self.queries.expand(len(tokens), -1, -1)), 1)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        mapped: torch.Tensor = self.up(hidden[:, -count:]).unflatten(0, rows.shape[:2])
        return mapped


BRIDGES = {"mapl": Bridge(Mapper, READS, "Mañas et al., 2023", settings=Settings)}
