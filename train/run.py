"""One training from settings to a run folder. Knows every part of this stage."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epalm import __version__
from epalm.config import Config
from epalm.fingerprint import digest_json
from epalm.samples import Dataset, Modality, Sample
from epalm.train.features import FeatureSource
from epalm.train.loop import train_model
from epalm.train.prepare import checkpoint_bytes, prepare, validation_batches
from epalm.train.reporting import reporting
from epalm.train.run_folder import RunFolder, require_room
from epalm.train.step import Validation


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


def train(
    config: Config,
    dataset: Dataset,
    modality: Modality,
    features: FeatureSource,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    run: RunFolder,
    *,
    device: str = "auto",
    missing: int = 0,
    trackers: Sequence[str] = (),
) -> TrainSummary:
    """Train on samples whose features are there; `missing` samples were left out before, and are reported.

    `trackers` (see `epalm.train.tracking`) are told what `metrics.jsonl` is.

    Raises:
        UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    started = time.perf_counter()
    ready = prepare(config, dataset, features, training, device)
    tensors = ready.model.trainable_tensors()
    require_room(run.path, checkpoint_bytes(tensors.values()))
    run.begin(ready.config, _inputs(dataset, modality, features, ready.lm))

    def save(step: int, _result: Validation | None, best: bool) -> None:
        run.save("last", tensors, step=step)
        if best:
            run.save("best", tensors, step=step)

    fixed = validation_batches(ready.config, validation, ready.text, features)
    with reporting(run, ready.config.model_dump(mode="json"), trackers) as report:
        result = train_model(
            ready.model, ready.batches, fixed, ready.plan, device=ready.device, report=report, save=save
        )
    run.finish()
    count = sum(tensor.numel() for tensor in tensors.values())
    return TrainSummary(
        run=str(run.path),
        steps=ready.plan.steps,
        train_items=len(ready.batches.items),
        missing_samples=missing,
        trainable_parameters=count,
        all_parameters=sum(tensor.numel() for tensor in ready.model.parameters()),
        seconds=time.perf_counter() - started,
        val_loss=result.loss if result else None,
        val_exact=result.exact if result else None,
    )


def _inputs(dataset: Dataset, modality: Modality, features: FeatureSource, lm: str) -> dict[str, Any]:
    samples = [{**asdict(sample), "answers": dict(sample.answers)} for sample in dataset.samples]
    return {
        "data": dataset.spec,
        "data_root": str(Path(dataset.root).resolve()),
        "samples": digest_json(samples),
        "modality": modality.value,
        "features": features.describe(),
        "width": features.width,
        "lm": lm,
        "epalm": __version__,
    }
