"""From the encoder's `[CLS]` tokens to the language model's hidden size: the one bridge between the two.

Letters: B batch, K perceptual tokens, D_enc encoder width, D hidden size. eP-ALM (ICCV 2023), section 3.
"""

import torch
from torch import nn


class Connector(nn.Module):
    """`c_k`: a linear layer with bias from D_enc to D, one for all K tokens (`shared`) or one for each.

    The layers are one tensor (1 or K, D, D_enc), so that they run as one batched product.
    """

    def __init__(self, tokens: int, width: int, hidden_size: int, *, shared: bool) -> None:
        super().__init__()
        layers = 1 if shared else tokens
        bound = width**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(layers, hidden_size, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(layers, hidden_size).uniform_(-bound, bound))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, K, D_enc) → (B, K, D)."""
        if len(self.weight) == 1:
            return nn.functional.linear(features, self.weight[0], self.bias[0])
        projected = torch.bmm(features.transpose(0, 1), self.weight.transpose(1, 2))  # (K, B, D)
        return projected.transpose(0, 1) + self.bias
