"""The samples of a training and where their features come from: the cache, or an encoder in the loop."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from epalm.config import Config
from epalm.console import warn
from epalm.extract.run_encoder import recipe_differences, recipe_features
from epalm.samples import Dataset, Modality, Sample
from epalm.train.data.features import CachedFeatures, HashedSource, frozen_features
from epalm.train.prepare import samples_of

if TYPE_CHECKING:
    from epalm.cache.store import Cache


@dataclass(frozen=True)
class Material:
    """What a training works on: the samples that have features, and how many were left out."""

    features: HashedSource
    training: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    missing: int = 0

    def in_words(self) -> str:
        """Where features come from, and which views are drawn."""
        told = self.features.describe()
        if told["source"] != "cache":
            drawn = "view 0" if told["view_seed"] is None else "a new view of each sample every epoch"
            source = "the encoder, in the loop"
        else:
            views = told["views"]
            drawn = "view 0" if views == [0] else f"one of views {_span(views)} of each sample every epoch"
            source = f"feature set {told['set']}, layers {told['layers']}"
        validated = "" if drawn == "view 0" else ", view 0 to validate"
        counts = f"{len(self.training):,} training and {len(self.validation):,} validation samples"
        return f"features: {source}, {drawn}{validated}; {counts}"


def cached_material(
    store: "Cache",
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
        raise frozen_features()
    parts = samples_of(dataset, config)
    every = parts[0] + parts[1]
    features = CachedFeatures.open(store, name, dataset, every, layers, mapped=mapped)
    for difference in recipe_differences(config.encoder, features.describe()):
        warn(difference)
    allowed = len(features.holes) if allow_missing is None else allow_missing
    kept = features.without_holes(every, allow_missing=allowed)
    if len(kept) < len(every):
        warn(f"{len(every) - len(kept)} samples are left out: {len(features.holes)} media have no features")
    ids = {sample.id for sample in kept}
    training, validation = (tuple(sample for sample in part if sample.id in ids) for part in parts)
    if config.data.augment and training and features.draw_from(training, seed=config.optim.seed) == (0,):
        _warn_of_one_view(features, training)
    return Material(features, training, validation, len(every) - len(kept))


def live_material(store: "Cache", modality: Modality, dataset: Dataset, config: Config, device: str) -> Material:
    """From the recipe's encoder, by default the modality's; the cache remembers what media hold, and nothing else."""
    seed = config.optim.seed if config.data.augment else None
    tokens = config.model.tokens
    features = recipe_features(config.encoder, modality, dataset, tokens, device, view_seed=seed, index=store.media)
    return Material(features, *samples_of(dataset, config))


def _warn_of_one_view(features: CachedFeatures, training: tuple[Sample, ...]) -> None:
    media, bare = len({sample.media for sample in training}), features.with_one_view(training)
    if bare == media:
        fault = "these features have one view"
    elif bare:
        fault = f"{bare:,} of {media:,} training media have one view"
    else:
        fault = "the training media have no augmented view in common"
    warn(
        f"the recipe augments its media, and {fault}: training sees the same pixels each epoch. "
        "epalm extract --views 4 adds views; --set data.augment=false says that one is meant"
    )


def _span(views: list[int]) -> str:
    """Views as a user reads them: "1 to 4", or "1, 3" where some are missing."""
    if len(views) == 1:
        return str(views[0])
    whole = views == list(range(views[0], views[-1] + 1))
    return f"{views[0]} to {views[-1]}" if whole else ", ".join(map(str, views))
