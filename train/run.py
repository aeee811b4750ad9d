"""One training from settings to a run folder. Knows every part of this stage."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from epalm import __version__
from epalm.config import Config
from epalm.console import say
from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.samples import Dataset, Modality, Sample
from epalm.train.data.batches import training_items
from epalm.train.data.features import HashedSource
from epalm.train.data.text_length import require_short
from epalm.train.loop import Cadence, Stop, train_model
from epalm.train.prepare import Prepared, checkpoint_bytes, prepare, validation_batches
from epalm.train.processes import ALONE, Processes
from epalm.train.runs.run_folder import RunFolder, require_room, writing
from epalm.train.runs.run_key import library_versions, run_key, run_parts, version_changes
from epalm.train.runs.run_lock import locked
from epalm.train.runs.tracking import reporting
from epalm.train.runs.train_state import TrainState, parts_of, record_of, restore
from epalm.train.step import make_optimiser


@dataclass(frozen=True)
class TrainSummary:
    """What a training did. Times in seconds, losses in nats per sample."""

    run: str
    steps: int
    train_items: int
    missing_samples: int
    trainable_parameters: int
    all_parameters: int
    seconds: float
    val_loss: float | None
    val_exact: float | None
    val_samples: int  # that the validation took, of `val_of` that there are
    val_of: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Loaded:
    """A training with all that it works on, and what decides it; `inputs` are what a run folder notes of it."""

    ready: Prepared
    features: HashedSource
    validation: Sequence[Sample]
    inputs: dict[str, Any]
    missing: int
    processes: Processes = ALONE


def load_training(
    config: Config,
    dataset: Dataset,
    modality: Modality,
    features: HashedSource,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    *,
    recipe: str = "",
    device: str = "auto",
    processes: Processes = ALONE,
    workers: int = 0,
    sharded: bool = False,
    missing: int = 0,
) -> Loaded:
    """Load what a training on samples whose features are there needs; `missing` others were left out before.

    `workers` threads put batches together ahead of the step; `sharded` processes divide the language model. Nothing
    is written.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    ready = prepare(config, dataset, features, training, device, processes=processes, workers=workers, sharded=sharded)
    require_short(validation, ready.text, ready.model.lm.config.max_position_embeddings)
    frozen = {"lm": ready.lm, "tokenizer": ready.text.digest, "device": ready.device.type}
    parts = run_parts(ready.config, features, training, validation, **frozen)
    inputs = {
        "data": dataset.spec,
        "data_root": str(Path(dataset.root).resolve()),
        "recipe": recipe,
        "modality": modality.value,
        "features": features.describe(),
        "width": features.width,
        "lm": ready.lm,
        "epalm": __version__,
        "key": run_key(parts),
        "parts": parts,
        "versions": library_versions(),
    }
    processes.require_same(digest_json([inputs["key"], inputs["versions"]]), "what is trained on")
    return Loaded(ready, features, validation, inputs, missing, processes)


def train(
    loaded: Loaded, run: RunFolder, *, stop: Stop = lambda: False, trackers: Sequence[str] = ()
) -> TrainSummary | None:
    """Train in a run folder, from where it stands to the end; None where `stop` ended it earlier.

    Of several processes the first one writes, and all of them read. `trackers` (see `epalm.train.runs.tracking`) are
    told what the run's metrics are.

    Raises:
        UsageError: another process works in the folder, or none of its checkpoints is whole.
        EpalmError: it cannot be written, or has too little room; the loss is no number any more; a tracker does not
            start.
    """
    with locked(run) if loaded.processes.first else nullcontext():
        return _train(loaded, run, stop, trackers)


def _train(loaded: Loaded, run: RunFolder, stop: Stop, trackers: Sequence[str]) -> TrainSummary | None:
    ready, processes = loaded.ready, loaded.processes
    if processes.first:
        run.sweep()
    if processes.first and not run.has_begun:
        require_room(run.path, checkpoint_bytes(ready.model.trainable_tensors().values()))
        run.begin(ready.config, loaded.inputs)
    model = ready.model.to(ready.device)
    optimiser = make_optimiser(model, ready.plan)
    with processes.first_goes_ahead():
        start = _go_on(loaded, run, optimiser)
    processes.require_same(str(start.step), "the checkpoint")

    def save(state: TrainState) -> None:
        if not processes.first:
            return
        record = {**record_of(state, optimiser), "steps": ready.plan.steps, "key": loaded.inputs["key"]}
        record |= {
            "versions": loaded.inputs["versions"],
            "processes": processes.count,
            "metrics_bytes": run.metrics_bytes(),
        }
        with writing(run.path):
            run.checkpoints.write(state.step, parts_of(model, optimiser), record, best=state.best_step == state.step)

    fixed = validation_batches(ready.config, loaded.validation, ready.text, loaded.features, processes)
    keep = ready.config.checkpoint
    told = reporting(run, ready.config.model_dump(mode="json"), trackers)
    with told if processes.first else nullcontext(_unheard) as report:
        state = train_model(
            model,
            optimiser,
            ready.batches,
            list(fixed.epoch(0, augmented=False)) if fixed else [],
            ready.plan,
            start=start,
            device=ready.device,
            cadence=Cadence(60 * keep.every_minutes, keep.every_steps),
            report=report,
            save=save,
            stop=stop,
            processes=processes,
        )
    if state.step < ready.plan.steps:
        return None
    summary = _summary(loaded, run, state)
    if processes.first:
        run.end(summary.to_json())
        run.finish()
    return summary


def _unheard(_metrics: Mapping[str, Any]) -> None:
    """The first process reports for all."""


def _go_on(loaded: Loaded, run: RunFolder, optimiser: torch.optim.Optimizer) -> TrainState:
    """Where the training stands; model and optimiser are as they were there, and the folder has nothing newer."""
    checkpoint = run.checkpoints.newest()
    first = loaded.processes.first
    if checkpoint is None:
        torch.manual_seed(loaded.ready.config.optim.seed)
        if first:
            run.cut_metrics(0)
        return TrainState()
    if checkpoint.state["key"] != loaded.inputs["key"]:
        raise UsageError(f"{checkpoint.path} is of another training", hint="give another --run")
    state = restore(checkpoint, loaded.ready.model, optimiser)
    if state.best_step is not None and not run.checkpoints.holds(state.best_step):
        state = state.without_best()
    if not first:
        return state
    with writing(run.path):
        run.checkpoints.go_on_from(checkpoint, best=state.best_step)
    run.cut_metrics(checkpoint.state["metrics_bytes"])
    say(f"going on after step {state.step:,} of {loaded.ready.plan.steps:,}: {checkpoint.path}")
    if changes := version_changes(checkpoint.state, loaded.inputs):
        say(f"it was saved with other versions ({changes}): the same bits are promised within the same versions alone")
    if checkpoint.state["processes"] != loaded.processes.count:
        say(
            f"it was saved by {checkpoint.state['processes']} processes: sums are rounded in another order from here on"
        )
    return state


def _summary(loaded: Loaded, run: RunFolder, state: TrainState) -> TrainSummary:
    ready, result = loaded.ready, state.validation
    return TrainSummary(
        run=str(run.path),
        steps=state.step,
        train_items=len(ready.batches.items),
        missing_samples=loaded.missing,
        trainable_parameters=sum(tensor.numel() for tensor in ready.model.trainable_tensors().values()),
        all_parameters=sum(tensor.numel() for tensor in ready.model.parameters()),
        seconds=state.seconds,
        val_loss=result.loss if result else None,
        val_exact=result.exact if result else None,
        val_samples=result.samples if result else 0,
        val_of=len(training_items(loaded.validation)),
    )
