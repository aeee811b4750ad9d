"""Runs the trainings of a bench: each extracted, trained and scored by the commands that a user types.

One after the other in this process, or shared out over Dask workers. What a command prints goes to a log. Knows command
lines and the JSON that they print; does not know what is compared.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Outcome(NamedTuple):
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

    def log(self, label: str, suffix: str = "txt") -> Path:
        """What commands printed goes there; of a training its outcome too, as JSON."""
        return self.folder / "logs" / f"{label}.{suffix}"

    def done(self, training: Training) -> Outcome | None:
        """What a training came to earlier; None where it was not trained and scored to the end."""
        with suppress(OSError, ValueError, TypeError):
            return Outcome(**json.loads(self.log(training.label, "json").read_text(encoding="utf-8")))
        return None


def run_trainings(trainings: Sequence[Training], bench: Bench) -> dict[Training, Outcome]:
    """Every training's outcome. What is extracted, trained and scored already says so; what was stopped goes on.

    Raises:
        EpalmError: a command failed; trainings that have not begun are dropped.
    """
    sets: dict[tuple[Modality, tuple[str, ...]], str] = {}
    for one in trainings:
        if not one.in_loop and (one.modality, one.extract) not in sets:
            sets[one.modality, one.extract] = _extract(one, bench)
    tasks = [(one, None if one.in_loop else sets[one.modality, one.extract]) for one in dict.fromkeys(trainings)]
    outcomes: dict[Training, Outcome] = {}
    for (training, _), outcome in _results(tasks, bench):
        outcomes[training] = outcome
        taken = time_in_words(outcome.trained["seconds"])
        say(f"{len(outcomes)} of {len(tasks)} trained and scored: {training.label}, {taken} of training")
    return outcomes


def run_command(words: Sequence[str], log: Path, *, fine: Sequence[int] = (0,)) -> Any:
    """Run an epalm command in this process: what it printed as JSON. Its messages are added to the log.

    Raises:
        EpalmError: it failed.
        KeyboardInterrupt: it was stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    printed, command = io.StringIO(), f"`epalm {' '.join(words)}`"
    with log.open("a", encoding="utf-8") as messages, redirect_stdout(printed), redirect_stderr(messages):
        print("epalm", *words, file=messages)
        try:
            code = _commands()([*words, "--json"], prog_name="epalm", standalone_mode=False) or 0
        except EpalmError as error:
            hint = f"{error.hint}; what it printed is in {log}" if error.hint else f"what it printed is in {log}"
            raise type(error)(f"{command}: {error.message}", hint=hint) from error
    if code == _STOPPED:
        raise KeyboardInterrupt
    if code not in fine:
        raise EpalmError(f"{command} ended with exit code {code}", hint=f"what it printed is in {log}")
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


def _extract(training: Training, bench: Bench) -> str:
    """The feature set of a training; it is in the cache then."""
    label = f"extract-{training.modality}" + (f"-{digest_json(training.extract)[:8]}" if training.extract else "")
    words = ("extract", "--modality", training.modality.value, *_data(bench), "--cache", bench.cache)
    fine = (0, _BAD_MEDIA) if bench.allow_missing else (0,)
    name: str = run_command((*words, *training.extract), bench.log(label), fine=fine)["set_name"]
    return name


def _train_and_score(training: Training, features: str | None, bench: Bench, device: str = "auto") -> Outcome:
    train = ["train", "--modality", training.modality.value, *_data(bench), *training.options]
    train += ["--from-cache", "--feature-set", features] if features else []
    train += ["--recipe", bench.recipe] if bench.recipe else []
    train += ["--run", training.label] if training.name else []
    places = ["--device", device, "--cache", bench.cache, "--runs", str(bench.folder)]
    places += ["--allow-missing", str(bench.allow_missing)] if bench.allow_missing and features else []
    log = bench.log(training.label)
    trained = run_command([*train, *places], log)
    before = bench.done(training)
    if bench.data == PLAYGROUND and before and before.trained["run"] == trained["run"]:
        return before  # its test split never changes; other data are scored again, which decodes nothing twice
    score = ["score", "--run", trained["run"], "--split", bench.split, "--metrics", ",".join(bench.metrics)]
    outcome = Outcome(trained, run_command([*score, *places], log))
    bench.log(training.label, "json").write_text(json.dumps(outcome._asdict()), encoding="utf-8")
    return outcome


def _data(bench: Bench) -> tuple[str, ...]:
    return () if bench.data == PLAYGROUND else ("--data", bench.data)
