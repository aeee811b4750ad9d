"""The paper's bridge: a linear layer from a layer's `[CLS]` token to the LM's hidden size. eP-ALM, section 3.

Reads the last six layers; makes G = L groups of F = 1, one after another into twelve late blocks. 4.2 M parameters from
1024 to 4096, if shared. Where it enters, its form (`model.connector`), prompt and adapters are those of the variant.

Letters: B batch, L layers of the encoder, G groups, T tokens of a layer, D_enc encoder width, F front positions,
D hidden size.
"""

import torch
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.train.bridge.registry import EPALM, Bridge


class Connector(nn.Module):
    """`c_k`: a linear layer with bias from D_enc to D, one for all groups (`shared`) or one for each.

    The layers are one tensor (1 or G, D, D_enc), so that they run as one batched product.
    """

    front = 1

    def __init__(
        self, groups: int, layout: TokenLayout | None, width: int, hidden_size: int, *, shared: bool = True
    ) -> None:
        """One token of each layer is taken, whatever the `layout`."""
        super().__init__()
        self.groups = groups
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


BRIDGES = {EPALM: Bridge(Connector, ("cls", "mean", "pooled"), "eP-ALM (ICCV 2023), section 3", layers=6, behind=1)}
