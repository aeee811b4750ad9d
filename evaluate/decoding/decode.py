"""Samples → predictions: batches of questions of one length.

Knows the trained model and where features come from; does not know scores.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import torch

from epalm.evaluate.decoding.answer_tree import AnswerTree
from epalm.evaluate.decoding.batch_size import BatchSize, in_batches
from epalm.evaluate.decoding.decodable import require_decodable
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.generation import generate
from epalm.evaluate.decoding.ranking import rank_answers
from epalm.samples import Prediction, Sample, Task
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import last_tokens
from epalm.train.data.features import FeatureSource
from epalm.train.data.text import TextFormat
from epalm.train.data.text_length import SHORTEST_ANSWER


def decode_batches(
    model: EpalmModel,
    text: TextFormat,
    features: FeatureSource,
    samples: Sequence[Sample],
    options: DecodeOptions,
    size: BatchSize | None = None,
) -> Iterator[list[Prediction]]:
    """Predictions batch by batch; a batch holds questions of one length, so nothing is padded.

    What is produced for a sample therefore does not depend on which others it is decoded with. `max_length` counts
    the question's tokens too; a question that leaves fewer than five still gets five for its answer. `size` is given by
    whoever decodes in several calls, and takes what one has found out to the next.

    Raises:
        UsageError: that is more than the language model has positions, or there are more beams than tokens.
        EpalmError: the memory does not suffice.
    """
    device = model.connector.weight.device
    groups = length_groups(text, samples, options)
    require_decodable(model, text, groups, options)
    tree = _tree(text, options.answers, device) if options.answers else None

    def decode(batch: Sequence[Sample]) -> list[Prediction]:
        ids = torch.tensor([text.given(sample) for sample in batch], device=device)
        values = last_tokens(features.gather(batch), model.connector_tokens).to(device)
        if tree is not None and batch[0].task is Task.QA:
            best = rank_answers(model, values, ids, tree).argmax(1).tolist()
            return [Prediction(sample.id, options.answers[place]) for sample, place in zip(batch, best, strict=True)]
        produced = generate(
            model,
            values,
            ids,
            num_beams=options.num_beams,
            max_length=max(options.max_length, ids.shape[1] + SHORTEST_ANSWER),
            sampling=options.sampling,
            names=[sample.id for sample in batch],
        )
        return [Prediction(sample.id, text.decode(answer)) for sample, answer in zip(batch, produced, strict=True)]

    yield from in_batches(groups, decode, size or BatchSize(options.batch_size, device))


def length_groups(text: TextFormat, samples: Sequence[Sample], options: DecodeOptions) -> list[list[Sample]]:
    """The samples that can share a batch together, the shortest first: questions of as many tokens.

    Where answers are ranked, those that have a question are apart from those that are captioned.
    """
    lengths = {sample.id: len(text.given(sample)) for sample in samples}

    def alike(sample: Sample) -> tuple[int, bool]:
        return lengths[sample.id], bool(options.answers) and sample.task is Task.QA

    return [list(group) for _, group in groupby(sorted(samples, key=alike), alike)]


@lru_cache(maxsize=1)  # a process of several decodes many chunks, with the same answers
def _tree(text: TextFormat, answers: tuple[str, ...], device: torch.device) -> AnswerTree:
    return AnswerTree([[*ids.tolist(), text.eos] for ids in text.tokenise(answers)], device)
