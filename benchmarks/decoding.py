"""Decoding: eP-ALM's generate against plain OPT's on sequences of equal length, and against recomputing the prefix."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import OPTForCausalLM

from benchmarks.report import Line, compare
from benchmarks.timing import Timing, in_turns
from benchmarks.worlds import opt_125m
from epalm.config import Config
from epalm.train.augmented_opt import AugmentedOPT
from epalm.train.build import build_model, load_lm

_BATCH, _GIVEN, _LENGTH, _WIDTH = 16, 8, 30, 768  # samples; question tokens; tokens in all; encoder width


def run(root: Path, *, quick: bool) -> list[Line]:
    """Greedy and three beams, the same number of tokens produced by all."""
    lm = load_lm("playground") if quick else opt_125m()
    title = "playground's LM" if quick else "OPT-125M size"
    model = build_model(Config().resolved(lm.config.num_hidden_layers), lm, _WIDTH).eval()
    plain = _plain(lm)
    torch.manual_seed(0)
    features = torch.randn(_BATCH, model.connector_tokens, _WIDTH)
    ids = torch.randint(4, 500, (_BATCH, _GIVEN))
    longer = torch.randint(4, 500, (_BATCH, model.lm.front + _GIVEN))  # as many positions as eP-ALM has
    new = _LENGTH - _GIVEN

    def ours(beams: int, cached: bool) -> Callable[[], object]:
        return lambda: model.generate(
            features, ids, num_beams=beams, max_length=_LENGTH, min_new_tokens=new, use_cache=cached
        )

    def theirs(beams: int) -> Callable[[], object]:
        return lambda: plain.generate(
            longer,
            attention_mask=torch.ones_like(longer),
            num_beams=beams,
            min_new_tokens=new,  # a random model might end early
            max_new_tokens=new,
            do_sample=False,
        )

    ways = {
        "ours 1": ours(1, True),
        "plain 1": theirs(1),
        "recomputed 1": ours(1, False),
        "ours 3": ours(3, True),
        "plain 3": theirs(3),
    }
    with torch.no_grad():
        times = in_turns(ways, rounds=1 if quick else 5)

    def line(name: str, slower: Timing, faster: Timing) -> Line:
        note = f"{slower.median:.2f} and {faster.median:.2f} s for {_BATCH} × {new} tokens"
        return compare(f"{title}, {name}", slower, faster, note)

    return [
        line("greedy: eP-ALM / plain OPT", times["ours 1"], times["plain 1"]),
        line("3 beams: eP-ALM / plain OPT", times["ours 3"], times["plain 3"]),
        line("greedy: prefix recomputed / cached", times["recomputed 1"], times["ours 1"]),
    ]


def _plain(lm: AugmentedOPT) -> OPTForCausalLM:
    plain = OPTForCausalLM(lm.config).eval()
    plain.load_state_dict(lm.state_dict())
    return plain
