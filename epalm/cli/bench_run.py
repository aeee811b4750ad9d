"""Runs the trainings of a bench: each extracted, trained and scored by the commands that a user types.

One after the other in this process, or shared out over a Dask cluster. What a command prints goes to a log. Knows
command lines and the JSON that they print; does not know what is compared.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.console import say, time_in_words
from epalm.errors import EpalmError
from epalm.fingerprint import digest_json
from epalm.samples import Modality

if TYPE_CHECKING:
    from typer import Typer

PLAYGROUND = "playground"
_STOPPED, _BAD_MEDIA = 130, 3  # exit codes: after Ctrl-C, and of an extraction with bad media


@dataclass(frozen=True)
class Training:
    """One training: options of `epalm extract`, and of `epalm train`.

    Trainings whose features and `decides` are equal are one, whatever they are called and however they say it.
    `in_loop`: the encoder runs in the training loop, and the cache is not used.
    """

    modality: Modality
    extract: tuple[str, ...]
    options: tuple[str, ...] = field(compare=False)
    decides: str
    in_loop: bool = False
    name: str | None = field(default=None, compare=False)  # of its run [by time, found again by all that decides it]

    @property
    def label(self) -> str:
        """Name of its log."""
        return f"{self.modality}-{self.name or digest_json([self.extract, self.decides, self.in_loop])[:8]}"


@dataclass(frozen=True)
class Outcome:
    """What `epalm train --json` and `epalm score --json` printed."""

    trained: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where and on what trainings work; `folder` takes runs and logs, `metrics` are scored.

    `processes` of this machine, or the workers of the `dask` scheduler, train side by side.
    """

    cache: str
    folder: Path
    metrics: tuple[str, ...]
    data: str = PLAYGROUND
    recipe: str | None = None
    split: str = "test"
    allow_missing: int = 0
    processes: int = 1
    dask: str | None = None

    def done(self, training: Training) -> Outcome | None:
        """What a training came to earlier; None where it was not trained and scored to the end."""
        try:
            said = json.loads(self.outcome_path(training).read_text(encoding="utf-8"))
            return Outcome(said["trained"], said["scores"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def outcome_path(self, training: Training) -> Path:
        """Where the outcome of a training is kept."""
        return self.folder / "logs" / f"{training.label}.json"


def run_trainings(trainings: Sequence[Training], bench: Bench) -> dict[Training, Outcome]:
    """Every training's outcome. What is extracted, trained and scored already says so; what was stopped goes on.

    Raises:
        EpalmError: a command failed; trainings that have not begun are dropped.
    """
    sets: dict[tuple[Modality, tuple[str, ...]], str] = {}
    for one in trainings:
        key = (one.modality, one.extract)
        if not one.in_loop and key not in sets:
            sets[key] = _extract(one, bench)
    jobs = [_Job(one, None if one.in_loop else sets[one.modality, one.extract]) for one in dict.fromkeys(trainings)]
    outcomes: dict[Training, Outcome] = {}
    for job, outcome in _results(jobs, bench):
        outcomes[job.training] = outcome
        taken = time_in_words(outcome.trained["seconds"])
        say(f"{len(outcomes)} of {len(jobs)} trained and scored: {job.training.label}, {taken} of training")
    return {one: outcomes[one] for one in dict.fromkeys(trainings)}


def run_command(words: Sequence[str], log: Path, *, fine: Sequence[int] = (0,)) -> Any:
    """Run an epalm command in this process: what it printed as JSON. Its messages are added to the log.

    Raises:
        EpalmError: it failed.
        KeyboardInterrupt: it was stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    printed = io.StringIO()
    with log.open("a", encoding="utf-8") as messages, redirect_stdout(printed), redirect_stderr(messages):
        print("epalm", *words, file=messages)
        try:
            code = _commands()([*words, "--json"], prog_name="epalm", standalone_mode=False) or 0
        except EpalmError as error:
            raise type(error)(
                f"`epalm {' '.join(words)}`: {error.message}",
                hint=f"{error.hint or 'mend it'}; what it printed is in {log}",
            ) from error
    if code == _STOPPED:
        raise KeyboardInterrupt
    if code not in fine:
        raise EpalmError(f"`epalm {' '.join(words)}` ended with exit code {code}", hint=f"what it printed is in {log}")
    return json.loads(printed.getvalue())


@lru_cache
def _commands() -> "Typer":
    """Those that a bench runs."""
    from typer import Typer

    from epalm.cli.extract import extract
    from epalm.cli.report import report
    from epalm.cli.score import score
    from epalm.cli.train import train

    app = Typer()
    for command in (extract, train, score, report):
        app.command()(command)
    return app


@dataclass(frozen=True)
class _Job:
    """A training on its way to a worker, with the feature set that it takes."""

    training: Training
    features: str | None


def _results(jobs: Sequence[_Job], bench: Bench) -> Iterator[tuple[_Job, Outcome]]:
    if bench.processes == 1 and bench.dask is None:
        yield from ((job, _train_and_score(job, bench)) for job in jobs)
        return
    from epalm.dask_cluster import Cluster
    from epalm.dask_engine import run_tasks

    cluster = Cluster(bench.dask, min(bench.processes, len(jobs)))
    yield from run_tasks(cluster, _Trainer, bench, iter(jobs), _died)


class _Trainer:
    """In a worker process, which shares cores and GPUs with the others of its machine."""

    def __init__(self, bench: Bench, number: int | None) -> None:
        from epalm.devices import device_of_worker

        self._bench, self._device = bench, device_of_worker("auto", number)

    def run(self, job: _Job, threads: int) -> Outcome:
        """Train and score."""
        import torch

        torch.set_num_threads(threads)
        return _train_and_score(job, self._bench, self._device)

    def close(self) -> None:
        """Nothing is open."""


def _died(job: _Job) -> EpalmError:
    return EpalmError(
        f"the workers that train {job.training.label} die again and again",
        hint="it may need more memory than there is: try fewer --processes",
    )


def _extract(training: Training, bench: Bench) -> str:
    """The feature set of a training; it is in the cache then."""
    label = f"extract-{training.modality}" + (f"-{digest_json(training.extract)[:8]}" if training.extract else "")
    words = ("extract", "--modality", training.modality.value, *_data(bench), "--cache", bench.cache)
    fine = (0, _BAD_MEDIA) if bench.allow_missing else (0,)
    name: str = run_command((*words, *training.extract), _log(bench, label), fine=fine)["set_name"]
    return name


def _train_and_score(job: _Job, bench: Bench, device: str = "auto") -> Outcome:
    training = job.training
    source = ("--from-cache", "--feature-set", job.features) if job.features else ()
    missing = ("--allow-missing", str(bench.allow_missing)) if bench.allow_missing and job.features else ()
    recipe = ("--recipe", bench.recipe) if bench.recipe else ()
    named = ("--run", training.label) if training.name else ()
    places = (*missing, "--device", device, "--cache", bench.cache, "--runs", str(bench.folder))
    log, path = _log(bench, training.label), bench.outcome_path(training)
    train = ("train", *source, "--modality", training.modality.value, *_data(bench), *recipe, *named)
    trained = run_command((*train, *training.options, *places), log)
    before = bench.done(training)
    if bench.data == PLAYGROUND and before and before.trained["run"] == trained["run"]:
        return before  # its test split never changes; other data are scored again, which decodes nothing twice
    metrics = ("--metrics", ",".join(bench.metrics))
    scores = run_command(("score", "--run", trained["run"], "--split", bench.split, *metrics, *places), log)
    path.write_text(json.dumps({"trained": trained, "scores": scores}), encoding="utf-8")
    return Outcome(trained, scores)


def _data(bench: Bench) -> tuple[str, ...]:
    return () if bench.data == PLAYGROUND else ("--data", bench.data)


def _log(bench: Bench, label: str) -> Path:
    return bench.folder / "logs" / f"{label}.txt"
