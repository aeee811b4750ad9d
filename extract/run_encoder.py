"""The encoder of a recipe, or of a run that was trained: built, built again, and held against what was recorded.

Knows what feature sources and runs record of an encoder, as JSON; knows no training.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from epalm.cache.media_index import MediaIndex
from epalm.cache.spec import parse_layers
from epalm.errors import UsageError
from epalm.extract.encoders.registry import (
    Encoder,
    EncoderChoice,
    TrainableEncoder,
    build_encoder,
    default_kind,
    family,
    require_fit,
)
from epalm.extract.live import LiveFeatures, TrainableFeatures
from epalm.samples import Dataset, Modality
from epalm.settings import EncoderSettings
from epalm.weights import offline


def choice_of(
    settings: EncoderSettings, modality: Modality, weights: str | None, statistics: str = "own"
) -> EncoderChoice:
    """The recipe's encoder, by default the modality's, with these weights. Raises UsageError: it reads other media."""
    kind, frames = settings.kind or default_kind(modality), settings.frames
    masks = settings.spec_augment
    choice = EncoderChoice(kind, weights, frames=frames, spec_augment=masks, statistics=statistics)
    return require_fit(choice, modality)


def recipe_features(
    settings: EncoderSettings,
    modality: Modality,
    dataset: Dataset,
    tokens: int,
    device: str,
    *,
    view_seed: int | None,
    index: MediaIndex | None = None,
) -> LiveFeatures:
    """The recipe's encoder on the data set's media; its last `tokens` layers. Views and `index` as `LiveFeatures`.

    On the playground the weights are the built-in world's.

    Raises:
        UsageError: as `build_encoder`, or the encoder does not read such media.
    """
    choice = choice_of(settings, modality, "playground" if dataset.spec == "playground" else settings.weights)
    encoder = build_encoder(choice, device=device)
    layers = parse_layers(f"last:{tokens}", encoder.depth)
    source = TrainableFeatures if settings.train else LiveFeatures
    return source(encoder, layers, dataset, view_seed=view_seed, choice=choice, index=index)


def live_features(
    recorded: Mapping[str, Any],
    dataset: Dataset,
    device: str,
    trained: Mapping[str, torch.Tensor],
    weights: str | None = None,
) -> LiveFeatures:
    """What a run's features were made by, on a data set; see `rebuild_encoder`."""
    encoder = rebuild_encoder(recorded, device, trained, weights=weights)
    choice = EncoderChoice.from_record(recorded["choice"])
    return LiveFeatures(encoder, tuple(recorded["layers"]), dataset, choice=choice)


def rebuild_encoder(
    recorded: Mapping[str, Any],
    device: str,
    trained: Mapping[str, torch.Tensor] | None = None,
    *,
    local_only: bool = False,
    weights: str | None = None,
) -> Encoder:
    """The encoder that features came from, `recorded` as they describe themselves.

    `trained` are the tensors of an encoder that a run trained, none for a frozen one. `weights` says where it is now,
    where that is not the recorded place. With `local_only`, nothing is downloaded for it.

    Raises:
        UsageError: it is not recorded, it cannot be loaded, or it is another one by now.
    """
    choice = EncoderChoice.from_record(recorded["choice"] or {})
    with offline() if local_only else nullcontext():
        encoder = build_encoder(replace(choice, weights=weights) if weights else choice, device=device)
    if encoder.describe() != recorded["encoder"] or encoder.input.describe() != recorded["preprocessing"]:
        raise UsageError(
            "the encoder has other weights or preprocessing than when its features were trained on",
            hint="name the folder of the right one, or extract and train again",
        )
    if trained:
        _load_trained(encoder, trained)
    return encoder


def require_same_encoder(own: Mapping[str, Any], other: Mapping[str, Any], *, run: str) -> None:
    """That other features than a run's own, as both describe themselves, are of the same encoder, on whatever media.

    Kinds of one family are one encoder when both were loaded from the same place: one may have fewer tensors, so that
    digests cannot tell.

    Raises:
        UsageError: they are of another encoder.
    """
    same = own["encoder"] == other["encoder"]
    if not same and family(own["encoder"].get("kind")) == family(other["encoder"].get("kind")) is not None:
        same = _source(own["choice"]) == _source(other["choice"]) is not None
    if not same:
        raise UsageError(
            f"{other['set']} was made by another encoder than the one that {run} was trained with",
            hint="extract with the same --encoder and --weights",
        )


def _load_trained(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the encoder the tensors that a training saved, by the names of an `EncoderModule`. Raises UsageError."""
    own: dict[str, torch.Tensor] = {}
    if isinstance(encoder, TrainableEncoder):
        own = {f"model.{name}": value for name, value in encoder.module.named_parameters()}
    differ = sorted(own.keys() ^ tensors.keys()) or [n for n in own if own[n].shape != tensors[n].shape]
    if differ:
        raise UsageError(f"the run's encoder is another one: {differ[0]} differs", hint="train again")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def _source(choice: Mapping[str, str] | None) -> tuple[Any, ...] | None:
    """Where an encoder's weights came from, as its feature set records it."""
    if not choice:
        return None
    fields = json.loads(choice["encoder"])
    return fields["weights"], fields["random_weights"], fields["seed"]
