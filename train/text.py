"""Samples as token ids, in the paper's text format (eP-ALM, section 4), and back.

QA: `</s>` question `?</a>` answer `</s>`; caption: `</s>` caption `</s>`. `</s>` stands in front, as OPT wants it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from epalm.samples import Sample, Task

ANSWER = "</a>"  # ends the question


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids of one training text; its target begins at `target`."""

    ids: tuple[int, ...]
    target: int

    def __len__(self) -> int:
        return len(self.ids)


class TextFormat:
    """Turns samples into ids; knows the tokenizer and nothing about models."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, bos: int, eos: int, pad: int) -> None:
        self.tokenizer, self.bos, self.eos, self.pad = tokenizer, bos, eos, pad
        self._known: dict[str, tuple[int, ...]] = {}

    def training(self, sample: Sample, target: str) -> Text:
        """The text that `target` (an answer or a caption) completes."""
        given = self.given(sample)
        return Text((*given, *self._ids(target.strip()), self.eos), len(given))

    def given(self, sample: Sample) -> tuple[int, ...]:
        """What decoding starts from: the question, or `</s>` alone for a caption."""
        if sample.task is Task.CAPTION:
            return (self.bos,)
        question = (sample.prompt or "").strip().rstrip("?").rstrip()
        return (self.bos, *self._ids(f"{question}?{ANSWER}"))

    def decode(self, ids: Sequence[int]) -> str:
        """The words of produced ids, up to the first `</s>`."""
        ids = list(ids)
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            self._known[text] = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._known[text]


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask (B, T), padded behind; no mask where nothing is padded."""
    length = max(map(len, rows))
    ids = np.full((len(rows), length), pad, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask)
