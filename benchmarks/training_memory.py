"""The most memory that the loss takes, forwards and backwards, at two vocabularies and two lengths."""

import os

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import Line
from epalm.console import size_in_words
from epalm.train.lm.loss import Head, label_positions, sample_losses

_BATCH, _WIDTH = 16, 64  # narrow: what grows with the width is small beside what might grow with the vocabulary
_WORDS, _LENGTHS = (12_568, 50_272), (16, 128)  # OPT's vocabulary, and a quarter of it


def run(*, quick: bool) -> list[Line]:
    """The longer texts against the shorter, and the larger vocabulary against the smaller."""
    lengths = (4, 16) if quick else _LENGTHS
    bytes_of = {(words, length): peak_bytes(words, length) for words in _WORDS for length in lengths}
    few, many = _WORDS
    short, long = lengths
    peaks = ", ".join(f"V {words:,} × T {length}: {size_in_words(peak)}" for (words, length), peak in bytes_of.items())
    whole = size_in_words(4 * _BATCH * (long - 1) * many)
    note = f"{peaks}; all logits in float32: {whole}"

    def line(name: str, larger: tuple[int, int], smaller: tuple[int, int]) -> Line:
        times = bytes_of[larger] / bytes_of[smaller]
        return Line(f"peak bytes of the loss, {name}", times, times, times, 1, note)

    return [
        line(f"{long // short} × the length", (many, long), (many, short)),
        line(f"{many // few} × the vocabulary", (many, long), (few, long)),
    ]


def peak_bytes(words: int, length: int) -> int:
    """Of what is allocated while the loss of a batch and its gradient are computed, the most at any time."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(_BATCH, length, _WIDTH, requires_grad=True), torch.randn(words, _WIDTH)
    positions = label_positions(torch.randint(words, (_BATCH, length)), width=length)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        chosen = hidden.flatten(0, 1).index_select(0, positions.positions)
        sample_losses(chosen, Head(weight), positions).loss.mean().backward()
    now = most = 0
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
