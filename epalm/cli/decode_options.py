"""The options that say how to decode, and what they make of a recipe's `[decode]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.evaluate.decoding.options import DecodeOptions
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
        help="Answer each question with the likeliest line of this file (UTF-8), of more than 64 lines with one that a "
        "beam search finds; captions are decoded as usual.",
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
    """See `DecodeChoice.options`."""
    from epalm.evaluate.decoding.options import DecodeChoice

    chosen = DecodeChoice(num_beams, max_length, sampling, temperature, top_p, seed, rank_answers)
    return chosen.options(recipe, batch_size)


def tell_of_captions(decode: "DecodeOptions", questions: int, captions: int) -> None:
    """Say that answers are ranked for questions alone. Raises UsageError where there is none."""
    from epalm.console import say

    if not decode.answers:
        return
    if not questions:
        raise UsageError("--rank-answers answers questions, and here is none", hint="leave out --rank-answers")
    if captions:
        say(f"--rank-answers answers {questions:,} questions; {captions:,} captions are decoded as usual")
