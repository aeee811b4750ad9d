"""`epalm score`: stage 3. Decodes a split with a trained run and scores it."""

from dataclasses import asdict
from typing import Any

import typer

from epalm.cli.outputs import file_for_scores
from epalm.cli.tables import Listing, Record, show_listing
from epalm.console import say, warn
from epalm.errors import UsageError
from epalm.evaluate.request import ScoreRequest
from epalm.figures import hundred, interval_in_words, samples_in_words

_SKIPPED = 3  # exit code: a metric that was asked for by name could not run
_OF_RUNS = (  # options
    "run", "feature_set", "batch_size", "checkpoint", "allow_missing", "processes", "engine", "scheduler",
    "dask_workers", "lm", "weights", "device",
)  # fmt: skip


def score(request: ScoreRequest, *, plan: bool = False, listing: Listing) -> None:
    """Decode a split with a trained run and score what it predicts.

    Predictions are saved as they come; the same command goes on where it was stopped, and decodes nothing twice. A
    metric that cannot run here is skipped with the reason; exit code 3 where --metrics asked for it.

    Examples:

        epalm score
        epalm score --run my-run --split val --num-beams 1
        epalm score --sampling --temperature 0.7 --top-p 0.9 --seed 1
        epalm score --rank-answers answers.txt
        epalm score --data vqa.jsonl --limit 1000 --json
        epalm score --data msvd-qa.jsonl --modality video --feature-set NAME
        epalm score --run my-run --processes 4
        epalm score --runs /shared/runs --engine dask --scheduler tcp://HOST:8786
        epalm score --predictions results.json --data vqa.jsonl --split val
        epalm score --data vqa-v2:/data/vqa --submission vqa-v2
        epalm score --split val --submission lm-eval
    """
    if request.predictions is not None:
        from epalm.evaluate.given import score_given

        _require_nothing_to_decode(request, plan)
        path = file_for_scores(request)
        scores = score_given(request, path)
    else:
        if request.out is not None or request.force:
            raise UsageError("--out and --force go with --predictions", hint="a run's scores lie in its folder")
        from epalm.cli.work_plan import show_plan
        from epalm.evaluate.run import estimate_score, execute_score, plan_score
        from epalm.evaluate.score_files import LAST
        from epalm.train.data.features import CachedFeatures

        planned = plan_score(request, dry=plan)
        folder = planned.run.folder.path
        if plan:
            show_plan("score", estimate_score(planned), planned.features, folder, listing.as_json)
            if isinstance(planned.features, CachedFeatures):
                planned.features.require_rows(request.allow_missing)
            return
        path = folder / LAST
        scores = execute_score(planned)
    _show_figures(scores, listing)
    if scores.get("samples_without_features"):
        warn(f"{scores['samples_without_features']} samples have no features and are not scored")
    for note in (note for figures in scores["tasks"].values() for note in figures["notes"]):
        say(note)
    skipped = [one for figures in scores["tasks"].values() for one in figures["skipped"]]
    for reason, hint in dict.fromkeys((one["reason"], one["hint"]) for one in skipped):
        names = ", ".join(one["metric"] for one in skipped if one["reason"] == reason)
        say(f"skipped: {names}: {reason}" + (f"\n  → {hint}" if hint else ""))
    say(f"scores {path}; predictions {scores['predictions']}")
    if request.submission:
        say(f"to hand on: {scores['submission']}")
    if skipped and request.metrics is not None:
        raise typer.Exit(_SKIPPED)


def _require_nothing_to_decode(request: ScoreRequest, plan: bool) -> None:
    """Raises UsageError when an option was given that says how to decode."""
    usual = ScoreRequest()
    given = [name for name in _OF_RUNS if getattr(request, name) != getattr(usual, name)]
    given += [name for name, value in asdict(request.decode).items() if value is not None]
    for name in [*given, "plan"] if plan else given:
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option} does not go with --predictions, which decodes nothing", hint=f"leave {option}")


def _show_figures(scores: dict[str, Any], listing: Listing) -> None:
    rows = []
    for task, part in scores["tasks"].items():
        about = {"run": scores["run"], "task": task, "type": None}
        rows += [
            {**about, "metric": name, **figure, "chance": part["chance"].get(name)}
            for name, figure in part["figures"].items()
        ]
        by_type = part.get("by_answer_type", {})  # question types are many: the file has them
        rows += [{**about, "type": kind, **figure} for kind, figure in by_type.items()]

    def cells(row: Record) -> dict[str, str]:
        return {
            "metric": f"  {row['metric']}, {row['type']}" if row["type"] else f"{row['task']}: {row['metric']}",
            scores["run"]: hundred(row["value"]),
            "95 % interval": interval_in_words(row),
            "chance": hundred(row["chance"]),
            "samples": samples_in_words(row),
        }

    intervals = dict.fromkeys(one["interval"] for one in scores["tasks"].values())
    show_listing(
        rows,
        listing.form,
        title=f"{scores['modality']}, split {scores['split']} of {scores['data']}, values × 100",
        cells=cells,
        empty="no metric was computed" if scores["tasks"] else "no sample has answers or references to score against",
        notes=[f"95 % intervals: {words}" for words in intervals],
        as_json=scores if listing.as_json else None,
    )
