"""One file's features and a question → an answer or a caption."""

from collections.abc import Sequence

import numpy as np

from epalm.evaluate.decode_options import DecodeOptions
from epalm.evaluate.decoding import decode_batches
from epalm.samples import Modality, Sample, Task
from epalm.train.loading import LoadedRun


class _One:
    """The features of one medium, as a source."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.layers, self.width = values.shape

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return np.stack([self.values] * len(samples))

    def describe(self) -> dict[str, str]:
        return {"source": "one file"}


def answer_one(run: LoadedRun, features: np.ndarray, question: str | None, decode: DecodeOptions) -> str:
    """What the run says about one medium of features (L, D_enc): an answer, or a caption without a question."""
    task = Task.QA if question else Task.CAPTION
    sample = Sample("one", Modality(run.inputs["modality"]), "one", task, "test", prompt=question)
    (batch,) = decode_batches(run.model, run.text, _One(features), [sample], decode)
    return batch[0].text
