"""The paper's bridge: a linear layer from a layer's `[CLS]` token to the LM's hidden size. eP-ALM, section 3.

Letters: B batch, G groups (one for each of the encoder's layers), T tokens of a layer, D_enc encoder width,
F front positions (here 1), D hidden size.
"""

from functools import partial

import torch
from torch import nn


class Connector(nn.Module):
    """`c_k`: a linear layer with bias from D_enc to D, one for all groups (`shared`) or one for each.

    The layers are one tensor (1 or G, D, D_enc), so that they run as one batched product.
    """

    def __init__(self, groups: int, width: int, hidden_size: int, *, shared: bool) -> None:
        super().__init__()
        layers = 1 if shared else groups
        bound = width**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(layers, hidden_size, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(layers, hidden_size).uniform_(-bound, bound))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, G, T, D_enc), of which the first token counts → (B, G, 1, D)."""
        tokens = rows[:, :, 0].to(self.weight.dtype)
        if len(self.weight) == 1:
            return nn.functional.linear(tokens, self.weight[0], self.bias[0]).unsqueeze(2)
        projected = torch.bmm(tokens.transpose(0, 1), self.weight.transpose(1, 2))  # (G, B, D)
        return (projected.transpose(0, 1) + self.bias).unsqueeze(2)


BRIDGES = {"shared": partial(Connector, shared=True), "separate": partial(Connector, shared=False)}
