"""Decoding: eP-ALM's generate against plain OPT's on sequences of equal length, and against recomputing the prefix."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import OPTForCausalLM

from benchmarks.report import Line
from benchmarks.timing import in_turns, ratio
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
    fixed = {"min_new_tokens": new}  # a random model might end early

    def ours(beams: int, cached: bool) -> Callable[[], object]:
        return lambda: model.generate(features, ids, num_beams=beams, max_length=_LENGTH, use_cache=cached, **fixed)

    def theirs(beams: int) -> Callable[[], object]:
        return lambda: plain.generate(
            longer,
            attention_mask=torch.ones_like(longer),
            num_beams=beams,
            max_new_tokens=new,
            do_sample=False,
            **fixed,
        )

    ways = {f"ours {beams}": ours(beams, True) for beams in (1, 3)} | {
        f"plain {beams}": theirs(beams) for beams in (1, 3)
    }
    rounds = 2 if quick else 3
    with torch.no_grad():
        times = in_turns(ways, rounds=rounds)
        recomputed = in_turns({"cached": ours(3, True), "recomputed": ours(3, False)}, rounds=2)
    note = f"{times['ours 3'].median:.2f} s for {_BATCH} × {new} tokens with 3 beams, {rounds} rounds"
    return [
        Line(f"{title}, greedy: eP-ALM / plain OPT", *ratio(times["ours 1"], times["plain 1"]), note),
        Line(f"{title}, 3 beams: eP-ALM / plain OPT", *ratio(times["ours 3"], times["plain 3"]), note),
        Line(f"{title}, 3 beams: recomputed / cached", *ratio(recomputed["recomputed"], recomputed["cached"]), note),
    ]


def _plain(lm: AugmentedOPT) -> OPTForCausalLM:
    plain = OPTForCausalLM(lm.config).eval()
    plain.load_state_dict(lm.state_dict())
    return plain
