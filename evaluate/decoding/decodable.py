"""Whether samples can be decoded as asked: known from their lengths, before the first of them is.

Knows the language model's shapes and the text format; decodes nothing.
"""

from collections.abc import Sequence

from epalm.errors import UsageError
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.samples import Sample, Task
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.text import TextFormat
from epalm.train.data.text_length import SHORTEST_ANSWER


def require_decodable(
    model: EpalmModel, text: TextFormat, groups: Sequence[Sequence[Sample]], options: DecodeOptions
) -> None:
    """Raise UsageError where more is asked for than the language model has positions or tokens for.

    `groups` have questions of one length each, the shortest first; of `model`, shapes suffice.
    """
    positions, tokens = model.lm.config.max_position_embeddings, model.lm.config.vocab_size
    if options.max_length > positions:
        raise UsageError(
            f"--max-length {options.max_length} is more than the language model's {positions:,} positions",
            hint=f"--max-length {positions} is the most",
        )
    for sample in groups[-1][:1] if groups else ():
        if (length := len(text.given(sample))) + SHORTEST_ANSWER > positions:
            raise UsageError(
                f"the question of {sample.id} has {length:,} tokens, and the language model has {positions:,} "
                "positions for it and its answer",
                hint="shorten it or take it out of the data",
            )
    if options.sampling is None and 2 * options.num_beams > tokens:
        raise UsageError(
            f"--num-beams {options.num_beams:,} is more than the language model's {tokens:,} tokens allow",
            hint=f"--num-beams {tokens // 2:,} is the most",
        )
    asked = [group[0] for group in groups if group[0].task is Task.QA] if options.answers else []
    if asked:
        _require_short_answers(positions, text, options.answers, asked[-1])


def _require_short_answers(positions: int, text: TextFormat, answers: Sequence[str], longest: Sample) -> None:
    room = positions - len(text.given(longest))
    for answer, ids in zip(answers, text.tokenise(answers), strict=True):
        if len(ids) + 1 > room:
            raise UsageError(
                f"--rank-answers: {answer!r} has {len(ids) + 1:,} tokens with its end, and behind the question of "
                f"{longest.id} the language model has {max(0, room):,} positions left",
                hint="take that answer out of the file",
            )
