"""Samples as token ids, in the paper's text format (eP-ALM, section 4), and back.

QA: `</s>` question `?</a>` answer `</s>`; caption: `</s>` caption `</s>`. `</s>` stands in front, as OPT wants it.
These control tokens are put in as ids: where a text has their characters, these are encoded as any others.

Letters: B batch, T tokens, N items, M targets of all items together.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.samples import Sample, Task
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.load import lm_config, lm_source
from epalm.weights import load, require_tokenizer

ANSWER = "</a>"  # the token that ends the question
SHORTEST_ANSWER = 5  # tokens that an answer gets at least when it is decoded, however long its question
_TOKENIZER_HINT = "take the tokenizer that was published with its weights"


class TextFormat:
    """Turns samples into ids; knows the tokenizer and nothing about models."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, bos: int, eos: int, pad: int) -> None:
        """From here on the tokenizer takes `</a>` and the tokens of these three ids for special tokens.

        Raises UsageError: it turns text into them all the same.
        """
        self.tokenizer, self.bos, self.eos, self.pad = tokenizer, bos, eos, pad
        added = tokenizer.added_tokens_decoder  # others than these are never matched in a text
        control = [str(added[number]) for number in (bos, eos, pad) if number in added]
        tokenizer.add_special_tokens({"additional_special_tokens": [ANSWER, *control]})
        self.answer: int = tokenizer.convert_tokens_to_ids(ANSWER)
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = re.compile("|".join(map(re.escape, special)))
        if {self.answer, bos, eos, pad} & {number for row in self.tokenise(sorted(special)) for number in row.tolist()}:
            raise UsageError(
                "the tokenizer turns the characters of its control tokens into these tokens",
                hint="use the tokenizer.json that the language model was published with",
            )
        self._known: dict[str, tuple[int, ...]] = {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides ids and words: the tokenizer's rules and the ids that stand for no text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = sorted(self.tokenizer.get_vocab().items()) if backend is None else backend.to_str()
        return digest_json([rules, self.bos, self.eos, self.pad])

    def given(self, sample: Sample) -> tuple[int, ...]:
        """What decoding starts from: the question with `</a>`, or `</s>` alone for a caption."""
        words = self.question(sample)
        if words not in self._known:
            self._known[words] = (self.bos, *self.questions([words])[0].tolist())
        return self._known[words]

    def question(self, sample: Sample) -> str:
        """The question as it is encoded; empty for a caption, which has none."""
        return "" if sample.task is Task.CAPTION else f"{(sample.prompt or '').strip().rstrip('?').rstrip()}?"

    def questions(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (T,) int64 that a target follows: each question's with `</a>`, none for an empty one."""
        return [np.append(row, self.answer) if len(row) else row for row in self.tokenise(texts)]

    def tokenise(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (T,) int64 of each text, with nothing added; many at a time are fast."""
        if not texts:
            return []
        rows = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [np.array(row, np.int64) for row in rows]

    def with_control_tokens(self, texts: Iterable[str]) -> int:
        """In how many texts characters stand that are a control token's, such as "</s>"."""
        return sum(self._control.search(text) is not None for text in texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The words of produced ids, up to the first `</s>`."""
        ids = list(ids)
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()


class Text(NamedTuple):
    """Token ids (T,) int64 of one training text; its target begins at `target`."""

    ids: np.ndarray
    target: int


class Texts:
    """All that items may become as texts, tokenised once; targets are numbered through, item after item."""

    def __init__(
        self,
        text: TextFormat,
        given: Sequence[str],
        targets: Sequence[Sequence[str]],
        shares: Sequence[Sequence[float]],
    ) -> None:
        """`given` are the N items' questions, empty for a caption; `shares` are cumulative, the last of each is 1."""
        self._text = text
        # What several items have in common is tokenised once.
        questions: dict[str, int] = {}
        answers: dict[str, int] = {}
        numbers = [questions.setdefault(words, len(questions)) for words in given]
        self._given = np.array(numbers, np.int64)  # (N,)
        numbers = [answers.setdefault(words.strip(), len(answers)) for words in chain.from_iterable(targets)]
        self._target = np.array(numbers, np.int64) + len(questions)  # (M,)
        self._rows = [*text.questions(list(questions)), *text.tokenise(list(answers))]
        self._lengths = np.fromiter(map(len, self._rows), np.int64, len(self._rows))
        self._starts = np.fromiter(accumulate(map(len, targets), initial=0), np.int64, len(targets) + 1)
        self._shares = np.fromiter(chain.from_iterable(shares), np.float64, len(self._target))  # (M,)
        self._shares += np.repeat(np.arange(len(targets)), np.diff(self._starts))

    def draw(self, chances: np.ndarray) -> np.ndarray:
        """Each item's target (N,), in proportion to its share; `chances` (N,) are in [0, 1)."""
        drawn: np.ndarray = np.searchsorted(self._shares, np.arange(len(chances)) + chances, side="right")
        return drawn.clip(self._starts[:-1], self._starts[1:] - 1)  # a sum may round up to the next item

    def lengths(self, targets: np.ndarray) -> np.ndarray:
        """How many tokens (N,) each item's text has, with these targets (N,)."""
        lengths: np.ndarray = self._lengths[self._given] + self._lengths[self._target[targets]] + 2  # both ends
        return lengths

    def decoded_lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every target: tokens (M,) that decoding starts from, and tokens (M,) when it has produced the target."""
        given = 1 + np.repeat(self._lengths[self._given], np.diff(self._starts))
        return given, given + self._lengths[self._target]

    def text(self, item: int, target: int) -> Text:
        """An item's text with one of its targets."""
        given, wanted = self._rows[self._given[item]], self._rows[self._target[target]]
        return Text(np.concatenate(([self._text.bos], given, wanted, [self._text.eos])), 1 + len(given))


def pad_right(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask (B, T), padded behind; no mask where nothing is padded."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = np.concatenate(rows)
    return torch.from_numpy(ids), None if real.all() else torch.from_numpy(real.astype(np.int64))


def load_text_format(name: str, lm: AugmentedOPT | None = None) -> TextFormat:
    """The language model's tokenizer, with `</a>` as one token; `lm` need not be loaded for it.

    Raises UsageError: there is none, it is another model's, or the embedding table has no row left for `</a>`.
    """
    source = lm_source(name)
    config = lm_config(source) if lm is None else lm.config
    if source.folder and not source.gguf:
        require_tokenizer(source.folder)
    model = f"lm.name {source.name!r}"
    tokenizer: PreTrainedTokenizerBase = load(
        source, "tokenizer", lambda: AutoTokenizer.from_pretrained(**source.location(), trust_remote_code=False)
    )
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UsageError(f"{model} has no tokenizer that makes tokens of text", hint=_TOKENIZER_HINT)
    for role in ("bos", "eos", "pad"):
        wanted, own = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if own not in (None, wanted):
            fault = f"its {role} token is {own}, the language model's {wanted}"
            raise UsageError(f"{model} has another model's tokenizer: {fault}", hint=_TOKENIZER_HINT)
    text = TextFormat(tokenizer, bos=config.bos_token_id, eos=config.eos_token_id, pad=config.pad_token_id)
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise UsageError(
            f"{model} has {config.vocab_size:,} word embeddings, and its tokenizer with {ANSWER} ids up to {highest:,}",
            hint="the published OPT sizes have room; pad this model's embeddings first, or take its own tokenizer",
        )
    return text
