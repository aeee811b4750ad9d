"""One training from its setup to a run folder: which folder, from which checkpoint, to which end."""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from epalm.cache.store import mark
from epalm.console import say, warn
from epalm.errors import UsageError
from epalm.figures import headline_in_words
from epalm.train.data.batches import training_items
from epalm.train.loop import Cadence, Stop, train_model
from epalm.train.runs.listing import headlines
from epalm.train.runs.run_choice import Choice, choose_run
from epalm.train.runs.run_folder import RunFolder, require_room, writing
from epalm.train.runs.run_key import library_versions, version_changes
from epalm.train.runs.run_lock import emptied_on_fault, locked
from epalm.train.runs.tracking import reporting
from epalm.train.runs.train_state import TrainState, parts_of, record_of, restore
from epalm.train.setup import Setup, validation_batches
from epalm.train.step import make_optimiser

_BESIDE_TENSORS = 1 << 15  # bytes of a checkpoint: where the training stands, random generators, names
_SHOWN = 8  # changes; the rest is counted


def execute(setup: Setup, *, canary: Callable[..., None], stop: Stop = lambda: False) -> dict[str, Any] | None:
    """Train, or say that the same training is done already; its summary, None where `stop` ended it earlier.

    `canary` (see `check_canary`, in extraction) is called before a training on cached features, where it is asked for.

    Raises:
        UsageError: the run folder of that name is another training's, or in use.
        EpalmError: as `train`, or what `canary` raises; nothing is left of a run that has not begun.
    """
    resolved, processes = setup.resolved, setup.processes
    request, features = resolved.request, resolved.feature_set
    label = "-".join((resolved.modality, Path(resolved.recipe).stem, *(["blind"] if setup.config.model.blind else [])))
    chosen = processes.from_first(
        choose_run(request.runs, label, setup.inputs, name=request.run, again=request.again)
        if processes.first
        else None
    )
    if chosen.summary is not None:
        if processes.first:
            _say_done(chosen)
        return {**chosen.summary, "run": str(chosen.folder.path)}
    _say_start(chosen, setup)
    with emptied_on_fault(chosen.folder) if processes.first else nullcontext():
        if features and processes.first:
            if request.canary:
                canary(features, resolved.cache, resolved.dataset, resolved.material.training, str(setup.device))
            # From now on no collection takes the feature set away.
            mark(features.objects, str(chosen.folder.path.resolve()), socket.gethostname())
        return train(setup, chosen.folder, stop=stop, trackers=request.track or ())


def train(
    setup: Setup, run: RunFolder, *, stop: Stop = lambda: False, trackers: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Train in a run folder, from where it stands to the end; None where `stop` ended it earlier.

    Of several processes the first one writes, and all of them read. `trackers` (see `epalm.train.runs.tracking`) are
    told what the run's metrics are.

    Raises:
        UsageError: another process works in the folder, or none of its checkpoints is whole.
        EpalmError: it cannot be written, or has too little room; the loss is no number any more; a tracker does not
            start.
    """
    with locked(run) if setup.processes.first else nullcontext():
        return _train(setup, run, stop, trackers)


def _train(setup: Setup, run: RunFolder, stop: Stop, trackers: Sequence[str]) -> dict[str, Any] | None:
    processes, hyper = setup.processes, setup.hyper
    if processes.first:
        run.sweep()
    if processes.first and not run.has_begun:
        require_room(run.path, checkpoint_bytes(setup.model.trainable_tensors().values()))
        run.begin(setup.config, setup.inputs)
    model = setup.model.to(setup.device)
    optimiser = make_optimiser(model, hyper)
    with processes.first_goes_ahead():
        start = _restored(setup, run, optimiser)
    processes.require_same(start.step, "the checkpoint")

    def save(state: TrainState) -> None:
        if not processes.first:
            return
        record = {
            **record_of(state, optimiser),
            "steps": hyper.steps,
            "key": setup.inputs["key"],
            "versions": setup.inputs["versions"],
            "processes": processes.count,
            "metrics_bytes": run.metrics_bytes(),
        }
        with writing(run.path):
            run.checkpoints.write(state.step, parts_of(model, optimiser), record, best=state.best_step == state.step)

    keep = setup.config.checkpoint
    reports = reporting(run, setup.config.model_dump(mode="json"), trackers)
    with reports if processes.first else nullcontext(_ignore) as report:
        state = train_model(
            model,
            optimiser,
            setup.batches,
            validation_batches(setup),
            hyper,
            start=start,
            device=setup.device,
            cadence=Cadence(60 * keep.every_minutes, keep.every_steps),
            report=report,
            save=save,
            stop=stop,
            processes=processes,
        )
    if state.step < hyper.steps:
        say(f"stopped and saved in {run.path}; the same command goes on")
        return None
    summary = _summary(setup, run, state)
    if processes.first:
        run.end(summary)
        run.finish()
    return summary


def _ignore(_metrics: Mapping[str, Any]) -> None:
    """The first process reports for all."""


def _restored(setup: Setup, run: RunFolder, optimiser: torch.optim.Optimizer) -> TrainState:
    """Where the training stands; model and optimiser are as they were there, and the folder has nothing newer."""
    checkpoint, first = run.checkpoints.newest(), setup.processes.first
    if checkpoint is None:
        torch.manual_seed(setup.config.optim.seed)
        if first:
            run.cut_metrics(0)
        return TrainState()
    if checkpoint.state["key"] != setup.inputs["key"]:
        raise UsageError(f"{checkpoint.path} is of another training", hint="give another --run")
    state = restore(checkpoint, setup.model, optimiser)
    if state.best_step is not None and not run.checkpoints.holds(state.best_step):
        state = state.without_best()
    if not first:
        return state
    with writing(run.path):
        run.checkpoints.go_on_from(checkpoint, best=state.best_step)
    run.cut_metrics(checkpoint.state["metrics_bytes"])
    say(f"going on after step {state.step:,} of {setup.hyper.steps:,}: {checkpoint.path}")
    if changes := version_changes(checkpoint.state, setup.inputs):
        say(f"it was saved with other versions ({changes}): the same bits are promised within the same versions alone")
    if (count := checkpoint.state["processes"]) != setup.processes.count:
        say(f"it was saved by {count} processes: sums are rounded in another order from here on")
    return state


def _summary(setup: Setup, run: RunFolder, state: TrainState) -> dict[str, Any]:
    """What the training did. Times in seconds, losses in nats per sample."""
    result, material = state.validation, setup.resolved.material
    return {
        "run": str(run.path),
        "steps": state.step,
        "train_items": len(setup.batches.items),
        "missing_samples": material.missing,
        "trainable_parameters": sum(tensor.numel() for tensor in setup.model.trainable_tensors().values()),
        "all_parameters": sum(tensor.numel() for tensor in setup.model.parameters()),
        "seconds": state.seconds,
        "val_loss": result.loss if result else None,
        "val_exact": result.exact if result else None,
        "val_samples": result.samples if result else 0,  # that the validation took, of `val_of` that there are
        "val_of": len(training_items(material.validation)),
    }


def checkpoint_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of the checkpoints: two latest, the best, and the draft of the next; each tensor with AdamW's two moments."""
    one = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return 4 * (3 * one + _BESIDE_TENSORS)


def _say_start(chosen: Choice, setup: Setup) -> None:
    """What a new run differs in from the nearest one, how long it is going to train, what it falls short of."""
    if not setup.processes.first:
        return
    if chosen.nearest is not None:
        rest = f"; and {len(chosen.changes) - _SHOWN} more" if len(chosen.changes) > _SHOWN else ""
        say(f"a new run; changed since {chosen.nearest.name}: {'; '.join(chosen.changes[:_SHOWN])}{rest}")
    hyper, schedule = setup.hyper, setup.hyper.schedule
    say(
        f"{len(setup.batches.items):,} training items, {schedule.epochs:,} epochs of {len(setup.batches):,} steps, "
        f"{hyper.steps:,} in all; the rate warms up for {min(schedule.warmup_steps, hyper.steps):,}, up to "
        f"{schedule.peak_lr:.1e}"
    )
    for warning in setup.warnings:
        warn(warning)


def _say_done(chosen: Choice) -> None:
    """That the same training is done already, where, and its scores; it is the latest run again."""
    folder = chosen.folder
    folder.finish()
    say(f"this training is done already: {folder.path}; --again trains once more")
    if changes := version_changes(folder.inputs, {"versions": library_versions()}):
        say(f"it was begun with other versions ({changes}), whose bits may differ from those of these")
    scores = "; ".join(headline_in_words(name, figure) for name, figure in headlines(folder).items())
    say(f"scored: {scores}, × 100" if scores else "not scored yet")
