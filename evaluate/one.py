"""One file's features and a question → an answer or a caption."""

import numpy as np

from epalm.evaluate.decode_options import DecodeOptions
from epalm.evaluate.decoding import decode_batches
from epalm.evaluate.ready_features import ReadyFeatures
from epalm.samples import Modality, Sample, Task
from epalm.train.loading import LoadedRun


def answer_one(run: LoadedRun, features: np.ndarray, question: str | None, decode: DecodeOptions) -> str:
    """What the run says about one medium of features (L, D_enc): an answer, or a caption without a question."""
    task = Task.QA if question else Task.CAPTION
    sample = Sample("one", Modality(run.inputs["modality"]), "one", task, "test", prompt=question)
    (batch,) = decode_batches(run.model, run.text, ReadyFeatures([sample], features[None]), [sample], decode)
    return batch[0].text
