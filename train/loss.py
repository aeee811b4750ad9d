"""The training loss: cross-entropy summed over a sample's tokens, averaged over samples (eP-ALM, section 4)."""

import torch
from torch.nn import functional

from epalm.train.batches import IGNORED


def sample_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, summed over each sample's next tokens: (B,) of logits (B, T, V), labels (B, T)."""
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    # Only the positions that have a label, in float32: the vocabulary is what costs memory.
    chosen = functional.cross_entropy(logits[:, :-1][wanted].float(), targets[wanted], reduction="none")
    losses = chosen.new_zeros(len(labels))
    rows = wanted.nonzero(as_tuple=True)[0]
    return losses.index_add(0, rows, chosen)
