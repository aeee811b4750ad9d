"""Token ids that go on from given ones: beams, greedy or drawn. Knows the trained model, no samples and no words."""

from collections.abc import Sequence

import torch

from epalm.evaluate.decoding.beam_search import beam_search
from epalm.evaluate.decoding.continuation import begin
from epalm.evaluate.decoding.decode_options import Sampling
from epalm.evaluate.decoding.token_by_token import drawn, draws, likeliest, token_by_token
from epalm.train.bridge.model import EpalmModel


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
    rows = begin(model, features, input_ids, use_cache=use_cache)
    limits = {"most": max_length - input_ids.shape[1], "eos": model.lm.config.eos_token_id}
    if sampling is not None:
        numbers = draws(list(names), limits["most"], seed=sampling.seed).to(input_ids.device)
        choose = drawn(numbers, temperature=sampling.temperature, top_p=sampling.top_p)
        return token_by_token(rows, choose, **limits)
    if num_beams == 1:
        return token_by_token(rows, likeliest, **limits)
    return beam_search(rows, beams=num_beams, **limits)
