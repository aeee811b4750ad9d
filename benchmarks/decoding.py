"""Decoding beside the plain LM's generate on sequences of equal length, beside recomputing the prefix; ranking."""

import random
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks import decoding_gpu
from benchmarks.report import Line, compare
from benchmarks.timing import Timing, in_turns, ratio
from benchmarks.worlds import llama_125m, opt_125m
from epalm.evaluate.decoding.generate import AnswerTree, choose_answers, generate
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.recipes.config import Config
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.load import load_lm
from epalm.train.lm.loss import IGNORED

_BATCH, _GIVEN, _LENGTH, _WIDTH = 16, 8, 30, 768  # samples; question tokens; tokens in all; encoder width
_ANSWERS, _ALONE, _ASKED = 3000, 48, 2  # to rank; of them scored alone; questions
_WORDS = 1500  # different tokens in them


def run(root: Path, *, quick: bool) -> list[Line]:
    """Greedy and three beams, the same number of tokens produced by all; answers ranked and each scored alone."""
    title, rounds = ("playground's LM", 1) if quick else ("OPT-125M size", 3)
    model = _model(load_lm("playground") if quick else opt_125m())
    others = [] if quick else _decoding(_model(llama_125m()), "Llama type of that size", rounds)
    return [
        *_decoding(model, title, rounds),
        *others,
        *_ranking(model, title, rounds, 100 if quick else _ANSWERS, 10 if quick else _ALONE),
        *decoding_gpu.run(quick=quick),
    ]


def _model(lm: PreTrainedModel) -> EpalmModel:
    lm.config.eos_token_id = -1  # random weights might end early: none is
    return build_model(Config().resolved(lm.config.num_hidden_layers), lm, _WIDTH).eval()


def _decoding(model: EpalmModel, title: str, rounds: int) -> list[Line]:
    plain = model.lm.plain  # without what is injected
    plain.generation_config.eos_token_id = None  # nor does it end early
    torch.manual_seed(0)
    features = torch.randn(_BATCH, model.layers, 1, _WIDTH)
    ids = torch.randint(4, 500, (_BATCH, _GIVEN))
    longer = torch.randint(4, 500, (_BATCH, model.lm.front + _GIVEN))  # as many positions as eP-ALM has
    new = _LENGTH - _GIVEN

    def ours(beams: int, cached: bool) -> Callable[[], object]:
        return lambda: generate(model, features, ids, num_beams=beams, max_length=_LENGTH, use_cache=cached)

    def theirs(beams: int) -> Callable[[], object]:
        return lambda: plain.generate(
            longer,
            attention_mask=torch.ones_like(longer),
            num_beams=beams,
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=1,
        )

    ways = {"ours 1": ours(1, True), "plain 1": theirs(1), "ours 3": ours(3, True), "plain 3": theirs(3)}
    times = in_turns(ways, rounds=rounds)
    slow = in_turns({"recomputed": ours(3, False), "cached": ours(3, True)}, rounds=rounds)

    def line(name: str, slower: Timing, faster: Timing) -> Line:
        return compare(f"{title}, {name}", slower, faster, _note(slower, faster, f"{_BATCH} × {new} tokens"))

    return [
        line("greedy: eP-ALM / plain LM", times["ours 1"], times["plain 1"]),
        line("3 beams: eP-ALM / plain LM", times["ours 3"], times["plain 3"]),
        line("3 beams: prefix recomputed / cached", slow["recomputed"], slow["cached"]),
    ]


def _ranking(model: EpalmModel, title: str, rounds: int, count: int, some: int) -> list[Line]:
    """Some answers are scored alone, each with its question, a forward each; their time is multiplied."""
    answers = _answers(count, min(_WORDS, model.lm.config.vocab_size - 4))
    tree = AnswerTree(answers, model.lm.config.vocab_size, torch.device("cpu"))
    features = torch.randn(_ASKED, model.layers, 1, _WIDTH)
    ids = torch.randint(4, 500, (_ASKED, _GIVEN))

    def alone() -> None:
        for answer in random.Random(0).sample(answers, some):
            text = torch.cat((ids, torch.tensor(answer).expand(_ASKED, -1)), 1)
            labels = text.clone()
            labels[:, :_GIVEN] = IGNORED
            with torch.no_grad():
                model.losses(features, text, None, labels)

    def chosen() -> list[int]:
        return choose_answers(model, features, ids, tree, beams=DecodeOptions(answers=("",) * count).answer_beams)

    eos, model.lm.config.eos_token_id = model.lm.config.eos_token_id, answers[0][-1]
    times = in_turns({"alone": alone, "chosen": chosen}, rounds=rounds)
    model.lm.config.eos_token_id = eos
    whole = times["alone"].times(count / some)
    how = f"{_ASKED} questions × {count:,} answers; alone: from {some} of them"
    return [compare(f"{title}, answers: alone / chosen", whole, times["chosen"], _note(whole, times["chosen"], how))]


def _answers(count: int, words: int) -> list[tuple[int, ...]]:
    """Different answers of one to four tokens and their end, common tokens more often, as word pieces are."""
    rng = random.Random(0)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        length = rng.choices((1, 2, 3, 4), (30, 40, 25, 5))[0]
        drawn[(*(3 + int(words ** rng.random()) for _ in range(length)), 2)] = None
    return list(drawn)


def _note(slower: Timing, faster: Timing, of: str) -> str:
    by_cpu = ratio(Timing("", slower.cpu), Timing("", faster.cpu))[0]
    return f"{slower.median:.2f} and {faster.median:.2f} s for {of}; by CPU time {by_cpu:.2f}"
