"""How to decode: the options of a user, and the plain values that they give with a recipe. Knows no model."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.console import say
from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.request_fields import option

if TYPE_CHECKING:
    from epalm.recipes.settings import DecodeSettings

MOST_EXACT = 64  # answers of a list of which the likeliest is found for sure
_BEAMS = 16  # at least, in the search among more answers
_MOST_ANSWERS = 100_000


@dataclass(frozen=True, slots=True)
class Sampling:
    """Tokens are drawn, from the likeliest that have `top_p` of the probability at `temperature` together."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What decides the texts, but for `batch_size`, which only decides how fast."""

    num_beams: int = 3  # 1: greedy
    max_length: int = 30  # tokens, the question's too
    sampling: Sampling | None = None  # there are no beams then
    answers: tuple[str, ...] = ()  # to choose from where a question is asked
    batch_size: int | None = None  # samples decoded together; None: as many as the memory holds

    @property
    def answer_beams(self) -> int:
        """Beams of the search among answers: as many as answers, so that it is exact, or fewer where these are many."""
        return len(self.answers) if len(self.answers) <= MOST_EXACT else max(_BEAMS, self.num_beams)

    def deciding(self) -> dict[str, Any]:
        """What decides the predictions, as JSON; of answers, their number and digest."""
        how = {"num_beams": self.num_beams} if self.sampling is None else {"sampling": asdict(self.sampling)}
        decides: dict[str, Any] = {**how, "max_length": self.max_length}
        if self.answers:
            decides |= {"answers": len(self.answers), "answers_digest": digest_json(list(self.answers))}
            decides["answer_beams"] = self.answer_beams
        return decides


@dataclass(frozen=True)
class DecodeChoice:
    """The options of decoding; None: as the recipe has it."""

    num_beams: int | None = option("Beams; 1: greedy. [default: the recipe's]", None, minimum=1)
    max_length: int | None = option("Tokens in all, the question's too. [default: the recipe's]", None, minimum=2)
    sampling: bool | None = option("Draw tokens, without beams. [default: the recipe's]", None)
    temperature: float | None = option(
        "Of --sampling: below 1 likely tokens are drawn more often, above 1 less. [default: the recipe's]", None
    )
    top_p: float | None = option(
        "Of --sampling: draw from the likeliest tokens that have this share of the probability together. "
        "[default: the recipe's]",
        None,
    )
    seed: int | None = option(
        "Of --sampling: another seed, other draws; each sample has its own. [default: the recipe's]", None, minimum=0
    )
    rank_answers: Path | None = option(
        "Answer each question with the likeliest line of this file (UTF-8); of more than 64 lines it is a likely one, "
        "which a beam search finds. Captions are decoded as usual.",
        None,
    )

    def options(self, recipe: "DecodeSettings", batch_size: str = "auto") -> DecodeOptions:
        """The values with those of a recipe. `batch_size` is a number of samples decoded together, or auto.

        Raises UsageError: options that do not go together, values out of range, or an unusable file of answers.
        """
        from pydantic import ValidationError

        given = {name: value for name, value in asdict(self).items() if value is not None and name != "rank_answers"}
        try:
            chosen = type(recipe).model_validate(recipe.model_dump() | given, strict=True)
        except ValidationError as error:
            fault = error.errors()[0]
            flag = f"--{str(fault['loc'][0]).replace('_', '-')}"
            raise UsageError(
                f"{flag} {fault['input']!r}: {fault['msg']}", hint="leave it out for the recipe's"
            ) from error
        # Who asks for beams does not get the draws of the recipe.
        draws = chosen.sampling and (self.sampling is not None or self.num_beams is None)
        if draws and (self.num_beams or 1) > 1:
            raise UsageError(f"--sampling draws tokens, without the {self.num_beams} beams", hint="leave out one")
        if not draws and (unused := given.keys() & {field.name for field in fields(Sampling)}):
            raise UsageError(f"--{min(unused).replace('_', '-')} is of drawn tokens", hint="add --sampling")
        size = None if batch_size.strip().lower() == "auto" else batch_size
        if size is not None and not (size.isdecimal() and int(size)):
            raise UsageError(f"--batch-size {size!r} is neither a number of samples nor auto", hint="--batch-size 64")
        return DecodeOptions(
            num_beams=chosen.num_beams,
            max_length=chosen.max_length,
            sampling=Sampling(chosen.temperature, chosen.top_p, chosen.seed) if draws else None,
            answers=read_answers(Path(self.rank_answers)) if self.rank_answers else (),
            batch_size=int(size) if size else None,
        )


def require_questions(decode: DecodeOptions, questions: int, captions: int) -> None:
    """Say that only questions are answered from a list. Raises UsageError where there is a list and no question."""
    if decode.answers and not questions:
        raise UsageError("--rank-answers answers questions, and here is none", hint="leave out --rank-answers")
    if decode.answers and captions:
        say(f"--rank-answers answers {questions:,} questions; {captions:,} captions are decoded as usual")


def read_answers(path: Path) -> tuple[str, ...]:
    """The answers of a UTF-8 file, one a line, each once, without white space around them.

    Raises UsageError: it cannot be read, has no answers, or too many.
    """
    from epalm.datasets.text_file import reading

    with reading(path, hint="--rank-answers takes one answer a line, UTF-8"):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    answers = tuple(dict.fromkeys(filter(None, map(str.strip, lines))))
    if not 0 < len(answers) <= _MOST_ANSWERS:
        raise UsageError(f"{path} has {len(answers):,} answers", hint=f"write 1 to {_MOST_ANSWERS:,}, one a line")
    return answers
