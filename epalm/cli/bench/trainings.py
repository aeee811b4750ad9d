"""The trainings of a bench: each extracted, trained and scored as a user would ask for it, here or on Dask workers.

Messages go to one log a training. Knows requests and results; does not know what is compared.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from epalm import DEFAULT_CACHE, DEFAULT_RUNS, PLAYGROUND, api
from epalm.cli.train import until_stopped
from epalm.console import say, time_in_words
from epalm.dask_engine import Cluster, Worker, device_of_worker, run_tasks
from epalm.errors import EpalmError
from epalm.evaluate.request import ScoreRequest
from epalm.extract.request import ExtractRequest
from epalm.fingerprint import canonical_json, digest_json
from epalm.request_fields import option
from epalm.samples import Modality
from epalm.train.request import TrainRequest

if TYPE_CHECKING:
    from epalm.cache.spec import FeatureSpec

# Of every scoring, so that it serves other tables. METEOR alone would take longer to start than to decode.
METRICS = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")


@dataclass(frozen=True)
class BenchRequest:
    """What a bench works on, and where. Fields without a text of their own are options that several commands share."""

    data: str = PLAYGROUND
    follow_links: bool = False
    modalities: list[Modality] | None = option(
        "Those of a grid's media to work on; may be given several times. [default: all]",
        None,
        name="modality",
        short="-m",
    )
    recipe: str | None = None  # [that of the data]
    weights: list[str] | None = option(
        "Hub name or folder for one kind of encoder; may be given several times. "
        "[default: the playground's there, else the published ones]",
        None,
        metavar="ENCODER=WEIGHTS",
    )
    settings: list[str] | None = None
    split: str = option("Split to decode and score.", "test")
    allow_missing: int = option("Go on without up to this many media.", 0, minimum=0)
    report: Path | None = option("Write the tables as one HTML file too, with graphics.", None, writable=True)
    force: bool = False
    cache: str = DEFAULT_CACHE
    runs: Path = Path(DEFAULT_RUNS)  # takes runs and logs
    processes: int = option("Trainings at a time on this machine.", 1, minimum=1, maximum=256, panel="Machine")
    dask: str | None = option(
        "Train on the workers of the Dask scheduler at this tcp://HOST:PORT; cache, runs and data lie where all of "
        "them reach them.",
        None,
        panel="Machine",
    )


@dataclass(frozen=True)
class Training:
    """One training: what is extracted for it, and the options of the training, which takes its features from there.

    Trainings of equal features and equal `decides` (the resolved settings) are one, whatever they are called.
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


class Stored(NamedTuple):
    """A feature set that trainings share: its name, and the bytes that the cache holds of it, or will get."""

    name: str
    there: int
    new: int


def extractions(trainings: Iterable[Training]) -> list[ExtractRequest]:
    """What is extracted for them, each once: all tokens first, which serve who reads some of them."""
    each = dict.fromkeys(one.extract for one in trainings if not one.in_loop)
    return sorted(each, key=lambda one: one.tokens != "all")


def plan_sets(trainings: Iterable[Training]) -> dict[ExtractRequest, Stored]:
    """The feature set that each extraction comes to, of those that are there or that an earlier one will make."""
    from epalm.extract.plan import plan

    planned, sets = list["FeatureSpec"](), dict[ExtractRequest, Stored]()
    for request in extractions(trainings):
        one = plan(request, dry=True)
        shared = next((spec for spec in planned if spec.serves(one.spec)), None)
        there = sum(record.bytes for record in one.existing.records()) if one.existing else 0
        planned.append(shared or one.spec)
        same = next((made for made in sets.values() if made.name == planned[-1].name), None)
        sets[request] = same or Stored(one.spec.name, there, one.bytes)
    return sets


def earlier_outcome(training: Training, metrics: Iterable[str], bench: BenchRequest) -> Outcome | None:
    """What a training came to earlier; None where it was not trained, or not scored on this split by these metrics."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        outcome = Outcome(**json.loads(_log(bench, training.label, "json").read_text(encoding="utf-8")))
        return outcome if outcome.scores["split"] == bench.split and not _lacking(outcome.scores, metrics) else None
    return None


def _lacking(scores: Mapping[str, Any], metrics: Iterable[str]) -> list[str]:
    """Those of the metrics that have no figure."""
    there = {name for part in scores["tasks"].values() for name in part["figures"]}
    return [name for name in metrics if name not in there]


def run_trainings(trainings: Mapping[Training, Sequence[str]], bench: BenchRequest) -> dict[Training, Outcome]:
    """The outcome of each training, with a figure by each of its metrics.

    What is extracted, trained and scored already says so; what was stopped goes on.

    Raises:
        EpalmError: one failed, media are bad, or a metric was skipped; trainings that have not begun are dropped.
    """
    sets = {}
    for request in extractions(trainings):
        with logged(bench, f"extract-{request.modality}-{digest_json(asdict(request))[:8]}"):
            summary = api.extract(request)
            if summary.bad > bench.allow_missing:
                raise EpalmError(f"{summary.bad} media are bad", hint=f"look into {summary.ledger}, or --allow-missing")
        sets[request] = summary.set_name
    tasks = [_Task(one, None if one.in_loop else sets[one.extract], metrics) for one, metrics in trainings.items()]
    outcomes: dict[Training, Outcome] = {}
    for (training, *_), outcome in _results(tasks, bench):
        outcomes[training] = outcome
        taken = time_in_words(outcome.trained["seconds"])
        say(f"{len(outcomes)} of {len(tasks)} trained and scored: {training.label}, {taken} of training")
    return outcomes


@contextmanager
def logged(bench: BenchRequest, label: str) -> Iterator[None]:
    """Add this process's messages to a log; faults name it."""
    log = _log(bench, label)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stderr(file):
        try:
            yield
        except EpalmError as error:
            hint = "; ".join([*filter(None, [error.hint]), f"more is in {log}"])
            raise type(error)(f"{label}: {error.message}", hint=hint) from error


def _log(bench: BenchRequest, label: str, suffix: str = "txt") -> Path:
    return bench.runs / "logs" / f"{label}.{suffix}"


class _Task(NamedTuple):
    training: Training
    features: str | None  # the feature set that it takes
    metrics: Sequence[str]


def _results(tasks: Sequence[_Task], bench: BenchRequest) -> Iterator[tuple[_Task, Outcome]]:
    if bench.processes == 1 and bench.dask is None:
        yield from ((task, _train_and_score(task, bench)) for task in tasks)
        return
    cluster = Cluster(bench.dask, min(bench.processes, len(tasks)))
    yield from run_tasks(cluster, _Trainer, bench, iter(tasks), _died)


class _Trainer(Worker[_Task, Outcome]):
    """In a worker process, which shares cores and GPUs with the others of its machine."""

    def __init__(self, bench: BenchRequest, number: int | None) -> None:
        self._bench, self._device = bench, device_of_worker("auto", number)

    def run(self, task: _Task, threads: int) -> Outcome:
        """Train and score."""
        import torch

        torch.set_num_threads(threads)
        return _train_and_score(task, self._bench, self._device)


def _died(task: _Task) -> EpalmError:
    what = f"the workers that train {task.training.label} die again and again"
    return EpalmError(what, hint="it may need more memory than there is: try fewer --processes")


def _train_and_score(task: _Task, bench: BenchRequest, device: str = "auto") -> Outcome:
    training, features, metrics = task
    places: dict[str, Any] = {"device": device, "cache": bench.cache, "runs": bench.runs}
    places["allow_missing"] = bench.allow_missing if features else 0
    with logged(bench, training.label):
        request = replace(training.request, from_cache=bool(features), feature_set=features, **places)
        trained, _ = until_stopped(lambda stop: api.train(request, stop=stop))
        if trained is None:
            raise KeyboardInterrupt
        before = earlier_outcome(training, metrics, bench)
        if bench.data == PLAYGROUND and before and before.trained["run"] == trained["run"]:
            return before  # its samples never change; other data are scored again, which decodes nothing twice
        wanted = ",".join(dict.fromkeys([*METRICS, *metrics]))
        scores = api.score(ScoreRequest(run=trained["run"], split=bench.split, metrics=wanted, **places))
        for name in _lacking(scores, metrics):
            skipped = {one["metric"]: one for part in scores["tasks"].values() for one in part["skipped"]}
            why = skipped.get(
                name, {"reason": f"no sample of split {bench.split!r} is one that it scores", "hint": None}
            )
            raise EpalmError(f"{name}, a measure of the grid, is not there: {why['reason']}", hint=why["hint"])
    outcome = Outcome(trained, scores)
    _log(bench, training.label, "json").write_bytes(canonical_json(outcome._asdict()))
    return outcome
