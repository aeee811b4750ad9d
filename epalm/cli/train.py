"""`epalm train`: stage 2. Takes a request, and prints what came of it."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from epalm.cli.options import JsonOption, PlanOption
from epalm.cli.request_options import takes_requests
from epalm.cli.stopping import asked_to_stop
from epalm.console import say
from epalm.train.request import TrainRequest

if TYPE_CHECKING:
    from epalm.train.lm.processes import Processes

Result = TypeVar("Result")


@takes_requests
def train(*, request: TrainRequest, plan: PlanOption = False, as_json: JsonOption = False) -> None:
    """Train connector, soft prompt and adapters against the frozen language model.

    With --from-cache, on the features of the latest extraction: nothing is decoded or encoded. A medium without
    features stops the training before it begins, unless --allow-missing says how many are acceptable.

    A run is named by everything that decides it. The same command again goes on where it was stopped or killed, and
    says so where it is done already; when something has changed, it says what, and begins another run.

    Examples:

        epalm train --from-cache

        epalm train --from-cache --modality video --variant epalm-ada --inject 2@0:2

        epalm train --from-cache --data vqa.jsonl --recipe vqa-v2 --set lm.name=facebook/opt-350m

        epalm train --modality image --set optim.max_steps=20
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost process is one message of ours
    from epalm.train.lm.processes import joined

    with joined(request.device) as (processes, device):
        code = _train(request, processes, device, plan=plan, as_json=as_json)
    if code:
        raise typer.Exit(code)


def _train(request: TrainRequest, processes: "Processes", device: str, *, plan: bool, as_json: bool) -> int:
    """The exit code of the command in this process; the first one alone prints."""
    from epalm import api
    from epalm.cli.work_plan import show_plan
    from epalm.train.data.features import CachedFeatures
    from epalm.train.plan import plan_training

    if plan:
        setup = api.set_up_training(request, processes, device, planning=True)
        features, counted = setup.resolved.material.features, plan_training(setup)
        if processes.first:
            show_plan("train", asdict(counted), features, request.runs, as_json)
        if isinstance(features, CachedFeatures):
            features.require_rows(request.allow_missing)
        return 0
    summary, code = until_stopped(lambda stop: api.train(request, processes, device, stop))
    if summary is not None and processes.first:
        _show(summary, as_json)
    return code


def until_stopped(work: Callable[[Callable[[], bool]], Result | None]) -> tuple[Result | None, int]:
    """What `work` comes to, and 0; after Ctrl-C or SIGTERM, None and the exit code that shells give these."""
    with asked_to_stop(lambda: say("stopping after this step; once more stops at once")) as asked:
        try:
            result = work(asked)
        except KeyboardInterrupt:
            say("stopped; the run keeps its last checkpoint, and the same command goes on from there")
            return None, asked.exit_code
    return result, 0 if result is not None else asked.exit_code


def _show(summary: Mapping[str, Any], as_json: bool) -> None:
    """What a training did, and what comes next."""
    if as_json:
        typer.echo(json.dumps(summary))
    share = summary["trainable_parameters"] / summary["all_parameters"]
    exact = ""
    if summary["val_exact"] is not None:
        exact = f", validation loss {summary['val_loss']:.3f} nats, exact {summary['val_exact']:.3f}"
        exact += f" ({summary['val_samples']:,} of {summary['val_of']:,} samples)" if "val_of" in summary else ""
    say(
        f"{summary['steps']} steps in {summary['seconds']:.1f} s; {summary['trainable_parameters']:,} trained "
        f"parameters, {share:.2%} of all{exact}"
    )
    say(f"run {summary['run']}; next: epalm score")
