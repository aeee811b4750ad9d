"""One token after the other: the likeliest, or drawn. A row whose text ended leaves the batch. Knows no model.

Letters: R rows that go on, V vocabulary.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch

from epalm.evaluate.decoding.continuation import Continuation

Choose = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def token_by_token(rows: Continuation, choose: Choose, *, most: int, eos: int) -> list[list[int]]:
    """New tokens of each row of `rows`, at most `most`; `eos` ends a text and is its last token.

    `choose` makes of logits (R, V), of the rows' numbers at the beginning (R,) and of the step (0, 1, …) tokens (R,).
    """
    device = rows.logits.device
    found: list[list[int]] = [[] for _ in range(len(rows.logits))]
    who = torch.arange(len(found), device=device)
    for step in range(most):
        tokens = choose(rows.logits, who, step)
        for place, token in zip(who.tolist(), tokens.tolist(), strict=True):
            found[place].append(token)
        kept = (tokens != eos).nonzero().flatten()
        if step == most - 1 or not len(kept):
            break
        who = who[kept]
        rows.go_on(kept, tokens[kept])
    return found


def likeliest(logits: torch.Tensor, who: torch.Tensor, step: int) -> torch.Tensor:
    """The likeliest token of each row."""
    return logits.float().argmax(-1)


def drawn(numbers: torch.Tensor, *, temperature: float, top_p: float) -> Choose:
    """Tokens drawn by numbers (rows, steps) in [0, 1): from the likeliest that have `top_p` of the probability."""

    def choose(logits: torch.Tensor, who: torch.Tensor, step: int) -> torch.Tensor:
        ordered, tokens = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        below = ordered.cumsum(-1)
        # The likeliest is always there; of the others those before which less than `top_p` is.
        below = below.masked_fill(below - ordered >= top_p, 0).cummax(-1).values
        wanted = numbers[who, step].unsqueeze(1) * below[:, -1:]
        places = torch.searchsorted(below, wanted)
        return tokens.gather(1, places).squeeze(1)

    return choose


def draws(names: list[str], steps: int, *, seed: int) -> torch.Tensor:
    """Numbers in [0, 1) (names, steps) float64: of each name its own, whatever others are drawn beside it."""
    rows = []
    for name in names:
        digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogatepass")).digest()
        rows.append(np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16]))).random(steps))
    return torch.from_numpy(np.stack(rows))
