"""The samples of a training and where their features come from: the cache, or an encoder in the loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epalm.cache.store import Cache
from epalm.config import Config
from epalm.console import warn
from epalm.errors import UsageError
from epalm.samples import Dataset, Sample
from epalm.settings import EncoderSettings
from epalm.train.data.batches import chosen_samples, few_shot
from epalm.train.data.features import CachedFeatures, FeatureSource


@dataclass(frozen=True)
class Material:
    """What a training works on: the samples that have features, and how many were left out."""

    features: FeatureSource
    training: Sequence[Sample]
    validation: Sequence[Sample] = ()
    missing: int = 0

    def in_words(self) -> str:
        """Where features come from, and which views are drawn."""
        described = self.features.describe()
        if described["source"] != "cache":
            source = "the encoder, in the loop"
            drawn = None if described["view_seed"] is None else "a new view"
        else:
            source = f"feature set {described['set']}, layers {described['layers']}"
            views = described["views"]
            drawn = None if views == [0] else f"one of views {', '.join(map(str, views))}"
        shown = f"{drawn} of each sample every epoch, view 0 to validate" if drawn else "view 0"
        counts = f"{len(self.training):,} training and {len(self.validation):,} validation samples"
        return f"features: {source}, {shown}; {counts}"


def samples_of(dataset: Dataset, config: Config) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Training samples, only a few where the recipe says so, and validation samples. Raises UsageError: too few."""
    data = config.data
    training = chosen_samples(dataset, config, data.train_split)
    few = few_shot(training, data.few_shot, seed=config.optim.seed, balanced=data.balanced)
    return few, chosen_samples(dataset, config, data.val_split)


def cached_material(
    cache: Cache,
    name: str,
    dataset: Dataset,
    config: Config,
    *,
    layers: str | None,
    allow_missing: int | None,
    mapped: bool = False,
) -> Material:
    """From a feature set; `allow_missing` media may have no row in it, None: any number; `mapped`: for processes.

    Raises:
        UsageError: more media have none; they are named. Or the encoder is to be trained.
    """
    if config.encoder.train:
        raise UsageError(
            "encoder.train changes the encoder at every step, and cached features are of the encoder as it was",
            hint="leave out --from-cache, or --unfreeze encoder",
        )
    parts = samples_of(dataset, config)
    features = CachedFeatures(cache, name, dataset, parts[0] + parts[1], layers, mapped=mapped)
    for difference in encoder_differences(config.encoder, features.describe()):
        warn(difference)
    kept = {sample.id for sample in features.with_rows(parts[0] + parts[1], allow_missing=allow_missing)}
    training, validation = (tuple(sample for sample in part if sample.id in kept) for part in parts)
    if parts[0] and not training:
        features.require_rows(0)
    missing = len(parts[0] + parts[1]) - len(training + validation)
    if missing:
        warn(f"{missing} samples are left out: {len(features.missing)} media have no features")
    if config.data.augment and training and features.draw_from(training, seed=config.optim.seed) == (0,):
        warn(
            "the recipe augments its media, and these features have one view, or others of some media alone: training "
            "sees the same pixels each epoch. epalm extract --views 4 adds views; --set data.augment=false says that "
            "one is meant"
        )
    return Material(features, training, validation, missing)


def encoder_differences(wanted: EncoderSettings, features: Mapping[str, Any]) -> list[str]:
    """In what features, as they describe themselves, are not those that a recipe's figures are for."""
    read = features["preprocessing"]
    size = read.get("size")
    pairs = {
        "encoder": (wanted.kind, features["encoder"].get("kind")),
        "frames": (wanted.frames, read.get("frames") if read.get("medium") == "video" else None),
        "size": (wanted.size and f"{wanted.size}×{wanted.size}", "×".join(map(str, size)) if size else None),
    }
    return [
        f"the recipe is for {asked} as {name}, the features have {there}"
        for name, (asked, there) in pairs.items()
        if asked is not None and there is not None and asked != there
    ]
