"""A trained model in Python: what `epalm.load` gives."""

from pathlib import Path

from epalm.cli.decode_options import chosen_decoding
from epalm.cli.live_source import rebuild_encoder
from epalm.errors import MediaError
from epalm.evaluate.decode_options import DecodeOptions
from epalm.evaluate.one import answer_one
from epalm.extract.limits import Limits
from epalm.extract.media_file import require_file
from epalm.extract.pipeline import encode_files
from epalm.extract.stream import decode_pool
from epalm.extract.workers import DEFAULT_TIMEOUT
from epalm.media import MediaFile
from epalm.train.loading import load_run
from epalm.train.run_folder import RunFolder


class LoadedModel:
    """A run, or what `epalm export` made of one, with its encoder and language model."""

    def __init__(self, folder: RunFolder, *, device: str = "auto", workers: int = 0) -> None:
        """`workers` processes decode media, each within limits of time and memory; none: this one does, without.

        Raises:
            UsageError: the run is damaged, or a frozen model is not there or another one by now.
        """
        self.run = load_run(folder, device=device)
        self._told = self.run.inputs["features"]
        self._encoder = rebuild_encoder(self._told, device, self.run.encoder)
        self._pool = decode_pool(self._encoder, workers, DEFAULT_TIMEOUT)

    @property
    def limits(self) -> Limits:
        """The most that a medium may have."""
        return self._encoder.input.limits

    def close(self) -> None:
        """End the processes that decode."""
        self._pool.close()

    def answer(self, file: str | Path, question: str, decode: DecodeOptions | None = None) -> str:
        """The answer to a question about an image, video or sound; decoded as the recipe says, or as `decode` does.

        Raises:
            MediaError: the file cannot be read.
        """
        return self._say(Path(file), question, decode)

    def caption(self, file: str | Path, decode: DecodeOptions | None = None) -> str:
        """A caption of an image, video or sound, decoded as `answer` does. Raises MediaError: it cannot be read."""
        return self._say(Path(file), None, decode)

    def _say(self, file: Path, question: str | None, decode: DecodeOptions | None) -> str:
        medium = MediaFile(file)
        try:
            require_file(medium)
            features = encode_files([medium], self._encoder, self._told["layers"], self._pool)[0]
        except MediaError as error:
            raise MediaError(f"{file}: {error.message}", hint=error.hint) from error
        return answer_one(self.run, features, question, decode or chosen_decoding(self.run.config.decode))
