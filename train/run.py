"""One training from its setup to a run folder: what it would do, which folder, from which checkpoint, to which end."""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from epalm.cache.objects.durable import fsync
from epalm.cache.store import mark
from epalm.console import say, warn
from epalm.errors import UsageError
from epalm.figures import headline_in_words
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import training_items
from epalm.train.data.features import CachedFeatures
from epalm.train.loop import Stop, TrainState, make_optimiser, take_step, train_model
from epalm.train.runs.checkpoints import TRAINABLE, Checkpoint
from epalm.train.runs.listing import headlines
from epalm.train.runs.run_folder import RunFolder, locked, require_room, writing
from epalm.train.runs.run_key import matching_run, version_changes
from epalm.train.runs.tracking import reporting
from epalm.train.setup import Setup

_BESIDE_TENSORS = 1 << 15  # bytes of a checkpoint: where the training stands, names
_TIMED_STEPS = 5


def plan(setup: Setup) -> dict[str, Any]:
    """What `execute` would do, counted: steps, items, parameters, the bytes that it writes at most, warnings.

    "seconds" are estimated from a few steps here, validation left out; nothing is written.
    """
    optim, schedule, model = setup.config.optim, setup.schedule, setup.model.to(setup.device).train()
    optimiser, moments = make_optimiser(model, optim), [time.perf_counter()]
    for step, batch in enumerate(islice(setup.batches.epoch(0), _TIMED_STEPS + 1)):
        model.begin_step(optim.seed, step)
        loss, _ = take_step(model, optimiser, batch.to(setup.device), optim, processes=setup.processes)
        float(loss)  # waits for it
        moments.append(time.perf_counter())
    timed = moments[1:] if len(moments) > 2 else moments  # the first step is slower
    return {
        "steps": schedule.steps,
        "epochs": schedule.epochs,
        "warmup_steps": optim.warmup_steps,
        "train_items": len(setup.batches.items),
        "validation_items": len(setup.validation.items),
        "missing_samples": setup.material.missing,
        "trainable_parameters": _size(setup),
        "bytes": _checkpoint_bytes(setup),
        "seconds": (timed[-1] - timed[0]) / (len(timed) - 1) * schedule.steps,
        "warnings": setup.warnings,
    }


def execute(setup: Setup, *, canary: Callable[..., None], stop: Stop = lambda: False) -> dict[str, Any] | None:
    """Train, or say that the same training is done already; its summary, None where `stop` ended it earlier.

    `canary` (see `check_canary`, in extraction) is called before a training on cached features, where it is asked for.

    Raises:
        UsageError: the run folder of that name is another training's, or in use.
        EpalmError: as `train`, or what `canary` raises; nothing is left of a run that has not begun.
    """
    material, processes, schedule, optim = setup.material, setup.processes, setup.schedule, setup.config.optim
    request, run = material.request, None
    if processes.first:
        run = matching_run(request.runs, setup.inputs, name=request.run)
    run = processes.from_first(run)
    if run and (summary := run.summary) is not None:
        if processes.first:
            run.make_latest()
            say(f"this training is done already: {run.path}; --run NAME trains once more")
            scores = "; ".join(headline_in_words(name, figure) for name, figure in headlines(run).items())
            say(f"scored: {scores}, × 100" if scores else "not scored yet")
        return {**summary, "run": str(run.path)}
    if processes.first:
        say(
            f"{len(setup.batches.items):,} training items, {schedule.epochs:,} epochs of {len(setup.batches):,} steps, "
            f"{schedule.steps:,} in all; the rate warms up for {min(optim.warmup_steps, schedule.steps):,}, up to "
            f"{optim.peak_lr:.1e}"
        )
        for warning in setup.warnings:
            warn(warning)
        if material.feature_set and request.canary:
            canary(material.feature_set, material.cache, material.dataset, material.training, str(setup.device))
        if run is None:
            require_room(request.runs, _checkpoint_bytes(setup))
            blind = ["blind"] if setup.config.model.blind else []
            label = "-".join((material.modality, Path(material.recipe).stem, *blind))
            run = RunFolder.create(request.runs, label, name=request.run)
        if material.feature_set:  # from now on no collection takes it away
            mark(material.feature_set.objects, str(run.path.resolve()), socket.gethostname())
    return train(setup, processes.from_first(run), stop=stop, trackers=request.track or ())


def train(
    setup: Setup, run: RunFolder, *, stop: Stop = lambda: False, trackers: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Train in a run folder, from where it stands to the end; None where `stop` ended it earlier.

    Of several processes the first one writes, and all of them read. `trackers` (see `epalm.train.runs.tracking`) are
    told what the run's metrics are.

    Raises:
        UsageError: another process works in the folder, or none of its checkpoints is whole.
        EpalmError: it cannot be written; the loss is no number any more; a tracker does not start.
    """
    processes = setup.processes
    with ExitStack() as held:
        if processes.first:
            held.enter_context(locked(run))
            if not run.has_begun:
                run.begin(setup.config, setup.inputs)
        model = setup.model.to(setup.device)
        optimiser = make_optimiser(model, setup.config.optim)
        with processes.first_goes_ahead():
            start = _restored(setup, run, optimiser)
        processes.require_same(start.step, "the checkpoint")
        reports = reporting(run, setup.config.model_dump(mode="json"), trackers)
        report = held.enter_context(reports) if processes.first else lambda _metrics: None

        def save(state: TrainState) -> None:
            if processes.first:
                noted = {name: setup.inputs[name] for name in ("key", "versions")}
                record = {**asdict(state), **noted, "steps": setup.schedule.steps, "processes": processes.count}
                with writing(run.path):
                    fsync(run.metrics)
                    best = state.best_step == state.step
                    run.checkpoints.write(state.step, _tensors_of(model, optimiser), record, best=best)

        # What does not fit in memory as features does not as batches.
        validation = setup.validation if setup.batches.by_blocks else list(setup.validation)
        config = setup.config
        state = train_model(
            model, optimiser, setup.batches, validation, config, start=start, report=report, save=save, stop=stop
        )
        if state.step < setup.schedule.steps:
            say(f"stopped and saved in {run.path}; the same command goes on")
            return None
        result, features = state.validation, setup.material.features
        summary = {
            "run": str(run.path),
            "steps": state.step,
            "train_items": len(setup.batches.items),
            "missing_samples": setup.material.missing,
            "trainable_parameters": _size(setup),
            "all_parameters": sum(tensor.numel() for tensor in model.parameters()),
            "row_bytes": model.layers * features.layer_bytes if isinstance(features, CachedFeatures) else None,
            "seconds": state.seconds,
            "val_loss": result.loss if result else None,  # nats per sample
            "val_exact": result.exact if result else None,
            "val_samples": result.samples if result else 0,  # that the validation took, of `val_of` that there are
            "val_of": len(training_items(setup.material.validation)),
        }
        if processes.first:
            run.end(summary)
        return summary


def _restored(setup: Setup, run: RunFolder, optimiser: torch.optim.Optimizer) -> TrainState:
    """Where the training stands; model and optimiser are as they were there, and the folder has nothing newer."""
    checkpoint, processes = run.checkpoints.newest(), setup.processes
    if checkpoint is None:
        state = TrainState()
    elif checkpoint.state["key"] != setup.inputs["key"]:
        raise UsageError(f"{checkpoint.path} is of another training", hint="give another --run")
    else:
        state = _put(checkpoint, setup.model, optimiser)
        if state.best_step is not None and not run.checkpoints.whole(f"step-{state.best_step}"):
            state = replace(state, best=None, best_step=None)  # the next validation is the best
    if processes.first:
        run.go_on_from(state.step)
    if checkpoint and processes.first:
        with writing(run.path):
            run.checkpoints.go_on_from(checkpoint, best=state.best_step)
        say(f"going on after step {state.step:,} of {setup.schedule.steps:,}: {checkpoint.path}")
        if changes := version_changes(checkpoint.state, setup.inputs):
            say(f"it was saved with other versions ({changes}): the same bits are promised within the same ones alone")
        if (count := checkpoint.state["processes"]) != processes.count:
            say(f"it was saved by {count} processes: sums are rounded in another order from here on")
    return state


def _tensors_of(model: EpalmModel, optimiser: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a checkpoint by part: trained ones, the optimiser's by "kind.tensor".

    Random generators are none of it: a step draws by its number alone (`EpalmModel.begin_step`), a validation nothing.
    """
    trained: dict[str, torch.Tensor] = {**model.trainable_tensors()}
    states = {
        f"{kind}.{name}": value
        for name, tensor in trained.items()
        for kind, value in optimiser.state.get(tensor, {}).items()
    }
    return {TRAINABLE: trained, "optimiser": states}


def _put(checkpoint: Checkpoint, model: EpalmModel, optimiser: torch.optim.Optimizer) -> TrainState:
    """Put a checkpoint's tensors into model and optimiser; where the training stands then."""
    model.load_trainable(checkpoint.tensors(TRAINABLE))
    trained = model.trainable_tensors()
    for key, value in checkpoint.tensors("optimiser").items():
        kind, _, name = key.partition(".")
        optimiser.state[trained[name]][kind] = value if kind == "step" else value.to(trained[name].device)
    return TypeAdapter(TrainState).validate_python(checkpoint.state)


def _size(setup: Setup) -> int:
    return sum(tensor.numel() for tensor in setup.model.trainable_tensors().values())


def _checkpoint_bytes(setup: Setup) -> int:
    """Of the checkpoints: two latest, the best, and the draft of the next; each tensor with AdamW's two moments."""
    one = sum(tensor.nbytes for tensor in setup.model.trainable_tensors().values())
    return 4 * (3 * one + _BESIDE_TENSORS)
