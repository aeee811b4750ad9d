"""Samples into batches of equal length, in an order that depends on seed and epoch alone.

Letters: B batch, K perceptual tokens, D_enc encoder width, T text length.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from epalm.samples import Sample, Task
from epalm.train.features import FeatureSource, TrainableSource
from epalm.train.text import Text, TextFormat, pad_right

IGNORED = -100  # label of what is not predicted
_POOL = 32  # batches within which samples are grouped by length: little padding, still random


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn: a question, its answer drawn anew each epoch, or one reference caption."""

    sample: Sample
    targets: tuple[str, ...]
    shares: tuple[float, ...]  # cumulative, the last is 1


@dataclass(frozen=True, slots=True)
class Batch:
    """`features` (B, K, D_enc), `input_ids`, `labels` (B, T), padded on the right; `attention_mask` (B, T) or None.

    Where the encoder is trained, `features` are its raw inputs (B, ...).
    """

    features: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True)
        return Batch(
            self.features.to(device, non_blocking=True),
            self.input_ids.to(device, non_blocking=True),
            mask,
            self.labels.to(device, non_blocking=True),
        )


def training_items(samples: Sequence[Sample]) -> list[Item]:
    """What an epoch goes through: each answered question once, each reference of a captioned medium once."""
    items = []
    for sample in samples:
        if sample.task is Task.CAPTION:
            items += [Item(sample, (reference,), (1.0,)) for reference in sample.references]
        elif sample.answers:
            shares = np.cumsum(list(sample.answers.values()))
            items.append(Item(sample, tuple(sample.answers), tuple(shares / shares[-1])))
    return items


class Batches:
    """Batches of one epoch; which samples, targets and order is a pure function of (seed, epoch)."""

    def __init__(
        self,
        items: Sequence[Item],
        text: TextFormat,
        features: FeatureSource,
        *,
        tokens: int,
        batch_size: int,
        seed: int,
        loss_on: Literal["all", "answer"] = "all",
    ) -> None:
        self.items, self.text, self.features = items, text, features
        self.tokens, self.batch_size, self.seed, self.loss_on = tokens, batch_size, seed, loss_on

    def __len__(self) -> int:
        return math.ceil(len(self.items) / self.batch_size)

    def epoch(self, epoch: int, *, augmented: bool = True, first: int = 0) -> Iterator[Batch]:
        """Every item once, shuffled; `augmented`: in views drawn for the epoch, else in view 0.

        `first` batches are left out, and not put together either.
        """
        rng = np.random.default_rng([self.seed, epoch])
        texts = self._draw(rng)
        order = rng.permutation(len(self.items))
        pool = _POOL * self.batch_size
        groups: list[np.ndarray] = []
        for begin in range(0, len(order), pool):
            part = order[begin : begin + pool]
            part = part[np.argsort([len(texts[place]) for place in part], kind="stable")]
            groups += [part[at : at + self.batch_size] for at in range(0, len(part), self.batch_size)]
        for group in rng.permutation(len(groups))[first:]:
            places = groups[group]
            yield self._batch(
                [self.items[p].sample for p in places], [texts[p] for p in places], epoch if augmented else None
            )

    def _draw(self, rng: np.random.Generator) -> list[Text]:
        chances = rng.random(len(self.items))
        texts = []
        for item, chance in zip(self.items, chances, strict=True):
            drawn = int(np.searchsorted(item.shares, chance, side="right"))
            texts.append(self.text.training(item.sample, item.targets[min(drawn, len(item.targets) - 1)]))
        return texts

    def _batch(self, samples: list[Sample], texts: list[Text], epoch: int | None) -> Batch:
        ids, mask = pad_right([text.ids for text in texts], self.text.pad)
        labels = torch.full_like(ids, IGNORED)
        for row, text in enumerate(texts):
            # Nothing predicts the first token: before it stands the prompt, which is no text.
            first = 1 if self.loss_on == "all" else text.target
            labels[row, first : len(text)] = torch.tensor(text.ids[first:])
        if isinstance(self.features, TrainableSource):
            return Batch(self.features.inputs(samples, epoch=epoch), ids, mask, labels)
        return Batch(last_tokens(self.features.gather(samples, epoch=epoch), self.tokens), ids, mask, labels)


def last_tokens(features: np.ndarray, tokens: int) -> torch.Tensor:
    """The last `tokens` layers (B, K, D_enc) of gathered features."""
    return torch.from_numpy(np.ascontiguousarray(features[:, features.shape[1] - tokens :]))
