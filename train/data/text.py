"""Samples as token ids, in the paper's text format (eP-ALM, section 4), and back.

QA: `</s>` question `?</a>` answer `</s>`; caption: `</s>` caption `</s>`. `</s>` stands in front, as OPT wants it.
These control tokens are put in as ids: where a text has their characters, these are encoded as any others.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import AutoTokenizer, OPTConfig, PreTrainedTokenizerBase

from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.samples import Sample, Task
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.load import lm_source, opt_config
from epalm.weights import Source, load, require_tokenizer

ANSWER = "</a>"  # the token that ends the question
SHORTEST_ANSWER = 5  # tokens that an answer gets at least when it is decoded, however long its question
_TOKENIZER_HINT = "take the tokenizer that was published with its weights"


class TextFormat:
    """Turns samples into ids; knows the tokenizer and nothing about models."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, bos: int, eos: int, pad: int) -> None:
        """From here on the tokenizer takes `</a>` and the tokens of these three ids for special tokens.

        Raises:
            UsageError: it turns text into them all the same.
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
            self._known[words] = tuple(self.questions([words])[0].tolist())
        return (self.bos, *self._known[words])

    def question(self, sample: Sample) -> str:
        """The question as it is encoded; empty for a caption, which has none."""
        if sample.task is Task.CAPTION:
            return ""
        return f"{(sample.prompt or '').strip().rstrip('?').rstrip()}?"

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


def pad_right(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask (B, T), padded behind; no mask where nothing is padded."""
    length = max(map(len, rows))
    ids = np.full((len(rows), length), pad, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask)


def load_text_format(name: str, lm: AugmentedOPT) -> TextFormat:
    """The language model's tokenizer, with `</a>` as one token.

    Raises:
        UsageError: there is none, it is another model's, or the embedding table has no row left for `</a>`.
    """
    return _text_format(lm_source(name), lm.config)


def require_language_model(name: str) -> None:
    """Raise UsageError where its folder or tokenizer do not serve: known before weights are loaded, or media read."""
    source = lm_source(name)
    _text_format(source, opt_config(source))


def _text_format(source: Source, config: OPTConfig) -> TextFormat:
    if source.folder:
        require_tokenizer(source.folder)
    where = str(source.folder or source.name)
    tokenizer: PreTrainedTokenizerBase = load(
        source, "tokenizer", lambda: AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    )
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UsageError(f"lm.name {source.name!r} has no tokenizer that makes tokens of text", hint=_TOKENIZER_HINT)
    for role in ("bos", "eos", "pad"):
        wanted, own = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if own is not None and own != wanted:
            raise UsageError(
                f"lm.name {source.name!r} has another model's tokenizer: its {role} token is {own}, the language "
                f"model's {wanted}",
                hint=_TOKENIZER_HINT,
            )
    text = TextFormat(tokenizer, bos=config.bos_token_id, eos=config.eos_token_id, pad=config.pad_token_id)
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise UsageError(
            f"lm.name {source.name!r} has {config.vocab_size:,} word embeddings, and its tokenizer, with {ANSWER}, ids "
            f"up to {highest:,}",
            hint="the published OPT sizes have room; pad this model's embeddings first, or take its own tokenizer",
        )
    return text
