"""The soft prompt: P trained vectors of the word-embedding width E, put before the text. eP-ALM, section 3.

A deep prompt has P vectors for every block: they take the place of the hidden states at the prompt's positions on
entry to it. Knows no language model.
"""

import torch
from torch import nn


class PlainPrompt(nn.Module):
    """P free vectors, for the first block or for each of `blocks`; one tensor (blocks · P, E)."""

    def __init__(self, length: int, width: int, blocks: int = 1) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Parameter(torch.randn(blocks * length, width))

    def forward(self) -> tuple[torch.Tensor, ...]:
        """The prompt (P, E) of each block that has one."""
        prompts: tuple[torch.Tensor, ...] = self.vectors().split(self.length)
        return prompts

    def vectors(self) -> torch.Tensor:
        """All of them (blocks · P, E)."""
        return self.embedding


class MlpPrompt(PlainPrompt):
    """As `PlainPrompt`, behind linear → tanh → linear, all of width E."""

    def __init__(self, length: int, width: int, blocks: int = 1) -> None:
        super().__init__(length, width, blocks)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def vectors(self) -> torch.Tensor:
        """See `PlainPrompt`."""
        vectors: torch.Tensor = self.outer(torch.tanh(self.inner(self.embedding)))
        return vectors
