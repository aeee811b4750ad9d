"""Templates: what stands before an answer and before a caption, and how a text goes on behind other text.

OPT's are the paper's (eP-ALM, section 4): question `?</a>` answer, and nothing before a caption. Other language models
have no such token: words tell them what comes next, of a caption too, because many tokenizers have no BOS that a
caption could begin behind.
"""

import re
from collections.abc import Callable, Sequence
from string import ascii_letters, digits
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from epalm.errors import UsageError
from epalm.recipes.settings import CHAT, QUESTION, TextSettings

ANSWER = "</a>"  # the token that ends the question in the paper's template
_OPT = TextSettings(template=f"{QUESTION}?{ANSWER}", caption="", add_bos=True)
_OTHERS = TextSettings(template=f"Question: {QUESTION} Answer:", caption="Caption:")
_INSTRUCTION = "Describe it."  # what a chat model is asked for a caption
_QUESTIONS = ("what color is it?", "How many are there", "(3) été")
_ANSWERS = (*ascii_letters, *digits, "red", "Two dogs.", "(été)", "it's a sign")
Ids = list[int]


def resolve_text(settings: TextSettings, tokenizer: PreTrainedTokenizerBase, family: str) -> TextSettings:
    """With everything filled in: the family's templates, the rendered chat template, BOS as the tokenizer has it.

    Nothing is filled in where all is as published, with an OPT. Raises UsageError: there is no chat template.
    """
    default = _OPT if family == "opt" else _OTHERS.model_copy(update={"add_bos": bool(own_start(tokenizer))})
    given = settings.model_dump(exclude_none=True)
    if settings.template == CHAT:
        given["template"], end = _chat(tokenizer)
        given["caption"] = given["template"].replace(QUESTION, settings.caption or _INSTRUCTION)
        given = {"add_bos": False, "eos": end} | given  # a chat template has its BOS itself
    resolved = default.model_copy(update=given)
    return TextSettings() if resolved == _OPT and family == "opt" else resolved


def template_texts(settings: TextSettings) -> tuple[str, str]:
    """What resolved settings put before an answer and before a caption, without a space at the end."""
    form = _OPT if settings == TextSettings() else settings
    return str(form.template).rstrip(" "), str(form.caption).rstrip(" ")


def own_start(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The ids that the tokenizer puts in front of a text by itself."""
    whole, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    places = [place for place in range(len(whole)) if whole[place : place + len(plain)] == plain]
    return list(whole[: places[0]]) if places else []


def _chat(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str | None]:
    """The chat template with a place for the question, and the token that ends an answer in it."""
    asked = {"role": "user", "content": QUESTION}
    try:
        before = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([asked, {"role": "assistant", "content": "red"}], tokenize=False)
    except Exception as error:  # a template is a program
        raise UsageError(
            f"text.template chat: the tokenizer has no chat template for a question: {error}",
            hint=f"leave text.template out, or write your own with {QUESTION} in it",
        ) from error
    behind = tokenizer(str(whole).rpartition("red")[2].strip(), add_special_tokens=False)["input_ids"]
    ends = bool(behind) and behind[0] in tokenizer.added_tokens_decoder
    return str(before), str(tokenizer.convert_ids_to_tokens(behind[0])) if ends else None


class _Lead(NamedTuple):
    """What a text is tokenised behind, and how many ids of that are left out."""

    text: str
    ids: int


class Template:
    """Templates with a tokenizer: the ids of what is given, and of the target behind it.

    Tokenizers differ in where a space goes, and some put one in front of every text. So a text is tokenised behind a
    short lead, whose ids are left out: one with which, by trial, the ids are those of the whole text read at once. What
    decoding starts from is then what training has before a target, to the id.
    """

    def __init__(
        self,
        question: str,
        caption: str,
        control: re.Pattern[str],
        *,
        plain: Callable[[Sequence[str]], list[np.ndarray]],
        parse: Callable[[str], Ids],
    ) -> None:
        """`plain` gives the ids (T,) int64 of texts, `parse` those of one in which `control` tokens count as such.

        Raises UsageError: the template's own ids depend on what is put into it.
        """
        self._plain, self._parse = plain, parse
        before, _, behind = question.partition(QUESTION)
        # A question is read together with the words around it, up to the next control tokens.
        cut = max((found.end() for found in control.finditer(before)), default=0)
        end = found.start() if (found := control.search(behind)) else len(behind)
        head, words, self._words, tail = before[:cut], before[cut:], behind[:end], behind[end:]
        self.head, self.tail, self.caption = (np.array(parse(text), np.int64) for text in (head, tail, caption))
        self._question = self._lead(head, words, [f"{one}{self._words}" for one in _QUESTIONS], tail)
        self._target = {}  # by whether it answers a question
        for asked, given in ((True, question.replace(QUESTION, _QUESTIONS[0])), (False, caption)):
            ends = not given or given[-1].isspace() or re.search(rf"(?:{control.pattern})\Z", given)
            self._target[asked] = self._lead(given, "" if ends else " ", _ANSWERS)

    def questions(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids (T,) int64 of each question with all around it; empty: of what stands before a caption."""
        rows = iter(self._behind([(self._question, f"{text}{self._words}") for text in texts if text]))
        return [np.concatenate((self.head, next(rows), self.tail)) if text else self.caption for text in texts]

    def targets(self, texts: Sequence[tuple[bool, str]]) -> list[np.ndarray]:
        """The ids (T,) int64 of each target; with it whether it answers a question."""
        return self._behind([(self._target[asked], text) for asked, text in texts])

    def _behind(self, texts: Sequence[tuple[_Lead, str]]) -> list[np.ndarray]:
        rows = self._plain([f"{lead.text}{text}" for lead, text in texts])
        return [row[lead.ids :] for (lead, _), row in zip(texts, rows, strict=True)]

    def _lead(self, context: str, space: str, texts: Sequence[str], end: str = "") -> _Lead:
        """The lead of texts that stand between `context`, `space` and `end`. Raises UsageError: there is none."""
        parts = [np.array(self._parse(part), np.int64) for part in (context, end)]
        whole = [self._parse(f"{context}{space}{text}{end}") for text in texts]
        for text in dict.fromkeys(("", context[-1:], ":", "\n")):
            lead = _Lead(f"{text}{space}", len(self._plain([text])[0]))
            rows = self._behind([(lead, one) for one in texts])
            if [np.concatenate((parts[0], row, parts[1])).tolist() for row in rows] == whole:
                return lead
        raise UsageError(
            f"a text behind {context[-20:]!r} has other tokens read at once than piece by piece",
            hint="end text.template and text.caption in a word, a colon or a control token",
        )
