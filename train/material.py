"""What a training is asked to be, found out before a language model is loaded: settings, samples, and their features.

Features come from the cache, or from an encoder in the loop.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epalm import PLAYGROUND
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.console import say, warn
from epalm.datasets import load_dataset
from epalm.errors import UsageError
from epalm.plugins import require_package
from epalm.recipes.config import Config, load_config
from epalm.recipes.settings import EncoderSettings
from epalm.samples import Dataset, Modality, Sample, with_links
from epalm.train.bridge.registry import EPALM, encoding_for, rule_for, with_bridge
from epalm.train.data.batches import chosen_samples, few_shot
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.data.text import load_text_format
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.request import TrainRequest, recipe_for

LiveSource = Callable[..., FeatureSource]  # the encoder in the loop: see `recipe_features`, in extraction


@dataclass(frozen=True)
class Material:
    """What a request comes to before a language model is loaded: settings, and the samples that have features."""

    request: TrainRequest
    config: Config
    dataset: Dataset
    modality: Modality
    features: FeatureSource
    training: Sequence[Sample]
    validation: Sequence[Sample] = ()
    missing: int = 0  # samples that are left out: their media have no features
    recipe: str = ""
    cache: Cache | None = None
    feature_set: FeatureSet | None = None  # None: the encoder is in the loop


def resolve(
    request: TrainRequest,
    live: LiveSource,
    *,
    processes: Processes = ALONE,
    device: str = "auto",
    planning: bool = False,
) -> Material:
    """Settings, samples and features of a request; a plan writes nothing and takes any number of missing media.

    Raises:
        UsageError: options that make no sense, media without features, a language model that cannot be used.
        CacheError: there are no features, or they are damaged.
    """
    for name in request.track or ():
        require_package(name, f"--track {name}", name)
    cache, modality, data = Cache(request.cache, read_only=planning), request.modality, request.data
    if request.from_cache and (modality is None or data is None):
        latest = cache.latest(modality.value if modality else None)
        modality, data = Modality(latest.modality), data or latest.data
    modality, data = modality or Modality.IMAGE, with_links(data or PLAYGROUND, follow=request.follow_links)
    if data == PLAYGROUND:
        say("data: the playground, a small built-in world (--data takes your own)")
    recipe = request.recipe or recipe_for(data)
    config = with_bridge(load_config(recipe, request.changes.overrides()))
    load_text_format(config.lm.name, None, config.text)  # its faults are known before weights are loaded or media read
    blind = ", blind" if config.model.blind else ""
    form = f"variant {config.model.variant}" if config.model.bridge == EPALM else f"bridge {config.model.bridge}"
    say(f"recipe: {recipe}, {form}{blind}, {config.lm.name}")
    if request.from_cache and config.encoder.train:
        fault = "encoder.train changes the encoder at every step, and cached features are of the encoder as it was"
        raise UsageError(fault, hint="leave out --from-cache, or encoder.train")
    feature_set: FeatureSet | None = None
    missing = 0
    with processes.first_goes_ahead():
        dataset = load_dataset(data, modality, media_here=not request.from_cache, write=not planning)
        training = chosen_samples(dataset, config, config.data.train_split)
        training = few_shot(training, config.data.few_shot, seed=config.optim.seed, balanced=config.data.balanced)
        validation = chosen_samples(dataset, config, config.data.val_split)
        if request.from_cache:
            feature_set = cache.find(request.feature_set or cache.latest(modality.value).set)
            both, mapped = training + validation, processes.count > 1
            rule = rule_for(config, feature_set.spec.rule, feature_set.spec.layout, cache.latest_rule(feature_set))
            cached = CachedFeatures(cache, feature_set.name, dataset, both, request.layers, rule=rule, mapped=mapped)
            for difference in _encoder_differences(config.encoder, cached.describe()):
                warn(difference)
            kept = cached.with_rows(both, allow_missing=None if planning else request.allow_missing)
            missing, ids = len(both) - len(kept), {sample.id for sample in kept}
            if training and not ids.intersection(sample.id for sample in training):
                cached.require_rows(0)
            training, validation = (tuple(one for one in part if one.id in ids) for part in (training, validation))
            if missing:
                warn(f"{missing} samples are left out: {len(cached.missing)} media have no features")
            if config.data.augment and training and cached.draw_from(training, seed=config.optim.seed) == (0,):
                warn(
                    "the recipe augments its media, and these features have one view, or others of some media alone: "
                    "training sees the same pixels each epoch. epalm extract --views 4 adds views; "
                    "--set data.augment=false says that one is meant"
                )
            features: FeatureSource = cached
        else:
            features = live(encoding_for(config), modality, dataset, device, cache.media)
    counts = f"{len(training):,} training and {len(validation):,} validation samples"
    say(f"features: {_in_words(features.describe())}; {counts}")
    return Material(
        request, config, dataset, modality, features, training, validation, missing, recipe, cache, feature_set
    )


def _in_words(features: Mapping[str, Any]) -> str:
    """Where features come from, as they describe themselves, and which views are drawn."""
    if features["source"] != "cache":
        source = "the encoder, in the loop"
        drawn = None if features["view_seed"] is None else "a new view"
    else:
        derived = f", {features['derived']}" if "derived" in features else ""
        source = f"feature set {features['set']}, layers {features['layers']}{derived}"
        views = features["views"]
        drawn = None if views == [0] else f"one of views {', '.join(map(str, views))}"
    return f"{source}, {drawn} of each sample every epoch, view 0 to validate" if drawn else f"{source}, view 0"


def _encoder_differences(wanted: EncoderSettings, features: Mapping[str, Any]) -> Iterator[str]:
    """In what features, as they describe themselves, are not those that a recipe's figures are for."""
    read = features["preprocessing"]
    size = read.get("size")
    pairs = {
        "encoder": (wanted.kind, features["encoder"].get("kind")),
        "frames": (wanted.frames, read.get("frames") if read.get("medium") == "video" else None),
        "resize": (wanted.resize, size and ("own" if "fit" in read else "stretch")),
        "tokens": (wanted.tokens, features["encoder"].get("tokens", "cls")),
        "size": (wanted.size and f"{wanted.size}×{wanted.size}", "×".join(map(str, size)) if size else None),
    }
    for name, (asked, there) in pairs.items():
        if asked is not None and there is not None and asked != there:
            yield f"the recipe is for {asked} as {name}, the features have {there}"
