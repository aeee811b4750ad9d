"""A random part of the tokens in front of the first block, in training; all of them in evaluation (DePALM).

Reads all tokens of the last layer; makes G = 1 group of F = T tokens at most: W RMSNorm(x). In each step a fraction of
the tokens is kept, in order, `[CLS]` always: drawn from a normal distribution within limits, and now and then the
most. The draw is the whole batch's, in all its parts and processes, and a pure function of seed and step. Parameters
from 1024 to 4096: 4.2 M. Settings: those of the distribution.

Paper: Improved Baselines for Data-efficient Perceptual Augmentation of LLMs (DePALM, 2024), "R-rand".

Letters: B batch, L layers of the encoder, T tokens of a layer, D_enc encoder width, F front positions, D hidden size.
"""

import numpy as np
import torch
from pydantic import NonNegativeFloat
from torch import nn

from epalm.cache.token_rules import TokenLayout
from epalm.recipes.settings import Probability, Section, Share
from epalm.train.bridge.registry import Bridge


class Settings(Section):
    """How many tokens a step keeps, as fractions."""

    mean: Share = 0.25
    deviation: NonNegativeFloat = 0.2
    least: Share = 0.0625
    most: Share = 0.5
    most_often: Probability = 0.1  # probability of the most, whatever was drawn

    def conflicts(self) -> dict[str, bool]:
        """See `Section`."""
        return {f"bridge.least ({self.least}) must not be above bridge.most ({self.most})": self.least > self.most}


class RandomTokens(nn.Module):
    """W RMSNorm(x) for each token that `draw` kept."""

    groups = 1

    def __init__(self, layers: int, layout: TokenLayout, width: int, hidden_size: int, **settings: float) -> None:
        super().__init__()
        self.front, self._always, self._tokens = layers * layout.tokens, int(layout.cls), layout.tokens
        self._settings = Settings(**settings)
        self._kept: torch.Tensor | None = None  # places of a layer's tokens; None: all
        self.norm, self.linear = nn.RMSNorm(width), nn.Linear(width, hidden_size)

    def draw(self, generator: np.random.Generator) -> None:
        """Draw the tokens that are kept in training until the next draw."""
        how = self._settings
        fraction = float(np.clip(generator.normal(how.mean, how.deviation), how.least, how.most))
        if generator.random() < how.most_often:
            fraction = how.most
        others = self._tokens - self._always
        count = min(others, max(1, round(fraction * others)))
        places = np.sort(generator.permutation(others)[:count]) + self._always
        self._kept = torch.from_numpy(np.concatenate((np.arange(self._always), places)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, L, T, D_enc) → (B, 1, F, D), of which training has fewer."""
        if self.training and self._kept is not None:
            rows = rows.index_select(2, self._kept.to(rows.device))
        tokens: torch.Tensor = self.linear(self.norm(rows.flatten(1, 2).to(self.linear.weight.dtype)))
        return tokens.unsqueeze(1)


_SOURCE = 'DePALM (2024), "R-rand"'
BRIDGES = {
    "random-tokens": Bridge(
        RandomTokens, ("all", "time-mean"), _SOURCE, in_front=True, prompt=("plain", 1), settings=Settings
    )
}
