"""Training at full size on a GPU: speed beside the matrix-product ceiling of that GPU, memory, and hours for VQA v2.

Weights are random, in bfloat16, features and texts too: what they hold does not change how long a step takes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.report import Line
from benchmarks.worlds import STEADY
from epalm.console import size_in_words
from epalm.recipes.config import load_config
from epalm.train.bridge.build import build_model
from epalm.train.data.batches import Batch
from epalm.train.lm.loss import IGNORED
from epalm.train.loop import make_optimiser, take_step

VQA_SAMPLES, VQA_EPOCHS = 443_757, 8  # of VQA v2's training split; of the recipe
PUBLISHED_HOURS = 1.8 * 24  # eP-ALM, section 4: OPT-2.7B on one V100
_LENGTHS = (9, 17)  # tokens of a VQA v2 text: question and answer, their ends


@dataclass(frozen=True)
class Size:
    """A language model's and its encoder's sizes."""

    name: str
    hidden: int
    heads: int
    width: int  # of the encoder
    blocks: int = 32
    start: int = 19
    words: int = 50_272


SIZES = (Size("OPT-2.7B", 2560, 32, 768), Size("OPT-6.7B", 4096, 32, 1024))
WAYS = ("epalm", "epalm-pt", "epalm-lin")


def run(*, quick: bool) -> list[Line]:
    """Every way at both sizes; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        return []
    device = torch.device("cuda")
    best = ceiling(device, 1024 if quick else 8192)
    sizes = SIZES[:1] if quick else SIZES
    return [measure(size, way, device, best, steps=3 if quick else 20) for size in sizes for way in WAYS]


def ceiling(device: torch.device, side: int) -> float:
    """Operations a second of a product of two matrices of that side in bfloat16: the best of several."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(10):
        began = _now(device)
        for _ in range(5):
            left @ right
        seconds.append((_now(device) - began) / 5)
    return 2 * side**3 / min(seconds)


def measure(
    size: Size, way: str, device: torch.device, best: float, *, steps: int, batch_size: int = 64, rounds: int = 5
) -> Line:
    """Steps of one way: its share of the ceiling `best` (operations a second), with all else in the note."""
    lm = language_model(size, device)
    places = [f"model.variant={way}", f"model.start={size.start}", f"model.end={size.blocks - 1}"]
    config = load_config("vqa-v2", [*places, "lm.dtype=bfloat16"]).resolved(size.blocks)
    model = build_model(config, lm, size.width).to(device).train()
    optimiser = make_optimiser(model, STEADY)
    given = [_batch(size, batch_size, number).to(device) for number in range(steps)]

    def go(batches: Sequence[Batch]) -> None:
        for batch in batches:
            take_step(model, optimiser, batch, STEADY)

    with FlopCounterMode(display=False) as counter:
        go(given)
    go(given)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(rounds):
        began = _now(device)
        go(given)
        seconds.append(_now(device) - began)
    shares = sorted(counter.get_total_flops() / one / best for one in seconds)
    middle = sorted(seconds)[rounds // 2]
    samples, tokens = steps * batch_size / middle, sum(int((b.labels != IGNORED).sum()) for b in given) / middle
    memory = size_in_words(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else "not measured"
    hours = VQA_SAMPLES * VQA_EPOCHS / samples / 3600
    note = (
        f"{samples:,.0f} samples/s, {tokens:,.0f} tokens/s, batch {batch_size}, peak memory {memory}, ceiling "
        f"{best / 1e12:,.1f} TFLOP/s; VQA v2's {VQA_EPOCHS} epochs: {hours:.1f} h (published: {PUBLISHED_HOURS:.1f} h)"
    )
    return Line(f"{size.name}, {way}: share of the ceiling", shares[rounds // 2], shares[0], shares[-1], rounds, note)


def language_model(size: Size, device: torch.device) -> OPTForCausalLM:
    """One of that size with random weights in bfloat16."""
    config = OPTConfig(
        vocab_size=size.words,
        hidden_size=size.hidden,
        word_embed_proj_dim=size.hidden,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        ffn_dim=4 * size.hidden,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with device:
        lm: OPTForCausalLM = OPTForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    return lm


def _batch(size: Size, rows: int, number: int) -> Batch:
    """Texts of neighbouring lengths, as batches that are grouped by length have them."""
    torch.manual_seed(number)
    length = int(torch.randint(*_LENGTHS, ()))
    ids = torch.randint(4, size.words, (rows, length))
    labels = ids.clone()
    labels[:, 0] = IGNORED
    labels[: rows // 4, -1] = IGNORED  # padding
    return Batch(torch.randn(rows, 6, 1, size.width), ids, None, labels, rows, rows)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
