"""The encoder that a trained run's features came from, built again: for its own features, and for media of a user's."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from epalm.errors import UsageError
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.encoders.registry import EncoderChoice, build_encoder, family
from epalm.extract.live import LiveFeatures
from epalm.extract.trained import load_trained
from epalm.samples import Dataset
from epalm.weights import offline


def live_features(
    features: Mapping[str, Any],
    dataset: Dataset,
    device: str,
    trained: Mapping[str, torch.Tensor],
    weights: str | None = None,
) -> LiveFeatures:
    """What a run's features were made by, on a data set; the other arguments are those of `rebuild_encoder`."""
    encoder = rebuild_encoder(features, device, trained, weights=weights)
    choice = EncoderChoice.from_record(features["choice"] or {})
    return LiveFeatures(encoder, tuple(features["layers"]), dataset, choice=choice)


def rebuild_encoder(
    features: Mapping[str, Any],
    device: str,
    trained: Mapping[str, torch.Tensor] | None = None,
    *,
    local_only: bool = False,
    weights: str | None = None,
) -> Encoder:
    """The encoder that a run's features, as they describe themselves, came from.

    `trained` are the tensors of an encoder that the run trained, none for a frozen one. With `local_only`, nothing is
    downloaded for it. `weights` says where it is now, where that is not the place that the run names.

    Raises:
        UsageError: the run does not say which, it cannot be loaded, or it is another one by now.
    """
    choice = EncoderChoice.from_record(features["choice"] or {})
    with offline() if local_only else nullcontext():
        encoder = build_encoder(replace(choice, weights=weights) if weights else choice, device=device)
    if encoder.describe() != features["encoder"] or encoder.input.describe() != features["preprocessing"]:
        raise UsageError(
            "the encoder has other weights or preprocessing than when its features were trained on",
            hint="name the folder of the right one, or extract and train again",
        )
    if trained:
        load_trained(encoder, trained)
    return encoder


def require_same_encoder(own: Mapping[str, Any], other: Mapping[str, Any], *, run: str) -> None:
    """That other features than a run's own, as both describe themselves, are of the same encoder, on whatever media.

    A TimeSformer with and without temporal attention is one encoder when both were loaded from the same place: the
    second has fewer tensors, so digests cannot tell.

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


def _source(choice: Mapping[str, str] | None) -> tuple[Any, ...] | None:
    """Where an encoder's weights came from, as its feature set records it."""
    if not choice:
        return None
    fields = json.loads(choice["encoder"])
    return fields["weights"], fields["random_weights"], fields["seed"]
