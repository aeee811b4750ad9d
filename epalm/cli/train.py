"""`epalm train`, stage 2, which a signal stops; `epalm recipes`, what it goes by."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from epalm.cli.runs import validation_in_words
from epalm.cli.tables import Listing, Record, show_listing
from epalm.console import say
from epalm.train.request import RecipeChanges, TrainRequest

Result = TypeVar("Result")


def train(*, request: TrainRequest, plan: bool = False, as_json: bool = False) -> None:
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
    validation = validation_in_words(summary)
    say(
        f"{summary['steps']} steps in {summary['seconds']:.1f} s; {summary['trainable_parameters']:,} trained "
        f"parameters, {share:.2%} of all{f'; validation: {validation}' if validation else ''}"
    )
    say(f"run {summary['run']}; next: epalm score")


def until_stopped(work: Callable[[Callable[[], bool]], Result | None]) -> tuple[Result | None, int]:
    """What `work` comes to, and 0; after Ctrl-C or SIGTERM, None and the exit code that shells give these: 130, 143."""
    with asked_to_stop(lambda: say("stopping after this step; once more stops at once")) as signals:
        try:
            result = work(lambda: bool(signals))
        except KeyboardInterrupt:
            say("stopped; the run keeps its last checkpoint, and the same command goes on from there")
            result = None
    return result, 0 if result is not None else 128 + (signals or [signal.SIGINT])[0]


@contextmanager
def asked_to_stop(first: Callable[[], None]) -> Iterator[list[int]]:
    """Signals only ask while the block runs; their numbers. `first` is called for the first one.

    In a thread that is not the main one, which alone may take signals, nobody asks.

    Raises:
        KeyboardInterrupt: at the second one, out of whatever runs then.
    """
    signals: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        first()

    taken = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, on_signal) for number in taken}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe's name or a .toml file. [default: list all]", show_default=False)
    ] = None,
    *,
    changes: RecipeChanges,
    listing: Listing,
) -> None:
    """List the recipes, or print one with everything filled in, as TOML that --recipe takes.

    The options are those of `epalm train`, and do the same.

    Examples:

        epalm recipes
        epalm recipes vqa-v2 --variant epalm-pt-l
        epalm recipes vqa-v2 --few-shot 0.01 > mine.toml
    """
    from epalm.recipes.config import load_config
    from epalm.recipes.config import recipes as names
    from epalm.recipes.settings import OPT_BLOCKS
    from epalm.train.bridge.registry import with_bridge

    chosen = [name] if name else names()
    configs = {one: load_config(one, changes.overrides()) for one in chosen}
    for one, config in configs.items():  # filled in as far as the language model's depth is known without it
        blocks = OPT_BLOCKS.get(config.lm.name)
        configs[one] = with_bridge(config, blocks) if blocks is None else with_bridge(config, blocks).resolved(blocks)
    plain = {one: config.model_dump(mode="json") for one, config in configs.items()}
    if name:
        typer.echo(json.dumps(plain) + "\n" if listing.as_json else configs[name].to_toml(), nl=False)
        return
    import pandas as pd

    frame = pd.json_normalize([{"name": one, **config} for one, config in plain.items()])
    show_listing(frame, listing.form, title="recipes", cells=_recipe_cells, empty="there are none")


def _recipe_cells(one: Record) -> dict[str, str]:
    steps, least = one["optim.max_steps"], one["optim.min_steps"]
    epochs = f"{one['optim.epochs']}, {least:.0f} steps at least" if least else str(one["optim.epochs"])
    return {
        "name": one["name"],
        "language model": one["lm.name"],
        "epochs": f"{steps:.0f} steps" if steps else epochs,
        "batch": str(one["optim.batch_size"]),
        "what for": one["description"],
    }
