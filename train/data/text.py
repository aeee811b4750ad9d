"""Samples as token ids, in the language model's text format, and back.

Control tokens are put in as ids: where a text has their characters, these are encoded as any others.

Letters: B batch, T tokens, N items, M targets of all items together.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.recipes.settings import QUESTION, TextSettings
from epalm.samples import Sample, Task
from epalm.train.data.templates import ANSWER, Template, own_start, resolve_text, template_texts
from epalm.train.lm.load import lm_config, lm_source
from epalm.weights import load, require_tokenizer

SHORTEST_ANSWER = 5  # tokens that an answer gets at least when it is decoded, however long its question
_TOKENIZER_HINT = "take the tokenizer that was published with its weights"


class TextFormat:
    """Turns samples into ids; knows the tokenizer and nothing about models.

    A text is `start`, what is given (a question in its template, or what stands before a caption), a target, `eos`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: TextSettings, *, start: Sequence[int], eos: int, pad: int
    ) -> None:
        """`settings` are resolved. From here on the tokenizer takes `</a>` and the tokens of the ids for special ones.

        Raises UsageError: it turns text into them all the same, or there is a fault in a template.
        """
        self.tokenizer, self.settings, self.start, self.eos, self.pad = tokenizer, settings, tuple(start), eos, pad
        template, caption = template_texts(settings)
        added = tokenizer.added_tokens_decoder  # others than these are never matched in a text
        control = [str(added[number]) for number in (*start, eos, pad) if number in added]
        answer = [ANSWER] if ANSWER in template else []
        tokenizer.add_special_tokens({"additional_special_tokens": [*answer, *control]})
        special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        named = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        self._marks = f"{QUESTION}?" in template  # the question's own mark is left out
        template = template.replace(f"{QUESTION}?", QUESTION)
        form = Template(template, caption, named, plain=self.tokenise, parse=self._parse)
        self.questions, self.targets = form.questions, form.targets
        around = {*form.head.tolist(), *form.tail.tolist(), *form.caption.tolist()}
        self.control = {*start, eos, pad} | around & set(special.values())
        if self.control & {number for row in self.tokenise(sorted(special)) for number in row.tolist()}:
            raise UsageError(
                "the tokenizer turns the characters of its control tokens into these tokens",
                hint="use the tokenizer.json that the language model was published with",
            )
        if start and start[0] in form.head[:1].tolist():
            raise UsageError("text.template begins with BOS and gets another", hint="--set text.add_bos=false")
        if not (len(start) or len(form.caption)):
            fault = "nothing stands where a caption begins: neither BOS nor text.caption"
            raise UsageError(fault, hint="--set text.caption=Caption:")
        self.most_added = len(self.start) + len(f"{template}{caption}".encode()) + 2  # tokens around the words
        self._known: dict[str, tuple[int, ...]] = {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides ids and words: the tokenizer's rules, the template, ids that are no text's."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = sorted(self.tokenizer.get_vocab().items()) if backend is None else backend.to_str()
        form = [] if self.settings == TextSettings() else template_texts(self.settings)
        return digest_json([rules, *self.start, self.eos, self.pad, *form])

    def given(self, sample: Sample) -> tuple[int, ...]:
        """What decoding starts from: the question in its template, or what stands before a caption."""
        words = self.question(sample)
        if words not in self._known:
            self._known[words] = (*self.start, *self.questions([words])[0].tolist())
        return self._known[words]

    def question(self, sample: Sample) -> str:
        """The question as it is encoded; empty for a caption, which has none."""
        words = (sample.prompt or "").strip()
        words = f"{words.rstrip('?').rstrip()}?" if self._marks or not words else words
        return "" if sample.task is Task.CAPTION else words

    def tokenise(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (T,) int64 of each text, with nothing added; many at a time are fast."""
        if not texts:
            return []
        rows = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [np.array(row, np.int64) for row in rows]

    def _parse(self, text: str) -> list[int]:
        """The ids of a text in which control tokens count as such."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The words of produced ids, up to the first `eos`."""
        ids = list(ids)
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
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
        answers: dict[tuple[bool, str], int] = {}
        numbers = [questions.setdefault(words, len(questions)) for words in given]
        self._given = np.array(numbers, np.int64)  # (N,)
        pairs = ((bool(words), one.strip()) for words, some in zip(given, targets, strict=True) for one in some)
        numbers = [answers.setdefault(pair, len(answers)) for pair in pairs]
        self._target = np.array(numbers, np.int64) + len(questions)  # (M,)
        self._asked = np.repeat([bool(words) for words in given], list(map(len, targets)))  # (M,)
        self._rows = [*text.questions(list(questions)), *text.targets(list(answers))]
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
        around = len(self._text.start) + 1  # and `eos`
        lengths: np.ndarray = self._lengths[self._given] + self._lengths[self._target[targets]] + around
        return lengths

    def decoded_lengths(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every target (M,): whether it answers a question, tokens when decoding starts, when it is produced."""
        given = len(self._text.start) + np.repeat(self._lengths[self._given], np.diff(self._starts))
        return self._asked, given, given + self._lengths[self._target]

    def text(self, item: int, target: int) -> Text:
        """An item's text with one of its targets."""
        start, given, wanted = self._text.start, self._rows[self._given[item]], self._rows[self._target[target]]
        ids = np.concatenate((np.array(start, np.int64), given, wanted, [self._text.eos]))
        return Text(ids, len(start) + len(given))


def pad_right(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Ids and mask (B, T), padded behind; no mask where nothing is padded."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = np.concatenate(rows)
    return torch.from_numpy(ids), None if real.all() else torch.from_numpy(real.astype(np.int64))


def load_text_format(name: str, lm: PreTrainedModel | None = None, settings: TextSettings | None = None) -> TextFormat:
    """The language model's tokenizer and the template of `settings`; `lm` need not be loaded for it.

    Raises UsageError: there is no tokenizer, it is another model's, the embedding table has no row for a token, or the
    settings do not fit it.
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
    family = config.model_type
    for role in ("bos", "eos", "pad") if family == "opt" else ():
        wanted, own = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if own not in (None, wanted):
            fault = f"its {role} token is {own}, the language model's {wanted}"
            raise UsageError(f"{model} has another model's tokenizer: {fault}", hint=_TOKENIZER_HINT)
    settings = resolve_text(settings or TextSettings(), tokenizer, family)
    bos, eos, pad = (_control_id(tokenizer, config, role) for role in ("bos", "eos", "pad"))
    if settings.eos is not None:
        eos = tokenizer.get_vocab().get(settings.eos)
    if eos is None:
        asked = "no EOS" if settings.eos is None else f"no token {settings.eos!r}, which text.eos names"
        raise UsageError(
            f"{model} has {asked}: nothing can end an answer", hint="--set text.eos=TOKEN, one that it has"
        )
    start = [] if settings.add_bos is False else own_start(tokenizer) or ([] if bos is None else [bos])
    if settings.add_bos and not start:
        raise UsageError(f"{model} has no BOS to put in front of a text", hint="--set text.add_bos=false")
    text = TextFormat(tokenizer, settings, start=start, eos=eos, pad=eos if pad is None else pad)
    # Special tokens that stand in no template never come about, and some models have no embedding for them.
    never = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special} - text.control
    highest = max(set(tokenizer.get_vocab().values()) - never)
    if highest >= config.vocab_size:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise UsageError(
            f"{model} has {config.vocab_size:,} word embeddings, and its tokenizer ids up to {highest:,} ({token})",
            hint="the published OPT sizes have room; pad this model's embeddings first, or take its own tokenizer",
        )
    return text


def _control_id(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, role: str) -> int | None:
    """The tokenizer's BOS, EOS or padding, else the configuration's; some have several of one, or -1 for none."""
    own, given = (getattr(of, f"{role}_token_id", None) for of in (tokenizer, config))
    numbers = [own] if own is not None else given if isinstance(given, list) else [given]
    return next((number for number in numbers if number is not None and number >= 0), None)
