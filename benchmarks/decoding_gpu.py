"""Decoding at full size on a GPU: samples a second, beside plain OPT's generate on sequences of equal length.

Weights are random, in bfloat16, and nothing ends early: every sample gets all its tokens.
"""

import torch

from benchmarks.report import Line, compare
from benchmarks.timing import in_turns
from benchmarks.training_gpu import SIZES, Size, language_model
from epalm.evaluate.decoding.generate import generate
from epalm.recipes.config import load_config
from epalm.train.bridge.build import build_model

_BATCH, _GIVEN, _LENGTH = 64, 8, 30  # samples; question tokens; tokens in all
_BEAMS = 3


def run(*, quick: bool) -> list[Line]:
    """Both sizes; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        return []
    sizes = SIZES[:1] if quick else SIZES
    return [measure(size, torch.device("cuda"), rounds=1 if quick else 5) for size in sizes]


def measure(size: Size, device: torch.device, *, rounds: int, batch_size: int = _BATCH) -> Line:
    """Three beams at one size: eP-ALM's seconds by plain OPT's, with samples a second in the note."""
    lm = language_model(size, device)
    lm.config.eos_token_id = -1
    places = ["model.variant=epalm", f"model.start={size.start}", f"model.end={size.blocks - 1}"]
    config = load_config("vqa-v2", [*places, "lm.dtype=bfloat16"]).resolved(size.blocks)
    model = build_model(config, lm, size.width).to(device).eval()
    features = torch.randn(batch_size, model.layers, 1, size.width, device=device)
    ids = torch.randint(4, size.words, (batch_size, _GIVEN), device=device)
    longer = torch.randint(4, size.words, (batch_size, model.lm.front + _GIVEN), device=device)
    lm.generation_config.eos_token_id = None

    def ours() -> None:
        generate(model, features, ids, num_beams=_BEAMS, max_length=_LENGTH)  # its ids are lists: it has waited

    def theirs() -> None:
        lm.generate(
            longer,
            attention_mask=torch.ones_like(longer),
            num_beams=_BEAMS,
            max_new_tokens=_LENGTH - _GIVEN,
            do_sample=False,
            pad_token_id=1,
        ).tolist()

    times = in_turns({"ours": ours, "plain": theirs}, rounds=rounds)
    speeds = [f"{batch_size / times[name].median:,.1f}" for name in ("ours", "plain")]
    note = (
        f"{speeds[0]} and {speeds[1]} samples/s, batch {batch_size}, {_LENGTH - _GIVEN} new tokens behind "
        f"{model.lm.front + _GIVEN}"
    )
    return compare(f"{size.name}, {_BEAMS} beams: eP-ALM / plain OPT", times["ours"], times["plain"], note)
