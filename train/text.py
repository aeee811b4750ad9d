"""Samples as token ids, in the paper's text format (eP-ALM, section 4), and back.

QA: `</s>` question `?</a>` answer `</s>`; caption: `</s>` caption `</s>`. `</s>` stands in front, as OPT wants it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from epalm.samples import Sample, Task

ANSWER = "</a>"  # ends the question


class TextFormat:
    """Turns samples into ids; knows the tokenizer and nothing about models."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, bos: int, eos: int, pad: int) -> None:
        self.tokenizer, self.bos, self.eos, self.pad = tokenizer, bos, eos, pad
        self._known: dict[str, tuple[int, ...]] = {}

    def given(self, sample: Sample) -> tuple[int, ...]:
        """What decoding starts from: the question, or `</s>` alone for a caption."""
        words = self.question(sample)
        if words not in self._known:
            self._known[words] = tuple(self.tokenise([words])[0].tolist())
        return (self.bos, *self._known[words])

    def question(self, sample: Sample) -> str:
        """The words that a target follows: the question with its end; none before a caption."""
        if sample.task is Task.CAPTION:
            return ""
        return f"{(sample.prompt or '').strip().rstrip('?').rstrip()}?{ANSWER}"

    def tokenise(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (T,) int64 of each text, with nothing added; many at a time are fast."""
        if not texts:
            return []
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.array(row, np.int64) for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of produced ids, up to the first `</s>`."""
        ids = list(ids)
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()


def pad_right(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask (B, T), padded behind; no mask where nothing is padded."""
    length = max(map(len, rows))
    ids = np.full((len(rows), length), pad, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask)
