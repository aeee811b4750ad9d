"""The options that say how to decode, and what they make of a recipe's `[decode]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.evaluate.decoding.decode_options import DecodeOptions
    from epalm.settings import DecodeSettings

AUTO = "auto"

NumBeamsOption = Annotated[
    int | None,
    typer.Option("--num-beams", help="Beams; 1: greedy. [default: the recipe's]", min=1, show_default=False),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(
        "--max-length", help="Tokens in all, the question's too. [default: the recipe's]", min=2, show_default=False
    ),
]
SamplingOption = Annotated[
    bool | None,
    typer.Option(
        "--sampling/--no-sampling", help="Draw tokens, without beams. [default: the recipe's]", show_default=False
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        help="Of --sampling: below 1 likely tokens are drawn more often, above 1 less. [default: the recipe's]",
        show_default=False,
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Of --sampling: draw from the likeliest tokens that have this share of the probability together. "
        "[default: the recipe's]",
        show_default=False,
    ),
]
DecodeSeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Of --sampling: another seed, other draws; each sample has its own. [default: the recipe's]",
        min=0,
        show_default=False,
    ),
]
BatchSizeOption = Annotated[
    str,
    typer.Option(
        "--batch-size",
        metavar="N|auto",
        help="Samples decoded together. auto: 64 on a CPU; on a GPU from 512 on, halved until its memory holds them.",
    ),
]
RankAnswersOption = Annotated[
    Path | None,
    typer.Option(
        "--rank-answers",
        help="Answer each question with the likeliest line of this file (UTF-8); captions are decoded as usual.",
        show_default=False,
    ),
]


def chosen_decoding(
    recipe: "DecodeSettings",
    *,
    num_beams: int | None = None,
    max_length: int | None = None,
    sampling: bool | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    batch_size: str = AUTO,
    rank_answers: Path | None = None,
) -> "DecodeOptions":
    """The recipe's way of decoding, where the options do not say otherwise.

    Raises:
        UsageError: options that do not go together, values that they cannot have, or a file of answers that cannot be
            used.
    """
    from epalm.evaluate.decoding.answer_list import read_answers
    from epalm.evaluate.decoding.decode_options import DecodeOptions, Sampling

    for option, value, least in (("--num-beams", num_beams, 1), ("--max-length", max_length, 2), ("--seed", seed, 0)):
        if value is not None and not (isinstance(value, int) and value >= least):
            raise UsageError(f"{option} {value!r} is no whole number from {least} on", hint=f"{option} {least + 2}")
    # Asked for beams, a recipe that draws is told otherwise.
    draws = (recipe.sampling and num_beams is None) if sampling is None else sampling
    if draws and num_beams is not None and num_beams > 1:
        raise UsageError(
            f"--sampling draws tokens, and --num-beams {num_beams} searches for likely ones", hint="leave out one"
        )
    of_sampling = {"--temperature": temperature, "--top-p": top_p, "--seed": seed}
    given = [option for option, value in of_sampling.items() if value is not None]
    if given and not draws:
        raise UsageError(f"{given[0]} is of drawn tokens", hint="add --sampling")
    drawn = Sampling(
        temperature=recipe.temperature if temperature is None else temperature,
        top_p=recipe.top_p if top_p is None else top_p,
        seed=recipe.seed if seed is None else seed,
    )
    if not 0 < drawn.temperature <= 100:  # not a number is neither
        raise UsageError(f"--temperature {drawn.temperature} is not above 0 and at most 100", hint="--temperature 0.7")
    if not 0 < drawn.top_p <= 1:
        raise UsageError(f"--top-p {drawn.top_p} is not above 0 and at most 1", hint="--top-p 0.9")
    return DecodeOptions(
        num_beams=num_beams or recipe.num_beams,
        max_length=max_length or recipe.max_length,
        sampling=drawn if draws else None,
        answers=read_answers(rank_answers) if rank_answers else (),
        batch_size=_batch_size(batch_size),
    )


def tell_of_captions(decode: "DecodeOptions", questions: int, captions: int) -> None:
    """Say that answers are ranked for questions alone. Raises UsageError where there is none."""
    from epalm.console import say

    if not decode.answers:
        return
    if not questions:
        raise UsageError("--rank-answers answers questions, and here is none", hint="leave out --rank-answers")
    if captions:
        say(f"--rank-answers answers {questions:,} questions; {captions:,} captions are decoded as usual")


def _batch_size(words: str) -> int | None:
    if words.strip().lower() == AUTO:
        return None
    if not (words.isascii() and words.isdecimal() and 0 < len(words) < 10 and int(words)):
        raise UsageError(f"--batch-size {words!r} is neither a number of samples nor auto", hint="--batch-size 64")
    return int(words)
