"""ROUGE-L and CIDEr by pycocoevalcap's scorers.

CIDEr's n-grams are made where they are read: all of them at once fill the memory. This is the variant that the metric's
authors call CIDEr-D: clipped counts, and a Gaussian penalty on the length. Source: Vedantam et al., CIDEr, CVPR 2015.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from epalm.evaluate.metrics.metric import Inputs, Metric
from epalm.samples import Task


class Rouge(Metric):
    """Source: Lin, ROUGE, 2004."""

    name, task, library = "ROUGE-L", Task.CAPTION, "pycocoevalcap"
    summary = "longest common subsequence, F-measure"
    priority, chance = 1, False

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """Each caption's score (N,)."""
        from pycocoevalcap.rouge.rouge import Rouge as Scorer

        predictions, references = inputs.tokens()
        scores: np.ndarray = Scorer().compute_score(references, predictions)[1]
        return scores


class Cider(Metric):
    """A mean over captions, with the n-grams' weights of all references."""

    name, task, library = "CIDEr", Task.CAPTION, "pycocoevalcap"
    summary = "n-grams weighted by how rare they are; its authors call this variant CIDEr-D"
    highest, priority = 10.0, 3

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """Each caption's score (N,), 0 to 10."""
        from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_refs, cook_test

        predictions, references = inputs.tokens()
        scorer = CiderScorer()
        scorer.crefs = _Cooked(cook_refs, [references[key] for key in predictions])
        scorer.ctest = _Cooked(lambda texts: cook_test(texts[0]), predictions.values())
        scorer.document_frequency = _Frequencies(scorer.crefs)
        return np.array(scorer.compute_cider())


class _Cooked:
    """The n-grams of some samples' texts, made anew at each pass."""

    def __init__(self, cook: Callable[[list[str]], Any], texts: Collection[list[str]]) -> None:
        self._cook, self._texts = cook, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Any]:
        return map(self._cook, self._texts)


class _Frequencies:
    """N-gram, known by its 64-bit hash → how many samples have it in their references; 1 is as good as none."""

    def __init__(self, references: _Cooked) -> None:
        each = ({hash(ngram) for counts in texts for ngram in counts} for texts in references)
        hashes, samples = np.unique(np.concatenate([np.fromiter(some, np.int64) for some in each]), return_counts=True)
        shared = samples > 1
        self._samples: dict[int, int] = dict(zip(hashes[shared].tolist(), samples[shared].tolist(), strict=True))

    def __getitem__(self, ngram: tuple[str, ...]) -> int:
        return self._samples.get(hash(ngram), 1)


METRICS = (Rouge(), Cider())
