"""Features of some media and a question about each → an answer, or a caption where there is none."""

from collections.abc import Sequence

import numpy as np

from epalm.evaluate.decoding.decode import decode_batches
from epalm.evaluate.decoding.decode_options import DecodeOptions
from epalm.evaluate.decoding.ready_features import ReadyFeatures
from epalm.samples import Modality, Sample, Task
from epalm.train.runs.loading import LoadedRun


def answer_each(
    run: LoadedRun, features: np.ndarray, questions: Sequence[str | None], decode: DecodeOptions
) -> list[str]:
    """What the run says about each of some media, of features (B, L, D_enc)."""
    modality = Modality(run.inputs["modality"])
    samples = [
        Sample(str(number), modality, str(number), Task.QA if one else Task.CAPTION, "test", prompt=one)
        for number, one in enumerate(questions)
    ]
    batches = decode_batches(run.model, run.text, ReadyFeatures(samples, features), samples, decode)
    texts = {said.id: said.text for batch in batches for said in batch}
    return [texts[sample.id] for sample in samples]
