"""METEOR 1.5 by the jar that pycocoevalcap ships: one Java process for all captions.

Source: Denkowski and Lavie, Meteor Universal, WMT 2014. English, normalised: the options of COCO's evaluation.
"""

from pathlib import Path

import numpy as np

from epalm.errors import MetricError
from epalm.evaluate.metrics.java import find_java, run_java
from epalm.evaluate.metrics.metric import Inputs, Metric
from epalm.samples import Task

_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_WEIGHTS = (1, 0.6, 0.8, 0.6)  # of matches that are exact, of stems, synonyms and paraphrases
_CONTENT = 0.75  # how much a content word counts; a function word counts the rest of one
_ALPHA, _BETA, _GAMMA = 0.85, 0.2, 0.6  # tuned for English


class Meteor(Metric):
    """The jar counts, and epalm computes the score of any captions from their counts."""

    name, task, library = "METEOR", Task.CAPTION, "pycocoevalcap"
    summary = "alignment with stems, synonyms and paraphrases"
    needs, beside, chance = "Java", True, False
    counts, priority = "METEOR counts", 2

    def backend(self) -> str:
        """The jar's version, and Java's."""
        return f"METEOR 1.5 of {super().backend()}, {find_java()}"

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """(N, 6): see `aggregate`."""
        from pycocoevalcap.meteor.meteor import METEOR_JAR, __file__

        predictions, references = inputs.tokens()
        asked = [
            " ||| ".join(["SCORE", *references[key], text.replace("|||", "").replace("  ", " ")])
            for key, (text,) in predictions.items()
        ]
        jar = Path(__file__).with_name(METEOR_JAR)
        answers = run_java("METEOR", ["-Xmx2G", "-jar", jar, *_OPTIONS], "".join(f"{line}\n" for line in asked))
        try:
            return meteor_statistics(np.array([line.split() for line in answers.splitlines()], dtype=np.float64))
        except (ValueError, IndexError) as error:
            raise MetricError(f"METEOR gave no counts: {error}", hint="java -version") from error

    def aggregate(self, sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        """Values of sums (R, 6): matched words and length of predictions, both of references, chunks, and words.

        The first four are weighted; the last are the words that matched, the mean of both sides.
        """
        matched, length, matched_wanted, wanted, chunks, words = sums.T
        precision, recall = _ratio(matched, length), _ratio(matched_wanted, wanted)
        mean = _ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
        return np.asarray(mean * (1 - _GAMMA * _ratio(chunks, words) ** _BETA))


def meteor_statistics(counts: np.ndarray) -> np.ndarray:
    """The jar's 23 counts of a caption (N, 23) as statistics that add up (N, 6).

    The jar says the lengths of caption and reference, the function words of both, for each of four kinds of match the
    content words matched in both and the function words matched in both, the chunks, and the words matched in both.
    """
    length, functions, matches = counts[:, :2], counts[:, 2:4], counts[:, 4:20].reshape(-1, 4, 2, 2)
    chunks, words = counts[:, 20], counts[:, 21:]
    weighted = _CONTENT * (length - functions) + (1 - _CONTENT) * functions
    matched = np.einsum("nkws,k,w->ns", matches, _WEIGHTS, [_CONTENT, 1 - _CONTENT])
    perfect = (chunks == 1) & (words == length).all(axis=1)  # whose one chunk is no penalty
    sides = np.stack([matched, weighted], axis=2).reshape(-1, 4)
    statistics = np.column_stack([sides, np.where(perfect, 0, chunks), words.mean(axis=1)])
    return statistics.round(2)  # exactly, but for floating point: all are multiples of 0.05


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, zero where there is nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


METRICS = (Meteor(),)
