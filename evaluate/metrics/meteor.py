"""METEOR 1.5 by the jar that pycocoevalcap ships: one JVM for all captions.

Source: Denkowski and Lavie, Meteor Universal, WMT 2014. English, normalised: the options of COCO's evaluation.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import numpy as np

from epalm.evaluate.metrics.java import MetricError, find_java, last_line
from epalm.evaluate.metrics.tokenizer import Tokens

_OPTIONS = ("-", "-", "-stdio", "-l", "en", "-norm")
_BETWEEN = " ||| "
_AT_ONCE = 32  # captions asked about before an answer is read: their answers, 200 bytes each, fit into any pipe
_WEIGHTS = np.array([1, 0.6, 0.8, 0.6])  # of matches that are exact, of stems, synonyms and paraphrases
_CONTENT = 0.75  # how much a content word counts; a function word counts the rest of one


def meteor(predictions: Tokens, references: Tokens) -> tuple[float, np.ndarray]:
    """The corpus' score, and the columns (N, 6) that it is made of, in the order of `predictions`.

    Raises:
        MetricError: there is no Java that works, or METEOR failed in it.
    """
    from pycocoevalcap.meteor.meteor import METEOR_JAR, __file__

    java, jar = find_java(), Path(__file__).with_name(METEOR_JAR)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [java.path, "-Xmx2G", "-jar", jar, *_OPTIONS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise MetricError(f"METEOR cannot run with {java}: {error}", hint="java -version") from error
        with process:
            said = _Conversation(process)
            try:
                lines = [_line(predictions[key][0], references[key]) for key in predictions]
                some = (lines[at : at + _AT_ONCE] for at in range(0, len(lines), _AT_ONCE))
                counts = [count for asked in some for count in said.ask(asked, len(asked))]
                score = float(said.ask([_BETWEEN.join(["EVAL", *counts])], len(counts) + 1)[-1])
                columns = meteor_columns(np.array([count.split() for count in counts], dtype=np.float64))
            except (OSError, ValueError) as error:
                errors.seek(0)
                told = last_line(errors.read().decode(errors="replace"))
                raise MetricError(f"METEOR failed in {java}: {told}", hint="java -version") from error
            finally:
                process.kill()
                with suppress(OSError):  # what it did not read any more
                    said.close()
    return score, columns


def meteor_columns(counts: np.ndarray) -> np.ndarray:
    """The jar's 23 counts of a caption, as `measures.meteor_of_sums` adds them up.

    The jar says the lengths of caption and reference, the function words of both, for each of four kinds of match the
    content words matched in both and the function words matched in both, the chunks, and the words matched in both.
    """
    length, functions, matches = counts[:, :2], counts[:, 2:4], counts[:, 4:20].reshape(-1, 4, 2, 2)
    chunks, words = counts[:, 20], counts[:, 21:]
    weighted = _CONTENT * (length - functions) + (1 - _CONTENT) * functions
    matched = np.einsum("nkws,k,w->ns", matches, _WEIGHTS, [_CONTENT, 1 - _CONTENT])
    perfect = (chunks == 1) & (words == length).all(axis=1)  # whose one chunk is no penalty
    sides = np.stack([matched, weighted], axis=2).reshape(-1, 4)
    columns = np.column_stack([sides, np.where(perfect, 0, chunks), words.mean(axis=1)])
    return columns.round(2)  # exactly, but for floating point: all are multiples of 0.05


class _Conversation:
    """Lines asked, lines answered. Raises ValueError when the other side has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._asked, self._answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)

    def close(self) -> None:
        self._asked.close()

    def ask(self, lines: Sequence[str], count: int) -> list[str]:
        self._asked.write("".join(line + "\n" for line in lines).encode())
        self._asked.flush()
        answers = [self._answers.readline().decode() for _ in range(count)]
        if not all(answers):
            raise ValueError("it ended")
        return [answer.strip() for answer in answers]


def _line(said: str, references: Sequence[str]) -> str:
    return _BETWEEN.join(["SCORE", *references, said.replace("|||", "").replace("  ", " ")])
