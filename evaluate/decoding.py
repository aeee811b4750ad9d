"""Samples → predictions: batches of questions of one length, saved as they come.

Knows the trained model and where features come from; does not know scores.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from epalm.cache.durable import take_lock
from epalm.console import progress
from epalm.errors import EpalmError
from epalm.evaluate.answer_tree import AnswerTree
from epalm.evaluate.batch_size import BatchSize, in_batches
from epalm.evaluate.decodable import SHORTEST_ANSWER, require_decodable
from epalm.evaluate.decode_options import DecodeOptions
from epalm.evaluate.generation import generate
from epalm.evaluate.ranking import rank_answers
from epalm.samples import Prediction, Sample, Task
from epalm.train.batches import last_tokens
from epalm.train.features import FeatureSource
from epalm.train.model import EpalmModel
from epalm.train.run_folder import require_room, writing
from epalm.train.text import TextFormat

_LEAST = 100  # bytes that a prediction takes at least, written


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


def predict_samples(
    samples: Sequence[Sample], path: Path, decode: Callable[[Sequence[Sample]], Iterator[list[Prediction]]]
) -> list[Prediction]:
    """Predictions of all samples: those that `path` holds are kept, the others are decoded and appended to it.

    Raises:
        EpalmError: they cannot be written, there is too little room, or another process is writing them.
    """
    wanted = {sample.id: sample for sample in samples}
    require_room(path.parent, _LEAST * len(wanted.keys() - {one.id for one in read_predictions(path)}))
    with _alone(path):
        done = {one.id: one for one in read_predictions(path) if one.id in wanted}
        missing = [sample for sample in samples if sample.id not in done]
        if missing:
            _cut_torn_line(path)
            with progress("score", len(missing), "samples") as advance:
                for batch in decode(missing):
                    done |= {prediction.id: prediction for prediction in batch}
                    _append(path, b"".join(prediction_line(one, wanted[one.id]) for one in batch))
                    advance(len(batch))
    return [done[sample.id] for sample in samples]


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a JSONL file; empty and torn lines are passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value: Any = json.loads(line)
            found.append(Prediction(str(value["id"]), str(value["text"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def prediction_line(prediction: Prediction, sample: Sample) -> bytes:
    """A prediction as its file holds it: beside the text, what was asked and what was expected."""
    expected = {"answers": dict(sample.answers)} if sample.answers else {"references": list(sample.references)}
    value = {"id": prediction.id, "text": prediction.text, "media": sample.media, "prompt": sample.prompt, **expected}
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from decoding into the same file, for as long as this one lives."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not take_lock(descriptor):
            raise EpalmError(f"another process is decoding into {path}", hint="wait until it has ended")
        yield
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    """Take away what a kill has left of a line at the end."""
    with writing(path.parent):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _append(path: Path, lines: bytes) -> None:
    with writing(path.parent), path.open("ab") as file:
        file.write(lines)
