"""Gated cross-attention: text looks at an encoder's tokens on entry to some blocks (DePALM, Vallaeys et al., 2024).

    h + tanh(g) · W_o · norm(Attn(q(MLP(h)), k(x′), v(x′)))

Reads all tokens x of the last layer, x′ is x through one encoder layer between two linear ones. One module is shared
by the blocks entered, 12 up to the fourth from the end; g starts at 0, where the language model is the plain one.
Nothing of x stands in front of the text, each position looks for itself: there is no leak, and caches are exact. MLP is
linear to W, then two layers around a skip; with that it has the published 22.0 M parameters from width 1024 to 4096.
(Published code reshapes queries twice, so that positions are mixed; this one does not.)

Letters: B batch, T encoder tokens, D_enc encoder width, W inner width, N positions, D hidden size.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.recipes.settings import Section
from epalm.train.bridge.mapl import HEADS, READS, Width, encoder_layer, find_padding
from epalm.train.bridge.registry import Bridge


class Settings(Section):
    """Of the attention."""

    inner_width: Width = 1024  # W
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # within the encoder layer


class CrossAttention(nn.Module):
    """Rows become keys and values once, and blocks add what `added` makes of them."""

    groups = front = 0  # nothing enters: see `added`

    def __init__(
        self, _layers: int, _layout: TokenLayout, width: int, hidden_size: int, *, inner_width: int, dropout: float
    ) -> None:
        super().__init__()
        inner = inner_width
        self.rows_in, self.rows_out = nn.Linear(width, inner), nn.Linear(inner, inner)
        self.encoder = encoder_layer(inner, dropout)
        self.down = nn.Linear(hidden_size, inner)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, inner))
        self.mlp_norm = nn.RMSNorm(inner)
        self.query, self.key, self.value = (nn.Linear(inner, inner) for _ in range(3))
        self.norm = nn.RMSNorm(inner)
        self.out = nn.Linear(inner, hidden_size)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, 1, T, D_enc) → (B, 2, T, W): keys and values, zeros where there is padding."""
        tokens = rows[:, -1].to(self.down.weight.dtype)
        padding = find_padding(tokens)
        tokens = self.rows_out(self.encoder(self.rows_in(tokens), src_key_padding_mask=padding))
        both = torch.stack((self.key(tokens), self.value(tokens)), 1)
        return both.masked_fill(padding[:, None, :, None], 0)

    def added(self, hidden: torch.Tensor, perceived: torch.Tensor, _block: int) -> torch.Tensor:
        """What is added to a block's hidden states (B, N, D), in their dtype, of keys and values (B, 2, T, W)."""
        seen = ~find_padding(perceived[:, 0])[:, None, None]
        low = self.down(hidden.to(self.down.weight.dtype))
        queries = self.query(self.mlp_norm(low + self.mlp(low)))
        keys, values = perceived.to(queries.dtype).unbind(1)
        query, key, value = (one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (queries, keys, values))
        looked = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        added: torch.Tensor = torch.tanh(self.gate) * self.out(self.norm(looked.transpose(1, 2).flatten(2)))
        return added.to(hidden.dtype)


BRIDGES = {
    "cross-attention": Bridge(
        CrossAttention, READS, "DePALM, Vallaeys et al., 2024", behind=3, prompt=("plain", 16), settings=Settings
    )
}
