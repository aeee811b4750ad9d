"""What can be decoded together, and whether the language model has the room for it.

Knows token counts; of a model, its shapes alone.
"""

from collections.abc import Sequence
from itertools import groupby

from epalm.errors import UsageError
from epalm.evaluate.decode_options import DecodeOptions
from epalm.samples import Sample, Task
from epalm.train.model import EpalmModel
from epalm.train.text import TextFormat

SHORTEST_ANSWER = 5  # tokens that an answer gets at least, however long its question


def length_groups(text: TextFormat, samples: Sequence[Sample], options: DecodeOptions) -> list[list[Sample]]:
    """The samples that are decoded in one way and whose questions have as many tokens, the shortest first."""
    keys = {one.id: (len(text.given(one)), bool(options.answers) and one.task is Task.QA) for one in samples}
    ordered = sorted(samples, key=lambda sample: keys[sample.id])
    return [list(group) for _, group in groupby(ordered, lambda sample: keys[sample.id])]


def answer_ids(text: TextFormat, answers: Sequence[str]) -> list[list[int]]:
    """The tokens of each answer, with its `</s>`."""
    return [[*ids.tolist(), text.eos] for ids in text.tokenise(answers)]


def require_decodable(
    model: EpalmModel, text: TextFormat, groups: Sequence[Sequence[Sample]], options: DecodeOptions
) -> None:
    """Whether all of these can be decoded; `groups` as `length_groups` makes them.

    Raises:
        UsageError: something takes more positions than the language model has, or there are more beams than tokens.
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
    asked = [group[0] for group in groups if group[0].task is Task.QA]
    if options.answers and asked:
        _require_short_answers(positions, text, options.answers, asked[-1])


def _require_short_answers(positions: int, text: TextFormat, answers: Sequence[str], longest: Sample) -> None:
    room = positions - len(text.given(longest))
    for answer, ids in zip(answers, answer_ids(text, answers), strict=True):
        if len(ids) > room:
            raise UsageError(
                f"--rank-answers: {answer!r} has {len(ids):,} tokens with its end, and behind the question of "
                f"{longest.id} the language model has {max(0, room):,} positions left",
                hint="take that answer out of the file",
            )
