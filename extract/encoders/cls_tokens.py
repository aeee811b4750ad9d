"""The `[CLS]` token of every block of a transformer, taken while it runs (method: `[CLS]` tokens of eP-ALM).

Knows that blocks put out hidden states (B, N, D), `[CLS]` token at position 0; knows no model by name.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class ClsTokens:
    """Listens to a model's blocks and normalises what each puts out at position 0.

    Only position 0 is kept, so memory does not grow with the number of patches.
    """

    def __init__(self, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        self._norm = norm
        self._of = threading.local()  # several threads may run the model, each on a batch of its own
        for block in blocks:
            block.register_forward_hook(self._take)

    def _take(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # (B, N, D)
        self._of.taken.append(hidden[:, 0].clone())  # a view would keep all of it

    def of(self, run: Callable[[], object]) -> torch.Tensor:
        """The tokens of every block, shallow to deep (B, depth, D), of one forward pass, `run`.

        Each is the model's final LayerNorm applied to the block's output, not for the last block only.
        """
        self._of.taken = []
        run()
        tokens: torch.Tensor = self._norm(torch.stack(self._of.taken, dim=1))
        self._of.taken = []
        return tokens
