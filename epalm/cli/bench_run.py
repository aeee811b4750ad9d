"""Runs the trainings of a bench: each extracted, trained and scored as a user would ask for it.

One after the other in this process, or shared out over Dask workers. Messages go to a log. Knows requests and results;
does not know what is compared.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from epalm import DEFAULT_CACHE, api
from epalm.cli.train import until_stopped
from epalm.console import say, time_in_words
from epalm.errors import EpalmError
from epalm.evaluate.request import ScoreRequest
from epalm.extract.request import ExtractRequest
from epalm.fingerprint import canonical_json, digest_json
from epalm.train.request import TrainRequest

PLAYGROUND = "playground"
METRICS = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")  # of every table: a training may be in several


@dataclass(frozen=True)
class Training:
    """One training: what is extracted for it, and the options of the training, which takes its features from there.

    Trainings of equal features and equal `decides` are one, whatever they are called and however they say it.
    `in_loop`: the encoder runs in the training loop, and the cache is not used.
    """

    extract: ExtractRequest
    request: TrainRequest = field(compare=False)
    decides: str
    in_loop: bool = False

    @property
    def label(self) -> str:
        """Name of its log."""
        decides = [asdict(self.extract), self.decides, self.in_loop]
        return self.request.run or f"{self.extract.modality}-{digest_json(decides)[:8]}"


class Outcome(NamedTuple):
    """What a training and a scoring say in JSON."""

    trained: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where trainings work, on which split they are scored, and by how many at a time.

    `folder` takes runs and logs. `processes` of this machine, or the workers of the `dask` scheduler, train side by
    side.
    """

    folder: Path
    cache: str = DEFAULT_CACHE
    data: str = PLAYGROUND
    recipe: str = PLAYGROUND
    metrics: tuple[str, ...] = METRICS
    split: str = "test"
    allow_missing: int = 0
    processes: int = 1
    dask: str | None = None

    def log(self, label: str, suffix: str = "txt") -> Path:
        """Where messages go; of a training its outcome too, as JSON."""
        return self.folder / "logs" / f"{label}.{suffix}"

    def done(self, training: Training) -> Outcome | None:
        """What a training came to earlier; None where it was not trained and scored to the end."""
        with suppress(OSError, ValueError, TypeError):
            return Outcome(**json.loads(self.log(training.label, "json").read_text(encoding="utf-8")))
        return None


def run_trainings(trainings: Sequence[Training], bench: Bench) -> dict[Training, Outcome]:
    """Every training's outcome. What is extracted, trained and scored already says so; what was stopped goes on.

    Raises:
        EpalmError: one failed, or media are bad; trainings that have not begun are dropped.
    """
    each = list(dict.fromkeys(trainings))
    sets = {}
    for request in dict.fromkeys(one.extract for one in each if not one.in_loop):
        with logged(bench.log(f"extract-{request.modality}-{digest_json(asdict(request))[:8]}")):
            summary = api.extract(request)
            if summary.bad > bench.allow_missing:
                raise EpalmError(f"{summary.bad} media are bad", hint=f"look into {summary.ledger}, or --allow-missing")
        sets[request] = summary.set_name
    tasks = [(one, None if one.in_loop else sets[one.extract]) for one in each]
    outcomes: dict[Training, Outcome] = {}
    for (training, _), outcome in _results(tasks, bench):
        outcomes[training] = outcome
        taken = time_in_words(outcome.trained["seconds"])
        say(f"{len(outcomes)} of {len(tasks)} trained and scored: {training.label}, {taken} of training")
    return outcomes


@contextmanager
def logged(log: Path) -> Iterator[None]:
    """Add this process's messages to a log; faults name it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stderr(file):
        try:
            yield
        except EpalmError as error:
            hint = "; ".join([*filter(None, [error.hint]), f"more is in {log}"])
            raise type(error)(f"{log.stem}: {error.message}", hint=hint) from error


_Task = tuple[Training, str | None]  # with the feature set that it takes


def _results(tasks: Sequence[_Task], bench: Bench) -> Iterator[tuple[_Task, Outcome]]:
    if bench.processes == 1 and bench.dask is None:
        yield from ((task, _train_and_score(*task, bench)) for task in tasks)
        return
    from epalm.dask_cluster import Cluster
    from epalm.dask_engine import run_tasks

    cluster = Cluster(bench.dask, min(bench.processes, len(tasks)))
    yield from run_tasks(cluster, _Trainer, bench, iter(tasks), _died)


class _Trainer:
    """In a worker process, which shares cores and GPUs with the others of its machine."""

    def __init__(self, bench: Bench, number: int | None) -> None:
        from epalm.devices import device_of_worker

        self._bench, self._device = bench, device_of_worker("auto", number)

    def run(self, task: _Task, threads: int) -> Outcome:
        """Train and score."""
        import torch

        torch.set_num_threads(threads)
        return _train_and_score(*task, self._bench, self._device)

    def close(self) -> None:
        """Nothing is open."""


def _died(task: _Task) -> EpalmError:
    what = f"the workers that train {task[0].label} die again and again"
    return EpalmError(what, hint="it may need more memory than there is: try fewer --processes")


def _train_and_score(training: Training, features: str | None, bench: Bench, device: str = "auto") -> Outcome:
    places: dict[str, Any] = {"device": device, "cache": bench.cache, "runs": bench.folder}
    places["allow_missing"] = bench.allow_missing if features else 0
    with logged(bench.log(training.label)):
        request = replace(training.request, from_cache=bool(features), feature_set=features, **places)
        trained, _ = until_stopped(lambda stop: api.train(request, stop=stop))
        if trained is None:
            raise KeyboardInterrupt
        before = bench.done(training)
        if bench.data == PLAYGROUND and before and before.trained["run"] == trained["run"]:
            return before  # its test split never changes; other data are scored again, which decodes nothing twice
        metrics = ",".join(bench.metrics)
        scores = api.score(ScoreRequest(run=trained["run"], split=bench.split, metrics=metrics, **places))
    outcome = Outcome(trained, scores)
    bench.log(training.label, "json").write_bytes(canonical_json(outcome._asdict()))
    return outcome
