"""What a metric is, what it is given, and what it gives: sufficient statistics of samples, and the value of their sums.

N: samples; M: statistics of a sample; R: sums, of one corpus each (a bootstrap aggregates many at once).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Lock
from typing import Any

import numpy as np

from epalm.errors import MetricError
from epalm.evaluate.metrics.java import Tokens, tokenise
from epalm.samples import Sample, Task

# Sums (R, M), counts (R,) → values (R,), or (R, S) of runs of S seeds: the value is their mean.
Aggregate = Callable[[np.ndarray, np.ndarray | int], np.ndarray]


class Metric:
    """One metric: a subclass says what it is, and defines `score`; or `statistics`, and `aggregate`, if no mean."""

    name: str
    task: Task  # whose samples it scores
    summary: str = ""  # what it is, in one line
    samples: str = ""  # which samples `select` takes, in words
    highest: float = 1.0  # its range begins at 0
    higher_is_better: bool = True
    needs: str = ""  # beside Python packages
    library: str = "epalm"  # the distribution that computes it
    counts: str = ""  # what a sample's line calls its statistics; "" where these are a score
    per_sample: bool = True  # whether a sample alone has a score
    priority: int = 0  # the metric with the highest stands for a sample, where a single score is shown
    chance: bool = True  # whether guesses are scored as well
    other_form_of: str = ""  # the metric beside which it is shown, where it gives another value
    beside: bool = False  # whether a process of its own computes it, while Python computes others

    def select(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """The samples that it scores, of those of its task. Raises MetricError: none, and a user should know why."""
        return samples

    def score(self, prediction: str, sample: Sample) -> float:
        """The score of one prediction, where it depends on nothing else."""
        raise NotImplementedError

    def statistics(self, inputs: "Inputs") -> np.ndarray | Sequence[float]:
        """A score of each sample (N,), or its statistics (N, M). Raises MetricError: it cannot be computed here."""
        return [self.score(text, sample) for sample, text in zip(inputs.samples, inputs.texts, strict=True)]

    def aggregate(self, sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        """Values (R,) of sums of statistics (R, M) over so many samples: here, means."""
        mean: np.ndarray = sums[:, 0] / counts
        return mean

    def backend(self) -> str:
        """What computes it, with its version."""
        return f"{self.library} {version(self.library)}"

    def notes(self, samples: Sequence[Sample], shown: Sequence[str]) -> list[str]:
        """What a reader should know of it, of all scored samples of the task, where metrics `shown` have values."""
        return []


@dataclass(frozen=True)
class Measured:
    """Sufficient statistics (N, M) of samples, and what makes values of their sums."""

    statistics: np.ndarray
    aggregate: Aggregate

    @property
    def value(self) -> float:
        """The value of the corpus."""
        return float(self.by_seed.mean())

    @property
    def by_seed(self) -> np.ndarray:
        """The value of each run: (S,)."""
        return np.atleast_1d(self.aggregate(self.statistics.sum(axis=0)[None], len(self.statistics))[0])

    @property
    def per_sample(self) -> np.ndarray:
        """The value of each sample alone: (N,)."""
        return self.aggregate(self.statistics, 1)


def over_seeds(runs: Sequence[Measured]) -> Measured:
    """Runs of S seeds on the same samples in the same order as one: statistics (N, S · M), its value is their mean."""
    width = runs[0].statistics.shape[1]

    def each(sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        parts = (sums[:, start : start + width] for start in range(0, width * len(runs), width))
        return np.stack([one.aggregate(part, counts) for one, part in zip(runs, parts, strict=True)], axis=1)

    return Measured(np.concatenate([one.statistics for one in runs], axis=1), each)


def change(first: Measured, second: Measured) -> Measured:
    """`second - first`, both of the same samples in the same order, and of as many seeds, which are paired."""
    width = first.statistics.shape[1]

    def aggregate(sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
        return second.aggregate(sums[:, width:], counts) - first.aggregate(sums[:, :width], counts)

    return Measured(np.concatenate([first.statistics, second.statistics], axis=1), aggregate)


@dataclass(frozen=True)
class Inputs:
    """What metrics are given: samples, the text predicted for each, and the text guessed for each, if any.

    What several metrics need is computed once, by the first that asks for it.
    """

    samples: Sequence[Sample]
    texts: Sequence[str]
    guesses: Sequence[str] = ()
    predicted: "Inputs | None" = None  # of guesses: the predictions that they stand beside
    _made: dict[str, "Future[Any]"] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    def guessed(self) -> "Inputs":
        """The guesses, as if they were predictions."""
        return Inputs(self.samples, self.guesses, predicted=self)

    def tokens(self) -> tuple[Tokens, Tokens]:
        """Captions and their references after PTB tokenisation, by the samples' ids. Raises MetricError."""
        whole = self.predicted or self

        def make() -> dict[str, Tokens]:
            sentences: dict[str, Sequence[str]] = {f"r{one.id}": one.references for one in whole.samples}
            for kind, texts in (("p", whole.texts), ("g", whole.guesses)):
                sentences |= {f"{kind}{one.id}": [text] for one, text in zip(whole.samples, texts, strict=False)}
            split = tokenise(sentences)  # all at once: Java starts once
            return {kind: {key[1:]: some for key, some in split.items() if key[0] == kind} for kind in "rpg"}

        tokens: dict[str, Tokens] = whole._once("tokens", make)
        return tokens["g" if self.predicted else "p"], tokens["r"]

    def statistics(self, metric: Metric) -> np.ndarray:
        """What the metric gives: (N, M). Raises MetricError, also where it gave no numbers."""

        def make() -> np.ndarray:
            given = np.asarray(metric.statistics(self), dtype=np.float64)
            given = given[:, None] if given.ndim == 1 else given
            if given.ndim != 2 or len(given) != len(self.samples):
                raise MetricError(f"{metric.name} gave an array of shape {given.shape} for {len(self.samples)} samples")
            if bad := int((~np.isfinite(given)).any(axis=1).sum()):
                raise MetricError(f"{metric.name} gave no number for {bad} of {len(given)} samples")
            return given

        checked: np.ndarray = self._once(metric.counts or metric.name, make)
        return checked

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, or raises, called at most once for a key, whatever thread asks."""
        with self._lock:
            first = key not in self._made
            made = self._made.setdefault(key, Future())
        if first:
            try:
                made.set_result(make())
            except BaseException as error:
                made.set_exception(error)
        return made.result()


def measure(inputs: Inputs, metrics: Sequence[Metric]) -> tuple[dict[str, Measured], dict[str, MetricError]]:
    """The metrics' statistics of all samples, by name; and the reasons why others cannot be computed here."""
    measured: dict[str, Measured] = {}
    skipped: dict[str, MetricError] = {}
    with ThreadPoolExecutor(1, "metrics") as executor:
        for metric in metrics:
            if metric.beside:
                executor.submit(inputs.statistics, metric)
        for metric in sorted(metrics, key=lambda one: one.beside):  # whose results the others need not wait for
            try:
                measured[metric.name] = Measured(inputs.statistics(metric), metric.aggregate)
            except MetricError as error:
                skipped[metric.name] = error
    return {one.name: measured[one.name] for one in metrics if one.name in measured}, skipped
