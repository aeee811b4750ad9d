"""A trained model that answers about media: what `epalm.load` gives.

Media may be files, or what Python code has in memory: pictures, pixels, waveforms and bytes become files that the
decoders read, so that they are decoded as files of them would be; nothing is lost on the way.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image, ImageOps

from epalm.console import say
from epalm.datasets.listing import modality_of
from epalm.datasets.text_file import require_characters
from epalm.errors import EpalmError, MediaError, UsageError
from epalm.evaluate.decoding.decode import decode_batches
from epalm.evaluate.decoding.options import DecodeChoice, DecodeOptions, require_questions
from epalm.evaluate.request import PredictRequest
from epalm.extract.decoding.workers import DecodePool
from epalm.extract.live import rebuild_encoder
from epalm.extract.media.audio import MAX_CHANNELS
from epalm.extract.stream import encode_each
from epalm.media import MediaFile
from epalm.samples import Modality, Sample, Task
from epalm.train.runs.loading import load_run
from epalm.train.runs.run_folder import RunFolder

_AT_ONCE = 32  # media that are encoded together
# `Any` stands for a path, bytes, a picture, pixels, or (waveform, rate).
_FORMS = {
    Modality.IMAGE: "a path, bytes, a PIL.Image, or a uint8 array (height, width, 3)",
    Modality.VIDEO: "a path, bytes, or a uint8 array (frames, height, width, 3)",
    Modality.AUDIO: "a path, bytes, or (waveform, rate): a float array (samples,) or (samples, channels), rate in Hz",
}
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F")


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

        `lm` and `weights` say where language model and encoder are now, where not as in training. Raises UsageError:
        the run is damaged, or a frozen model is not there or another one by now.
        """
        self.run = load_run(folder, device=device, lm=lm)
        features = self.run.inputs["features"]
        self.modality, self._layers = Modality(self.run.inputs["modality"]), features["layers"]
        self._encoder = rebuild_encoder(features, device, self.run.encoder, weights=weights)
        read = self._encoder.input
        self.limits = read.limits  # the most that a medium may have
        self._pool = DecodePool(read, workers, memory_limit=read.limits.memory)
        self.close = self._pool.close  # ends the processes that decode

    def answer(self, media: Any, question: str | Sequence[str] | None, **decode: Any) -> Any:
        """The answer about a medium, or a list of answers about a list of media, which are decoded together.

        `question` is one for all of them, or one for each; None: they are captioned. `decode` are fields of
        `DecodeChoice`: how to decode, where not as in the recipe.

        Raises:
            MediaError: a medium cannot be read.
            UsageError: something that is no medium, no question, or no way of decoding.
        """
        is_waveform = isinstance(media, tuple) and bool(media) and isinstance(media[0], np.ndarray)
        many = isinstance(media, list | tuple) and not is_waveform
        some = media if many else [media]
        questions = [question] * len(some) if question is None or isinstance(question, str) else list(question)
        fits = question is None or all(isinstance(one, str) and one.strip() for one in questions)
        if len(questions) != len(some) or not fits:
            fault = f"{len(some)} media, and not as many questions with words"
            raise UsageError(fault, hint="give one question, or one for each medium")
        texts = self.say(some, questions, DecodeChoice(**decode).options(self.run.config.decode))
        for text in texts:
            if isinstance(text, MediaError):
                raise text
        return texts if many else texts[0]

    def caption(self, media: Any, **decode: Any) -> Any:
        """A caption of a medium, or a list of captions of a list of media. Raises as `answer` does."""
        return self.answer(media, None, **decode)

    def say(
        self, media: Sequence[Any], questions: Sequence[str | None], decode: DecodeOptions
    ) -> "list[str | MediaError]":
        """Of each medium an answer, or without a question a caption; or why it cannot be read.

        Raises UsageError: something that is no medium, or a question with half a character.
        """
        for question in filter(None, questions):
            require_characters(question, "the question")
        starts = range(0, len(media), _AT_ONCE)
        rows = [row for start in starts for row in self._encode(media[start : start + _AT_ONCE])]
        features = {str(number): row for number, row in enumerate(rows) if not isinstance(row, MediaError)}
        asked = [(name, questions[int(name)]) for name in features]
        samples = [
            Sample(name, self.modality, "", Task.QA if question else Task.CAPTION, "test", prompt=question)
            for name, question in asked
        ]
        batches = decode_batches(self.run, lambda some: np.stack([features[one.id] for one in some]), samples, decode)
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
    kinds = {modality_of(Path(file)): file for file in files}
    if request.run:
        folder = RunFolder.find(request.runs, request.run)
    elif request.modality is None and None in kinds:
        raise UsageError(f"{kinds[None]}: the name does not say what it is", hint="--modality image, video or audio")
    elif request.modality is None and len(kinds) > 1:
        raise EpalmError(f"the files are {' and '.join(map(str, kinds))} media", hint="name one kind, or a --run")
    else:
        folder = RunFolder.find(request.runs, modality=request.modality or next(iter(kinds)))
    model = LoadedModel(folder, device=request.device, lm=request.lm, weights=request.weights)
    say(f"run: {folder.path}, trained on {model.run.inputs['data'] or 'other data'}, {model.run.config.lm.name}")
    decode = request.decode.options(model.run.config.decode)
    require_questions(decode, len(files) if request.question else 0, 0)
    return model, model.say(files, [request.question] * len(files), decode)


@contextmanager
def as_files(media: Sequence[Any], modality: Modality) -> Iterator[list[tuple[str, MediaFile]]]:
    """The media as files, while the block runs, each with what to call it in a message.

    Raises UsageError: a value that is no medium of that modality; MediaError: a picture that Pillow cannot load.
    """
    with tempfile.TemporaryDirectory(prefix="epalm-media-") as folder:
        yield [_as_file(one, Path(folder) / str(number), modality) for number, one in enumerate(media)]


def _as_file(medium: Any, draft: Path, modality: Modality) -> tuple[str, MediaFile]:
    if isinstance(medium, str | Path):
        return str(medium), MediaFile(Path(medium))
    name, is_array = f"medium {draft.name}", isinstance(medium, np.ndarray)
    pixels = is_array and medium.dtype == np.uint8 and medium.shape[-1:] == (3,) and medium.size > 0
    if isinstance(medium, bytes):
        draft.write_bytes(medium)
    elif modality is Modality.IMAGE and isinstance(medium, Image.Image):
        _write_picture(medium, draft, name)
    elif modality is Modality.IMAGE and pixels and medium.ndim == 3:
        Image.fromarray(np.ascontiguousarray(medium)).save(draft, "PNG", compress_level=1)
    elif modality is Modality.VIDEO and pixels and medium.ndim == 4:
        _write_clip(medium, draft)
    elif modality is Modality.AUDIO and _is_sound(medium):
        waveform, rate = medium
        kept, subtype = (np.float64, "DOUBLE") if waveform.dtype.itemsize > 4 else (np.float32, "FLOAT")
        soundfile.write(draft, waveform.astype(kept), int(rate), format="WAV", subtype=subtype)
    else:
        given = " and ".join(
            f"a {one.dtype} array {one.shape}" if isinstance(one, np.ndarray) else f"{one!r:.60}"
            for one in (medium if isinstance(medium, tuple) else (medium,))
        )
        raise UsageError(f"{name} is {given}, and this model takes {modality} media", hint=f"give {_FORMS[modality]}")
    return name, MediaFile(draft)


def _is_sound(medium: Any) -> bool:
    if not (isinstance(medium, tuple) and len(medium) == 2 and isinstance(medium[0], np.ndarray)):
        return False
    waveform, rate = medium
    fits = waveform.ndim in (1, 2) and waveform.dtype.kind == "f" and waveform.size > 0
    return bool(fits and waveform.shape[1:] <= (MAX_CHANNELS,) and isinstance(rate, int | np.integer) and rate > 0)


def _write_picture(picture: Image.Image, draft: Path, name: str) -> None:
    try:
        shown = ImageOps.exif_transpose(picture)
        if shown.mode not in (*_PNG_MODES, *_TIFF_MODES):
            shown = shown.convert("RGBA" if shown.mode in ("RGBa", "La", "PA") else "RGB")
        shown.info = {key: shown.info[key] for key in ("transparency",) if key in shown.info}
        shown.save(draft, "TIFF" if shown.mode in _TIFF_MODES else "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise MediaError(f"{name}: the picture cannot be loaded: {error}", hint="open it anew") from error


def _write_clip(pixels: np.ndarray, draft: Path) -> None:
    with av.open(str(draft), "w", format="mov") as container:
        stream = container.add_stream("png", rate=Fraction(25))
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
