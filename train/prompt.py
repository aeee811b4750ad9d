"""The soft prompt: P trained vectors of the word-embedding width E, put before the text. eP-ALM, section 3."""

import torch
from torch import nn


class PlainPrompt(nn.Module):
    """P free vectors."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))

    def forward(self) -> torch.Tensor:
        """The prompt (P, E)."""
        return self.embedding


class MlpPrompt(nn.Module):
    """P free vectors behind linear → tanh → linear, all of width E."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self) -> torch.Tensor:
        """The prompt (P, E)."""
        prompt: torch.Tensor = self.outer(torch.tanh(self.inner(self.embedding)))
        return prompt
