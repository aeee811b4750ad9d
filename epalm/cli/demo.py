"""`epalm demo`: extract, train and score on the playground, all three modalities, then one table and the reports.

Runs the commands that a user types, two trainings at a time, and adds nothing to them.
"""

import json
import sys
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epalm import PLAYGROUND
from epalm.cli.bench.trainings import BenchRequest, Outcome, Training, logged, run_trainings
from epalm.cli.options import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.cli.tables import Format, Record, show_listing
from epalm.console import say
from epalm.extract.request import ExtractRequest
from epalm.figures import hundred, samples_in_words
from epalm.samples import HEADLINE, Modality
from epalm.train.request import RecipeChanges, TrainRequest

_SIDES = ("perception", "blind")
_COLUMNS = (*_SIDES, "chance")
_SHOWN = 60  # samples with their media in each report


def demo(cache: str = DEFAULT_CACHE, runs: Path = DEFAULT_RUNS, as_json: bool = False) -> None:
    """Extract, train and score on the playground: image, video and audio, in minutes on two cores.

    Ends with QA accuracy and caption CIDEr of each modality, beside *blind* (the same training with the perceptual
    token withheld) and *chance* (the training split's most common answers and caption), and with one page for each
    modality that shows samples with their answers.

    Examples:

        epalm demo
        epalm demo --runs /tmp/runs --json
    """
    from dask.system import cpu_count

    from epalm.cli.evaluate.report import report
    from epalm.train.runs.run_folder import RunFolder

    started = time.monotonic()
    folder = runs / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    say("data: the playground, a small built-in world; all messages are in " + str(folder / "logs"))
    bench = BenchRequest(cache=cache, runs=folder, processes=min(2, cpu_count()))
    trainings = {
        (modality, side): Training(
            ExtractRequest(modality, cache=cache),
            TrainRequest(modality=modality, changes=RecipeChanges(blind=side == "blind"), run=f"{modality}-{side}"),
            decides=side,
        )
        for side in _SIDES
        for modality in Modality
    }
    _show_first_answer(bench, started)
    done = run_trainings(dict.fromkeys(trainings.values(), tuple(HEADLINE.values())), bench)
    outcomes = {key: done[training] for key, training in trainings.items()}
    rows = [row for modality in Modality for row in _rows(modality, [outcomes[modality, side] for side in _SIDES])]
    (folder / "demo.json").write_text(json.dumps(rows, indent=2) + "\n")
    RunFolder(folder / trainings[Modality.IMAGE, "perception"].label).make_latest()
    pages = []
    for modality in Modality:
        pages.append(folder / f"report-{modality}.html")
        names = [trainings[modality, side].label for side in _SIDES]
        with logged(bench, f"report-{modality}"), redirect_stdout(sys.stderr):
            report(names, samples=_SHOWN, out=pages[-1], runs=folder)
    title, form = "playground, test split, values × 100", Format.JSON if as_json else Format.TABLE
    show_listing(rows, form, title=title, cells=_cells, empty="")
    say("look at " + ", ".join(str(page) for page in pages))
    say(f"{time.monotonic() - started:.0f} s; runs, scores and logs are in {folder}")


def _show_first_answer(bench: BenchRequest, started: float) -> None:
    """One question about one picture, answered after a quarter of the steps, so that there is something to see."""
    from epalm import api
    from epalm.datasets import load_dataset
    from epalm.samples import Task

    steps = 100
    changes = RecipeChanges(settings=[f"optim.max_steps={steps}", f"eval.every_steps={steps}", "eval.val_samples=50"])
    with logged(bench, "first"):
        features = api.extract(ExtractRequest(Modality.IMAGE, cache=bench.cache)).set_name
        places: Any = {"cache": bench.cache, "runs": bench.runs, "run": "first"}
        api.train(TrainRequest(from_cache=True, feature_set=features, changes=changes, **places))
    data = load_dataset(PLAYGROUND, Modality.IMAGE)
    sample = next(one for one in data.split("test") if one.task is Task.QA)
    picture = data.locate(sample.media).path
    answer = api.load(bench.runs / "first").answer(picture, sample.prompt or "")
    say(f"first answer, after {steps} training steps and {time.monotonic() - started:.0f} s, about {picture}:")
    say(f"  {sample.prompt} → {answer} (right: {', '.join(sample.answers)})")


def _cells(row: Record) -> dict[str, str]:
    figures = {column: hundred(row[column], ".1f") for column in _COLUMNS}
    return {name: row[name] for name in ("modality", "task", "measure")} | figures | {"samples": row["samples"]}


def _rows(modality: Modality, sides: list[Outcome]) -> list[dict[str, Any]]:
    rows = []
    for task, measure in HEADLINE.items():
        scores = [side.scores["tasks"][task] for side in sides]
        values = (*(one["metrics"][measure] for one in scores), scores[0]["chance"][measure])
        samples = samples_in_words(scores[0]["figures"][measure])
        row = {"modality": modality.value, "task": task, "measure": measure, **dict(zip(_COLUMNS, values, strict=True))}
        rows.append(row | {"samples": samples, "split": "test", "data": PLAYGROUND})
    return rows
