"""A trained model that answers about media: what `epalm.load` gives."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from epalm.console import say
from epalm.datasets.listing import modality_of
from epalm.datasets.text_file import require_characters
from epalm.errors import EpalmError, MediaError, UsageError
from epalm.evaluate.decoding.decode import decode_batches
from epalm.evaluate.decoding.options import DecodeChoice, DecodeOptions, require_questions
from epalm.evaluate.memory_media import as_files, is_many
from epalm.evaluate.request import PredictRequest
from epalm.extract.decoding.workers import DEFAULT_TIMEOUT
from epalm.extract.encoding import decode_pool, encode_each
from epalm.extract.run_encoder import rebuild_encoder
from epalm.samples import Modality, Sample, Task
from epalm.train.runs.loading import load_run
from epalm.train.runs.run_folder import RunFolder

_AT_ONCE = 32  # media that are encoded together


class LoadedModel:
    """A run, or what `epalm export` made of one, with its encoder and language model.

    A medium is a path, the bytes of a file, a `PIL.Image`, a uint8 array of pixels (height, width, 3) or of a clip
    (frames, height, width, 3), or a pair of a float waveform, (samples,) or (samples, channels), and its rate in Hz.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        device: str = "auto",
        workers: int = 0,
        lm: str | None = None,
        weights: str | None = None,
    ) -> None:
        """`workers` processes decode media, each within limits of time and memory; none: this one does, without.

        `lm` and `weights` say where language model and encoder are now, where not as in training.

        Raises:
            UsageError: the run is damaged, or a frozen model is not there or another one by now.
        """
        self.run = load_run(folder, device=device, lm=lm)
        features = self.run.inputs["features"]
        self.modality, self._layers = Modality(self.run.inputs["modality"]), features["layers"]
        self._encoder = rebuild_encoder(features, device, self.run.encoder, weights=weights)
        self.limits = self._encoder.input.limits  # the most that a medium may have
        self._pool = decode_pool(self._encoder, workers, DEFAULT_TIMEOUT)
        self.close = self._pool.close  # ends the processes that decode

    def answer(self, media: Any, question: str | Sequence[str], **decode: Any) -> Any:
        """The answer about a medium, or a list of answers about a list of media, which are decoded together.

        `question` is one for all of them, or one for each. `decode` are fields of `DecodeChoice`: how to decode, where
        not as in the recipe.

        Raises:
            MediaError: a medium cannot be read.
            UsageError: something that is no medium, no question, or no way of decoding.
        """
        count = len(media) if is_many(media) else 1
        questions = [question] * count if isinstance(question, str) else list(question)
        if len(questions) != count or not all(isinstance(one, str) and one.strip() for one in questions):
            fault = f"{count} media, and not as many questions with words"
            raise UsageError(fault, hint="give one question, or one for each medium")
        return self._say(media, questions, decode)

    def caption(self, media: Any, **decode: Any) -> Any:
        """A caption of a medium, or a list of captions of a list of media. Raises as `answer` does."""
        return self._say(media, [None] * (len(media) if is_many(media) else 1), decode)

    def _say(self, media: Any, questions: Sequence[str | None], decode: dict[str, Any]) -> Any:
        known = [field.name for field in fields(DecodeChoice)]
        if unknown := decode.keys() - set(known):
            raise UsageError(f"there is no {min(unknown)!r} in decoding", hint=f"use {', '.join(known)}")
        options = DecodeChoice(**decode).options(self.run.config.decode)
        texts = self.say(media if is_many(media) else [media], questions, options)
        if fault := next((text for text in texts if isinstance(text, MediaError)), None):
            raise fault
        return texts if is_many(media) else texts[0]

    def say(
        self, media: Sequence[Any], questions: Sequence[str | None], decode: DecodeOptions
    ) -> "list[str | MediaError]":
        """Of each medium an answer, or without a question a caption; or why it cannot be read.

        Raises:
            UsageError: something that is no medium, or a question with half a character.
        """
        for asked in {question for question in questions if question}:
            require_characters(asked, "the question")
        rows = [
            row for start in range(0, len(media), _AT_ONCE) for row in self._encode(media[start : start + _AT_ONCE])
        ]
        features = {str(number): row for number, row in enumerate(rows) if not isinstance(row, MediaError)}
        samples = [
            Sample(name, self.modality, "", Task.QA if question else Task.CAPTION, "test", prompt=question)
            for name, question in ((name, questions[int(name)]) for name in features)
        ]
        batches = decode_batches(
            self.run, lambda some: np.stack([features[sample.id] for sample in some]), samples, decode
        )
        texts = {one.id: one.text for batch in batches for one in batch}
        return [row if isinstance(row, MediaError) else texts[str(number)] for number, row in enumerate(rows)]

    def _encode(self, media: Sequence[Any]) -> "list[np.ndarray | MediaError]":
        """Features (L, T, D_enc) of each medium, or why it cannot be read."""
        with as_files(media, self.modality) as named:
            rows = encode_each([file for _, file in named], self._encoder, self._layers, self._pool)
        return [
            MediaError(f"{name}: {row.message}", hint=row.hint) if isinstance(row, MediaError) else row
            for row, (name, _) in zip(rows, named, strict=True)
        ]


def predict(files: Sequence[str], request: PredictRequest) -> "tuple[LoadedModel, list[str | MediaError]]":
    """The model, and what it says about each file, or why that cannot be read.

    Raises:
        UsageError: there is no such run, or an option that it does not permit.
        EpalmError: files of several modalities, or of none that is known.
    """
    named = RunFolder.find(request.runs, request.run) if request.run else None
    folder = named or RunFolder.latest_of(request.runs, request.modality or _modality_of(files))
    model = LoadedModel(folder, device=request.device, lm=request.lm, weights=request.weights)
    say(f"run: {folder.path}, trained on {model.run.inputs['data'] or 'other data'}, {model.run.config.lm.name}")
    decode = request.decode.options(model.run.config.decode)
    require_questions(decode, len(files) if request.question else 0, 0)
    return model, model.say(files, [request.question] * len(files), decode)


def _modality_of(files: Sequence[str]) -> Modality:
    """That of all files, as their names have it. Raises EpalmError: there is none, or they have several."""
    kinds = {modality_of(Path(file)): file for file in files}
    if None in kinds:
        raise UsageError(f"{kinds[None]}: the name does not say what it is", hint="--modality image, video or audio")
    known = [kind for kind in kinds if kind is not None]
    if len(known) > 1:
        raise EpalmError(f"the files are {' and '.join(known)} media", hint="name those of one kind, or a --run")
    return known[0]
