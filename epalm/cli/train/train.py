"""`epalm train`: stage 2. Takes a request, and prints what came of it."""

import json
import os
from collections.abc import Mapping
from typing import Any

import typer

from epalm.cli.options import JsonOption, PlanOption
from epalm.cli.request_options import takes_requests
from epalm.cli.train.stopping import until_stopped
from epalm.console import say
from epalm.train.request import TrainRequest


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
    from epalm import api
    from epalm.cli.work_plan import show_plan
    from epalm.train.data.features import CachedFeatures
    from epalm.train.lm.processes import joined
    from epalm.train.run import plan as plan_training

    with joined(request.device) as (processes, device):
        if plan:
            setup = api.set_up_training(request, processes, device, planning=True)
            features, planned = setup.material.features, plan_training(setup)
            if processes.first:
                show_plan("train", planned, features, request.runs, as_json)
            if isinstance(features, CachedFeatures):
                features.require_rows(request.allow_missing)
            return
        summary, code = until_stopped(lambda stop: api.train(request, processes, device, stop))
        if summary is not None and processes.first:
            _show(summary, as_json)
    if code:
        raise typer.Exit(code)


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
