"""Samples → predictions: batches of questions of one length.

Knows the trained model and where features come from; does not know scores.

Letters: B samples, L layers, D_enc encoder width.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, TypeVar

import torch

from epalm.console import say
from epalm.errors import EpalmError, UsageError
from epalm.evaluate.decoding.generate import AnswerTree, choose_answers, generate
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.samples import Prediction, Sample, Task
from epalm.train.data.batches import last_layers
from epalm.train.data.features import CachedFeatures, FeatureSource, Gather
from epalm.train.data.text import SHORTEST_ANSWER, TextFormat
from epalm.train.loop import LACKS_MEMORY
from epalm.train.runs.loading import LoadedRun

_ON_GPU, _ON_CPU = 512, 64  # of a batch whose size is found out: to begin with; more are not faster on a CPU

Result = TypeVar("Result")


def decode_batches(
    run: LoadedRun, gather: Gather, samples: Sequence[Sample], options: DecodeOptions, size: "BatchSize | None" = None
) -> Generator[list[Prediction]]:
    """Predictions batch by batch; a batch holds questions of one length, so nothing is padded.

    What is produced for a sample therefore does not depend on which others it is decoded with. `max_length` counts the
    question's tokens too; a question that leaves fewer than five still gets five for its answer. `size` is given by
    whoever decodes in several calls, and takes what one has found out to the next. `gather` gives the features (B, L,
    D_enc) of some samples. Raises UsageError: see `length_groups`; EpalmError: the memory does not suffice.
    """
    model, text, device = run.model, run.text, run.model.device
    tree = _tree(text, options.answers, int(model.lm.config.vocab_size), device) if options.answers else None

    def decode(batch: Sequence[Sample]) -> list[Prediction]:
        ids = torch.tensor([text.given(sample) for sample in batch], device=device)
        values = last_layers(gather(batch), model.layers).to(device)
        if tree is not None and batch[0].task is Task.QA:
            places = choose_answers(model, values, ids, tree, beams=options.answer_beams)
            texts = [options.answers[place] for place in places]
        else:
            produced = generate(
                model,
                values,
                ids,
                eos=text.eos,
                num_beams=options.num_beams,
                max_length=max(options.max_length, ids.shape[1] + SHORTEST_ANSWER),
                sampling=options.sampling,
                names=[sample.id for sample in batch],
            )
            texts = [text.decode(tokens) for tokens in produced]
        return [Prediction(sample.id, words) for sample, words in zip(batch, texts, strict=True)]

    groups = length_groups(run, samples, options)
    yield from (size or BatchSize(options.batch_size, device)).batches(groups, decode)


def decode_samples(
    run: LoadedRun, features: FeatureSource, samples: Sequence[Sample], options: DecodeOptions
) -> Generator[list[Prediction]]:
    """The same of samples whose features come from a source, as it has them at hand."""
    size = BatchSize(options.batch_size, run.model.device)
    for part, gather in in_parts(features, samples):
        yield from decode_batches(run, gather, part, options, size)


def in_parts(features: FeatureSource, samples: Sequence[Sample]) -> Iterable[tuple[Sequence[Sample], Gather]]:
    """The samples in parts, each with what gathers its features: see `CachedFeatures.in_blocks`."""
    return features.in_blocks(samples) if isinstance(features, CachedFeatures) else [(samples, features.gather)]


@lru_cache(maxsize=1)  # a worker decodes many tasks, with the same answers
def _tree(text: TextFormat, answers: tuple[str, ...], vocabulary: int, device: torch.device) -> AnswerTree:
    return AnswerTree(
        [[*ids.tolist(), text.eos] for ids in text.targets([(True, answer) for answer in answers])], vocabulary, device
    )


def length_groups(run: LoadedRun, samples: Sequence[Sample], options: DecodeOptions) -> list[list[Sample]]:
    """The samples that can share a batch together, the shortest first: questions of as many tokens.

    Where answers are chosen from a list, those that have a question are apart from those that are captioned. Of the
    run, the model's shapes suffice. Raises UsageError: more is asked for than the language model has positions or
    tokens for.
    """
    text, config = run.text, run.model.lm.config

    def alike(sample: Sample) -> tuple[int, bool]:
        return len(text.given(sample)), bool(options.answers) and sample.task is Task.QA

    groups = [list(group) for _, group in groupby(sorted(samples, key=alike), alike)]
    positions, beams = run.model.lm.text_positions, 0 if options.sampling else options.num_beams
    needs = [
        (f"--max-length {options.max_length}", options.max_length, positions, "positions"),
        (f"--num-beams {options.num_beams}", 2 * beams, config.vocab_size, "tokens"),
    ]
    if groups:
        longest = groups[-1][0]
        answers = text.targets([(True, answer) for answer in options.answers])
        ends = [(len(ids) + 1, f" {answer!r}") for answer, ids in zip(options.answers, answers, strict=True)]
        end, answer = max(ends, default=(SHORTEST_ANSWER, ""))
        what = f"the question of {longest.id} with an answer{answer}"
        needs.append((what, len(text.given(longest)) + end, positions, "positions"))
    for what, needed, there, of_what in needs:
        if needed > there:
            fault = f"{what} takes {needed:,} {of_what}, and the language model has {there:,}"
            raise UsageError(fault, hint="ask for less, or take what is too long out of the data or answers")
    return groups


class BatchSize:
    """The most items of a batch on a device: as many as were asked for, or what is found out, and kept.

    Where none were asked for: 64 on a CPU. On a GPU 512, and half as many from each time on that the memory does not
    suffice.
    """

    def __init__(self, asked: int | None, device: torch.device) -> None:
        self._fixed, self._most = asked is not None, asked or (_ON_CPU if device.type == "cpu" else _ON_GPU)

    def batches(self, groups: Iterable[Sequence[Any]], work: Callable[[Sequence[Any]], Result]) -> Iterator[Result]:
        """What `work` makes of each batch; a batch is of one group. Where the size is halved, that is said.

        Raises EpalmError: the memory does not suffice for as many items as were asked for, or for one.
        """
        for group in groups:
            place = 0
            while place < len(group):
                batch = group[place : place + self._most]
                try:
                    yield work(batch)
                    place += len(batch)
                    continue
                except RuntimeError as error:
                    if not any(words in str(error) for words in LACKS_MEMORY):
                        raise
                    if self._fixed or len(batch) == 1:
                        raise EpalmError(
                            f"the memory does not suffice to decode {len(batch):,} samples at once",
                            hint="--batch-size auto finds how many it holds, --num-beams 1 needs least",
                        ) from error
                # Behind the handler: the error held what the batch had in memory.
                self._most = len(batch) // 2
                say(f"the memory does not hold {len(batch):,} samples: from here batches of {self._most:,} samples")
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
