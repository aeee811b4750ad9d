"""One training from settings to a run folder. Knows every part of this stage."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from epalm import __version__
from epalm.config import Config
from epalm.console import say
from epalm.errors import UsageError
from epalm.samples import Dataset, Modality, Sample
from epalm.train.features import HashedSource
from epalm.train.loop import Cadence, Stop, train_model
from epalm.train.prepare import Prepared, checkpoint_bytes, prepare, validation_batches
from epalm.train.run_folder import RunFolder, require_room, writing
from epalm.train.run_key import run_key, run_parts
from epalm.train.run_lock import locked
from epalm.train.step import make_optimiser
from epalm.train.train_state import TrainState, parts_of, record_of, restore


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
    missing: int = 0,
) -> Loaded:
    """Load what a training on samples whose features are there needs; `missing` others were left out before.

    Nothing is written.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    ready = prepare(config, dataset, features, training, device)
    parts = run_parts(ready, features, training, validation)
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
    }
    return Loaded(ready, features, validation, inputs, missing)


def train(loaded: Loaded, run: RunFolder, *, stop: Stop = lambda: False) -> TrainSummary | None:
    """Train in a run folder, from where it stands to the end; None where `stop` ended it earlier.

    Raises:
        UsageError: another process works in the folder, or none of its checkpoints is whole.
        EpalmError: it cannot be written, or has too little room; the loss is no number any more.
    """
    with locked(run):
        return _train(loaded, run, stop)


def _train(loaded: Loaded, run: RunFolder, stop: Stop) -> TrainSummary | None:
    ready = loaded.ready
    if not run.has_begun:
        require_room(run.path, checkpoint_bytes(ready.model.trainable_tensors().values()))
        run.begin(ready.config, loaded.inputs)
    model = ready.model.to(ready.device)
    optimiser = make_optimiser(model, ready.plan)
    start = _go_on(loaded, run, optimiser)

    def save(state: TrainState) -> None:
        record = {**record_of(state, optimiser), "steps": ready.plan.steps, "key": loaded.inputs["key"]}
        record |= {"processes": 1, "metrics_bytes": run.metrics_bytes()}
        with writing(run.path):
            run.checkpoints.write(state.step, parts_of(model, optimiser), record, best=state.best_step == state.step)

    keep = ready.config.checkpoint
    state = train_model(
        model,
        optimiser,
        ready.batches,
        validation_batches(ready.config, loaded.validation, ready.text, loaded.features),
        ready.plan,
        start=start,
        device=ready.device,
        cadence=Cadence(60 * keep.every_minutes, keep.every_steps),
        report=run.report,
        save=save,
        stop=stop,
    )
    if state.step < ready.plan.steps:
        return None
    summary = _summary(loaded, run, state)
    run.end(summary.to_json())
    run.finish()
    return summary


def _go_on(loaded: Loaded, run: RunFolder, optimiser: torch.optim.Optimizer) -> TrainState:
    """Where the training stands; model and optimiser are as they were there, and the folder has nothing newer."""
    checkpoint = run.checkpoints.newest()
    if checkpoint is None:
        torch.manual_seed(loaded.ready.config.optim.seed)
        run.cut_metrics(0)
        return TrainState()
    if checkpoint.state["key"] != loaded.inputs["key"]:
        raise UsageError(f"{checkpoint.path} is of another training", hint="give another --run")
    state = restore(checkpoint, loaded.ready.model, optimiser)
    if state.best_step is not None and not run.checkpoints.holds(state.best_step):
        state = state.without_best()
    with writing(run.path):
        run.checkpoints.go_on_from(checkpoint, best=state.best_step)
    run.cut_metrics(checkpoint.state["metrics_bytes"])
    say(f"going on after step {state.step:,} of {loaded.ready.plan.steps:,}: {checkpoint.path}")
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
    )
