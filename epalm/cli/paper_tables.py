"""The paper's tables of choices as data: what each row chooses, at a model's own sizes, and what was published.

Source of all figures: eP-ALM (ICCV 2023), supplementary material. Knows settings and options; runs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epalm.samples import Modality, Task

PAPER_BANK = (128, 1024)  # mel bins, time frames of the paper's audio encoder
DEFAULT_FRAMES = 8  # of a clip, as every video encoder takes them
VIEWS = 4  # augmented views of each sound: a mask for about each epoch of the playground
_DEEP = 24  # blocks from which on tokens enter a dozen of them, as published
_DOZEN = 12
_LAYERS = 6  # of the encoder: 6–12 of the paper's twelve


@dataclass(frozen=True)
class Sizes:
    """What rows are carried over to: the language model's blocks, the filter bank's mel bins and time frames."""

    blocks: int
    bank: tuple[int, int] = PAPER_BANK


@dataclass(frozen=True)
class Choice:
    """One row: as the paper names it, as it is `here`, and the published figures in the order of the measures.

    `overrides` are settings of the training; `encoder`, `frames` and `masks` (mel bins, time frames) say how media are
    extracted, None: as is usual. `in_loop`: the encoder is trained too, so no cache.
    """

    label: str
    here: str
    published: tuple[float | None, ...]
    overrides: tuple[str, ...] = ()
    encoder: str | None = None
    frames: int = DEFAULT_FRAMES
    masks: tuple[int, int] | None = None
    in_loop: bool = False


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper: `published` says on what, `first` heads the column of choices."""

    name: str
    title: str
    first: str
    modality: Modality
    task: Task
    measures: tuple[str, ...]
    published: str
    choices: Callable[[Sizes], Sequence[Choice]]


def late_blocks(blocks: int) -> tuple[int, int]:
    """(start, end) of the late injection: 19 and 31 of 32 blocks, 11 and 23 of 24.

    The last block gets no token of its own. A model of fewer than 24 blocks takes tokens in the same share of its
    blocks as the paper's in 32.
    """
    end = max(1, blocks - 1)
    return max(0, end - (_DOZEN if blocks >= _DEEP else max(1, blocks * _DOZEN // 32))), end


def levels(blocks: int) -> dict[str, tuple[int, int, int]]:
    """The paper's name of an injection → (tokens, start, end) in a language model of that many blocks.

    Its block 1 is the first one. As many layers as there are blocks for them take part, so that each is read.
    """
    start, end = late_blocks(blocks)
    return {
        "12 → 1": (1, 0, 1),
        "12 → 1–31": (1, 0, end),
        "12 → 19–31": (1, start, end),
        "6–12 → 19–31": (min(_LAYERS, end - start), start, end),
    }


def masks(published: tuple[int, int], bank: tuple[int, int]) -> tuple[int, int]:
    """Widths of the paper's frequency and time mask, as the same share of another filter bank."""
    bins, frames = (round(width * size / paper) for width, size, paper in zip(published, bank, PAPER_BANK, strict=True))
    return bins, frames


def _unfreezing(_: Sizes) -> list[Choice]:
    lm, encoder = "lm.train=true", "encoder.train=true"
    return [
        Choice("frozen", "from the cache", (33.08,)),
        Choice("language model", "from the cache", (35.44,), (lm,)),
        Choice("language model and encoder", "encoder in the loop", (35.47,), (lm, encoder), in_loop=True),
    ]


def _frames(_: Sizes) -> list[Choice]:
    return [
        Choice("ViT-avg, 8 frames", "vit-frames", (17.96, None), encoder="vit-frames"),
        Choice("ViT-avg, 16 frames", "vit-frames", (17.82, None), encoder="vit-frames", frames=16),
        Choice("TimeSformer, 8 frames", "timesformer", (20.11, 13.53)),
        Choice("TimeSformer, 16 frames", "timesformer", (20.58, 14.12), frames=16),
    ]


def _levels(sizes: Sizes) -> list[Choice]:
    published = {
        "epalm": {"12 → 1": 13.49, "12 → 1–31": 27.16, "12 → 19–31": 30.86, "6–12 → 19–31": 31.18},
        "epalm-ada": {"12 → 1": 12.40, "12 → 1–31": 34.86, "12 → 19–31": 35.94},
    }
    forms = {"epalm": "prompt", "epalm-ada": "adapters"}
    found = []
    for variant, figures in published.items():
        for name, figure in figures.items():
            tokens, start, end = levels(sizes.blocks)[name]
            placed = (f"model.tokens={tokens}", f"model.start={start}", f"model.end={end}")
            here, chosen = f"{tokens}@{start}:{end}", (f"model.variant={variant}", *placed)
            found.append(Choice(f"{forms[variant]}, {name}", here, (figure,), chosen))
    return found


def _spec_augment(sizes: Sizes) -> list[Choice]:
    published = {
        (0, 0): (36.01, 10.23),
        (24, 96): (37.14, 11.37),
        (48, 192): (35.67, 10.40),
        (64, 256): (33.94, 10.21),
    }
    found = []
    for widths, figures in published.items():
        here = masks(widths, sizes.bank) if any(widths) else None
        augment = (f"data.augment={'true' if here else 'false'}",)
        said = "/".join(map(str, here)) if here else "view 0"
        found.append(Choice("/".join(map(str, widths)), said, figures, augment, masks=here))
    return found


TABLES = {
    table.name: table
    for table in (
        PaperTable(
            "table-1", "What is trained beside connector and prompt", "unfrozen",
            Modality.IMAGE, Task.QA, ("VQA soft accuracy",), "VQA v2, OPT-350M", _unfreezing,
        ),
        PaperTable(
            "table-2", "Video encoder and frames", "encoder",
            Modality.VIDEO, Task.CAPTION, ("CIDEr", "BLEU-4"), "MSRVTT captions", _frames,
        ),
        PaperTable(
            "table-3", "Encoder layers → blocks of the language model that take their tokens", "layers → blocks",
            Modality.VIDEO, Task.QA, ("exact match",), "MSVD-QA", _levels,
        ),
        PaperTable(
            "table-4", "SpecAugment: widest frequency/time mask", "mel bins/time frames",
            Modality.AUDIO, Task.CAPTION, ("CIDEr", "BLEU-4"), "AudioCaps", _spec_augment,
        ),
    )
}  # fmt: skip
