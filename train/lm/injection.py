"""At which blocks perceptual tokens enter, and what they and the text may see there. eP-ALM, section 3.

Letters: B batch, D hidden size, F front positions, P prompt length, Q query positions, S key positions.
"""

from dataclasses import dataclass
from typing import Literal

import torch

Attention = Literal["causal", "reference"]


@dataclass(frozen=True, slots=True)
class Injection:
    """Where `tokens` groups of `front` perceptual tokens enter the blocks.

    `start` is the first block (from 0) that sees one, `end` the first that gets no new one. `attention` is what the
    front positions may see: themselves alone, in order ("causal"), or everything, later text and padding included
    ("reference", as published). `blind` hides them from everybody at every block: the tokens are withheld, all else
    equal.
    """

    tokens: int
    start: int
    end: int
    attention: Attention = "causal"
    blind: bool = False
    front: int = 1

    def token_of(self, block: int) -> int | None:
        """The group (0 = shallowest layer) that replaces the front positions on entry to `block`, if any."""
        if not self.start <= block < self.end:
            return None
        blocks = self.end - self.start
        step = blocks // self.tokens if blocks > self.tokens > 1 else 1
        return min((block - self.start) // step, self.tokens - 1)

    def hides(self, block: int) -> bool:
        """Whether nobody else sees the front positions in `block`."""
        return block < self.start or self.blind


def edit_mask(
    mask: torch.Tensor | None,
    like: torch.Tensor,
    *,
    past: int,
    keys: int,
    columns: int,
    rows: int,
    hide: bool,
    reference: bool,
) -> torch.Tensor:
    """The attention mask of a block (B or 1, 1, Q, S) with the front hidden from others, or seeing everything.

    `mask` is the model's own, so windows and padding stay: True where a query sees a key, or additive; None stands for
    order alone. Of `keys` S the first `columns` are front positions, of the queries Q the first `rows`, and `past` keys
    came before the queries; `like` has Q positions.
    """
    if mask is None:
        queries = like.shape[1]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=like.device).tril(keys - queries)[None, None]
        padded = False
    else:
        mask, padded = mask.clone(), not past
    seen, unseen = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
    if hide:
        mask[:, :, rows:, :columns] = unseen
    if reference:
        mask[:, :, :rows] = seen
    return _with_own(mask) if padded else mask


def cut_mask(mask: torch.Tensor | None, front: int) -> torch.Tensor | None:
    """The mask for hidden states without the front positions: they are no queries and no keys."""
    return None if mask is None else _with_own(mask[:, :, front:, front:])


def _with_own(mask: torch.Tensor) -> torch.Tensor:
    """A padding row that may see nothing sees itself: softmax over nothing is NaN, and 0 × NaN would spread."""
    if mask.dtype != torch.bool:
        return mask  # additive ones are finite
    own = torch.eye(mask.shape[-2], mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask | (own & ~mask.any(-1, keepdim=True))


def without_front(value: object, front: int, length: int) -> object:
    """Of a block's argument what belongs to all positions of `length` but the front ones, in nested values too."""
    if isinstance(value, torch.Tensor):
        place = min(1, value.ndim - 1)  # (L,) or (B, L, …)
        fits = value.ndim and value.shape[place] == length
        return value.narrow(place, front, length - front) if fits else value
    if isinstance(value, tuple | list):
        return type(value)(without_front(one, front, length) for one in value)
    if isinstance(value, dict):
        return {key: without_front(one, front, length) for key, one in value.items()}
    return value
