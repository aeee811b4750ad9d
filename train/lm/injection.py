"""At which blocks perceptual tokens enter and leave, and what they and the text may see there. eP-ALM, section 3.

Letters: B batch, D hidden size, F front positions, P prompt length, Q query positions, S key positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache

from epalm.recipes.settings import FrontAttention

Attention = Literal["causal", "reference"]


@dataclass(frozen=True, slots=True)
class Injection:
    """Where `groups` groups of `front` perceptual tokens enter the blocks, each in place of the one before.

    `start` is the first block (from 0) that sees one, `end` the first that gets no new one, `exit` the first in which
    nobody sees the front positions any more; None: they stay to the last block. `attention` is what the front positions
    may see: themselves alone ("causal"), or everything, later text and padding included ("reference", as published).
    Among themselves they are in order, or all see all (`front_attention` "full"). `blind` hides them from everybody at
    every block: the tokens are withheld, all else equal. Without groups nothing enters, and `start` to `end` are the
    blocks that something is added to.
    """

    groups: int
    start: int
    end: int
    attention: Attention = "causal"
    blind: bool = False
    front: int = 1
    exit: int | None = None
    front_attention: FrontAttention = "causal"

    def group_of(self, block: int) -> int | None:
        """The group (0 = shallowest layer) that replaces the front positions on entry to `block`, if any."""
        if not (self.start <= block < self.end and self.groups):
            return None
        blocks = self.end - self.start
        step = blocks // self.groups if blocks > self.groups > 1 else 1
        return min((block - self.start) // step, self.groups - 1)

    def has_front(self, block: int) -> bool:
        """Whether `block` is between the first entry and the exit."""
        return self.start <= block and (self.exit is None or block < self.exit)

    def hides(self, block: int) -> bool:
        """Whether nobody else sees the front positions in `block`."""
        return self.blind or not self.has_front(block)

    def seen_by_front(self, keys: int, front: int) -> int:
        """How many of the first keys a front position sees besides what order lets it see."""
        if self.attention == "reference":
            return keys
        return front if self.front_attention == "full" and front > 1 else 0


class Call:
    """What goes into the calls of one context, and how far the current one is."""

    def __init__(self, groups: torch.Tensor | None, prompt: Sequence[torch.Tensor] | None, front: int) -> None:
        self.groups, self.prompt = groups, prompt  # (B, G, F, D); (P, E) for the first block or for each
        self.front = front  # F

    def begin(self, cache: Cache | None, queries: int, *, apart: bool) -> None:
        """A pass of `queries` positions behind the cache's; `apart`: the front is there only while it is seen."""
        self.cache, self.queries, self.apart = cache, queries, apart
        self.past = 0 if cache is None else int(cache.get_seq_length())
        self.present = self.front  # front positions among the hidden states: placeholders to begin with
        self.made: dict[Any, Any] = {}

    def once(self, value: Any, kind: Any, make: Callable[[Any], Any]) -> Any:
        """`make(value)`, made once for all blocks that are given the same value."""
        if (key := (id(value), kind)) not in self.made:
            self.made[key] = value, make(value)  # the value is kept, so that no other one gets its id
        return self.made[key][1]

    def edited(
        self, mask: torch.Tensor | None, block: int, device: torch.device, *, hide: bool, seen: int
    ) -> torch.Tensor:
        """The attention mask of a block (B or 1, 1, Q, S) with the front hidden from others, or seeing `seen` keys.

        `mask` is the model's own, so windows and padding stay: True where a query sees a key, or additive; None stands
        for order alone.
        """
        queries, keys, dropped = self.queries, self.past + self.queries, 0
        if self.past and self.cache is not None:
            keys, dropped = self.cache.get_mask_sizes(queries, block)  # a window's has let go of the first keys
        rows, columns = max(0, self.front - self.past), max(0, self.front - dropped)

        def edit(mask: torch.Tensor | None) -> torch.Tensor:
            padded = mask is not None and not self.past
            if mask is None:
                mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None, None]
            else:
                mask = mask.clone()
            yes, no = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
            if hide:
                mask[:, :, rows:, :columns] = no
            mask[:, :, :rows, :seen] = yes
            return _with_own(mask) if padded else mask

        edited: torch.Tensor = self.once(mask, (hide, keys, dropped), edit)
        return edited


def each_row(values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Of samples (B, ...) for the rows of `hidden` (B · beams, ...), in its dtype."""
    return values.to(hidden.dtype).repeat_interleave(len(hidden) // len(values), 0)


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
