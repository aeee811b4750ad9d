"""Samples → predictions: batches of questions of one length.

Knows the trained model and where features come from; does not know scores.

Letters: B samples, L layers, D_enc encoder width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch

from epalm.console import say
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.answers import AnswerTree
from epalm.evaluate.decoding.generate import choose_answers, generate
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.samples import Prediction, Sample, Task
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import last_layers
from epalm.train.data.text import SHORTEST_ANSWER, TextFormat
from epalm.train.runs.loading import LoadedRun

_ON_GPU, _ON_CPU = 512, 64  # of a batch whose size is found out: to begin with; more are not faster on a CPU
_LACK = ("can't allocate memory", "out of memory")  # as a CPU says it, and Apple's GPU

Gather = Callable[[Sequence[Sample]], np.ndarray]
Item = TypeVar("Item")
Result = TypeVar("Result")


def decode_batches(
    run: LoadedRun, gather: Gather, samples: Sequence[Sample], options: DecodeOptions, size: "BatchSize | None" = None
) -> Iterator[list[Prediction]]:
    """Predictions batch by batch; a batch holds questions of one length, so nothing is padded.

    What is produced for a sample therefore does not depend on which others it is decoded with. `max_length` counts
    the question's tokens too; a question that leaves fewer than five still gets five for its answer. `size` is given by
    whoever decodes in several calls, and takes what one has found out to the next. `gather` gives the features
    (B, L, D_enc) of some samples.

    Raises:
        UsageError: that is more than the language model has positions, or there are more beams than tokens.
        EpalmError: the memory does not suffice.
    """
    model, text, device = run.model, run.text, run.model.device
    groups = length_groups(run, samples, options)
    tree = _tree(text, options.answers, int(model.lm.config.vocab_size), device) if options.answers else None

    def decode(batch: Sequence[Sample]) -> list[Prediction]:
        ids = torch.tensor([text.given(sample) for sample in batch], device=device)
        values = last_layers(gather(batch), model.groups).to(device)
        if tree is not None and batch[0].task is Task.QA:
            places = choose_answers(model, values, ids, tree, beams=options.answer_beams)
            texts = [options.answers[place] for place in places]
        else:
            produced = generate(
                model,
                values,
                ids,
                num_beams=options.num_beams,
                max_length=max(options.max_length, ids.shape[1] + SHORTEST_ANSWER),
                sampling=options.sampling,
                names=[sample.id for sample in batch],
            )
            texts = [text.decode(tokens) for tokens in produced]
        return [Prediction(sample.id, words) for sample, words in zip(batch, texts, strict=True)]

    yield from (size or BatchSize(options.batch_size, device)).batches(groups, decode)


@lru_cache(maxsize=1)  # a worker decodes many tasks, with the same answers
def _tree(text: TextFormat, answers: tuple[str, ...], vocabulary: int, device: torch.device) -> AnswerTree:
    return AnswerTree([[*ids.tolist(), text.eos] for ids in text.tokenise(answers)], vocabulary, device)


def length_groups(run: LoadedRun, samples: Sequence[Sample], options: DecodeOptions) -> list[list[Sample]]:
    """The samples that can share a batch together, the shortest first: questions of as many tokens.

    Where answers are chosen from a list, those that have a question are apart from those that are captioned. Of the
    run, the model's shapes suffice.

    Raises:
        UsageError: more is asked for than the language model has positions or tokens for.
    """
    text = run.text
    lengths = {sample.id: len(text.given(sample)) for sample in samples}

    def alike(sample: Sample) -> tuple[int, bool]:
        return lengths[sample.id], bool(options.answers) and sample.task is Task.QA

    groups = [list(group) for _, group in groupby(sorted(samples, key=alike), alike)]
    _require_decodable(run.model, text, groups, options)
    return groups


def _require_decodable(
    model: EpalmModel, text: TextFormat, groups: Sequence[Sequence[Sample]], options: DecodeOptions
) -> None:
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
    longest = [group[0] for group in groups if group[0].task is Task.QA][-1:]
    for answer, ids in zip(options.answers, text.tokenise(options.answers), strict=True) if longest else ():
        if (room := positions - len(text.given(longest[0]))) < len(ids) + 1:
            raise UsageError(
                f"--rank-answers: {answer!r} has {len(ids) + 1:,} tokens with its end, and behind the question of "
                f"{longest[0].id} the language model has {max(0, room):,} positions left",
                hint="take that answer out of the file",
            )


class BatchSize:
    """The most items of a batch on a device: as many as were asked for, or what is found out, and kept.

    Where none were asked for: 64 on a CPU. On a GPU 512, and half as many from each time on that the memory does not
    suffice.
    """

    def __init__(self, asked: int | None, device: torch.device) -> None:
        self._on_gpu, self._fixed = device.type != "cpu", asked is not None
        self._most = asked or (_ON_GPU if self._on_gpu else _ON_CPU)

    def batches(self, groups: Iterable[Sequence[Item]], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What `work` makes of each batch; a batch is of one group. Where the size is halved, that is said.

        Raises:
            EpalmError: the memory does not suffice for as many items as were asked for, or for one.
        """
        for group in groups:
            place, halved = 0, False
            while place < len(group):
                batch = group[place : place + self._most]
                try:
                    result = work(batch)
                except (torch.OutOfMemoryError, RuntimeError) as error:
                    if not isinstance(error, torch.OutOfMemoryError) and not any(one in str(error) for one in _LACK):
                        raise
                    if self._fixed or len(batch) == 1:
                        raise self._too_little(len(batch)) from error
                else:
                    if halved:
                        say(f"the memory holds batches of {self._most:,} samples")
                        halved = False
                    place += len(batch)
                    yield result
                    continue
                # Behind the handler: the error held what the batch had in memory.
                self._most, halved = len(batch) // 2, True
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()

    def _too_little(self, samples: int) -> EpalmError:
        smaller = "--batch-size auto finds how many it holds" if samples > 1 else "--num-beams 1 needs least"
        return EpalmError(
            f"the {'GPU' if self._on_gpu else 'computer'}'s memory does not suffice to decode {samples:,} "
            f"sample{'s' if samples > 1 else ''} at once",
            hint=smaller,
        )
