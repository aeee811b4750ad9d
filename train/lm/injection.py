"""Which perceptual token each block of the language model reads, and what each position may attend to.

Knows block numbers and masks. Does not know OPT, encoders or weights. Method: eP-ALM (ICCV 2023), section 3, and the
supplementary material.

Letters: B batch, K perceptual tokens, Q query positions, S key positions (front + prompt + text, past included).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

Attention = Literal["causal", "reference"]


@dataclass(frozen=True, slots=True)
class Injection:
    """Where `tokens` perceptual tokens enter the blocks.

    `start` is the first block (from 0) that sees one, `end` the first that gets no new one. `attention` is what the
    perceptual position may see: itself alone ("causal"), or everything, later text and padding included
    ("reference", as published). `blind` hides the position from everybody at every block: the token is withheld,
    all else equal.
    """

    tokens: int
    start: int
    end: int
    attention: Attention = "causal"
    blind: bool = False

    def token_of(self, block: int) -> int | None:
        """The token (0 = shallowest layer) that overwrites the front position on entry to `block`, if any."""
        if not self.start <= block < self.end:
            return None
        blocks = self.end - self.start
        step = blocks // self.tokens if blocks > self.tokens > 1 else 1
        return min((block - self.start) // step, self.tokens - 1)


class Masks(NamedTuple):
    """Additive masks (B or 1, 1, Q, S), by what a block lets its positions see; None: all but what comes later."""

    without: torch.Tensor | None  # for hidden states without the front position: it is no query and no key
    hidden: torch.Tensor | None  # hides the front position from all others
    visible: torch.Tensor | None  # does not


def attention_masks(
    queries: int,
    past: int,
    real: torch.Tensor | None,
    attention: Attention,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Masks:
    """The masks for the last `queries` of S positions, of which the front one is key 0.

    `real` (B, S) is true where a key is no padding, None when all are.
    """
    total = past + queries
    if real is None and queries == 1 and past:  # while decoding
        masked = torch.zeros(1, 1, 1, total, dtype=dtype, device=device)
        masked[..., 0] = -torch.inf
        return Masks(None, masked, None)
    rows = torch.arange(past, total, device=device).unsqueeze(1)
    columns = torch.arange(total, device=device)
    own = rows == columns

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        # A padding row that may see nothing sees itself: softmax over nothing is NaN, and 0 × NaN would spread.
        allowed = allowed | (own & ~allowed.any(-1, keepdim=True))
        return torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, -torch.inf)

    visible = (columns <= rows)[None, None]  # (1, 1, Q, S)
    if real is not None:
        visible = visible & real[:, None, None, :]
    if attention == "reference":
        visible = visible | (rows == 0)  # padding as well, as published
    hidden = additive(visible & ((columns > 0) | (rows == 0)))
    # Where nothing but order is left to say, attention has kernels that need no mask.
    in_order = real is None and not past
    return Masks(
        without=None if in_order else hidden[:, :, 1:, 1:],
        hidden=hidden,
        visible=None if in_order and attention == "causal" else additive(visible),
    )
