"""`epalm score`: stage 3. Decodes a split with a trained run and scores it."""

from dataclasses import fields

import typer

from epalm.cli.options import JsonOption, PlanOption
from epalm.cli.outputs import file_for_scores
from epalm.cli.request_options import takes_requests
from epalm.cli.score_report import show_scores
from epalm.errors import UsageError
from epalm.evaluate.metrics.registry import choose_metrics
from epalm.evaluate.request import ScoreRequest
from epalm.samples import with_links

_STOPPED = 130
_OF_RUNS = ("run", "feature_set", "processes", "engine", "scheduler", "lm", "weights")  # options


@takes_requests
def score(request: ScoreRequest, *, plan: PlanOption = False, as_json: JsonOption = False) -> None:
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
    """
    if request.predictions is not None:
        _score_file(request, plan, as_json)
        return
    if request.out is not None or request.force:
        raise UsageError("--out and --force go with --predictions", hint="a run's scores lie in its folder")

    from epalm.cli.work_plan import show_score_plan
    from epalm.console import say
    from epalm.evaluate.run import estimate_score, execute_score, plan_score
    from epalm.evaluate.score_files import LAST
    from epalm.train.data.features import CachedFeatures

    planned = plan_score(request, dry=plan)
    folder = planned.run.folder.path
    if plan:
        show_score_plan(estimate_score(planned), planned.features, folder, as_json)
        if isinstance(planned.features, CachedFeatures):
            planned.features.require_rows(request.allow_missing)
        return
    try:
        scores = execute_score(planned)
    except KeyboardInterrupt:
        say("stopped; the predictions so far are saved, the same command goes on")
        raise typer.Exit(_STOPPED) from None
    show_scores(scores, folder / LAST, as_json, asked_for=request.metrics is not None)


def _score_file(request: ScoreRequest, plan: bool, as_json: bool) -> None:
    """Raises UsageError when an option was given that says how to decode."""
    from epalm.evaluate.score_given import score_given

    usual = ScoreRequest()
    given = [name for name in _OF_RUNS if getattr(request, name) != getattr(usual, name)]
    given += ["plan"] if plan else []
    given += [field.name for field in fields(request.decode) if getattr(request.decode, field.name) is not None]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} does not go with --predictions, which decodes nothing", hint=f"leave {option}")
    assert request.predictions is not None
    data = request.data and with_links(request.data, follow=request.follow_links)
    path = file_for_scores(request.predictions, data, request.out, request.force)
    scores = score_given(
        request.predictions,
        path,
        data=data,
        modality=request.modality,
        split=request.split,
        limit=request.limit,
        metrics=choose_metrics(request.metrics),
    )
    show_scores(scores, path, as_json, asked_for=request.metrics is not None)
