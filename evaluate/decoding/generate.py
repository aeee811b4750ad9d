"""Token ids that go on from given ones: beams, greedy or drawn. Knows the trained model, no samples and no words.

Letters: B samples, K perceptual tokens, D_enc encoder width, T tokens given, R rows that go on, V vocabulary.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from epalm.evaluate.decoding.beam_search import beam_search
from epalm.evaluate.decoding.continuation import Continuation
from epalm.evaluate.decoding.options import Sampling
from epalm.train.bridge.model import EpalmModel

Choose = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


@torch.no_grad()
def generate(
    model: EpalmModel,
    features: torch.Tensor,
    input_ids: torch.Tensor,
    *,
    num_beams: int = 3,
    max_length: int = 30,
    sampling: Sampling | None = None,
    names: Sequence[str] = (),
    use_cache: bool = True,
) -> list[list[int]]:
    """The new token ids of each row, `</s>` last where it ended: at most `max_length` with the given ones.

    `features` (B, K, D_enc); `input_ids` (B, T), all of one length. With `sampling`, what is drawn for a row is decided
    by its name. `reference` attention recomputes all at every step, whatever `use_cache` says.
    """
    rows = Continuation(model, features, input_ids, use_cache=use_cache)
    limits = {"most": max_length - input_ids.shape[1], "eos": model.lm.config.eos_token_id}
    if sampling is not None:
        numbers = draws(list(names), limits["most"], seed=sampling.seed).to(input_ids.device)
        choose = drawn(numbers, temperature=sampling.temperature, top_p=sampling.top_p)
        return token_by_token(rows, choose, **limits)
    if num_beams == 1:
        return token_by_token(rows, likeliest, **limits)
    return beam_search(rows, beams=num_beams, **limits)


def token_by_token(rows: Continuation, choose: Choose, *, most: int, eos: int) -> list[list[int]]:
    """New tokens of each row, one after the other, at most `most`; `eos` ends a text, and its row leaves the batch.

    `choose` makes of logits (R, V), of the rows' numbers at the beginning (R,) and of the step (0, 1, …) tokens (R,).
    """
    device = rows.logits.device
    found: list[list[int]] = [[] for _ in rows.logits]
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
