"""Encoders outside extraction: in the training loop, and again for a trained run."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.samples import Dataset, Modality

if TYPE_CHECKING:
    import torch

    from epalm.cache.media_index import MediaIndex
    from epalm.extract.encoders.protocol import Encoder
    from epalm.extract.encoders.registry import EncoderChoice
    from epalm.extract.live import LiveFeatures
    from epalm.settings import EncoderSettings


def recipe_features(
    settings: "EncoderSettings",
    modality: Modality,
    data: str,
    dataset: Dataset,
    tokens: int,
    device: str,
    *,
    view_seed: int | None,
    index: "MediaIndex | None" = None,
) -> "LiveFeatures":
    """The recipe's encoder, by default the modality's, on the data set's media; its last `tokens` layers.

    Views and `index` as `LiveFeatures`. On the playground the weights are the built-in world's.

    Raises:
        UsageError: as `build_encoder`, or the encoder does not read such media.
    """
    from epalm.cache.spec import parse_layers
    from epalm.extract.encoders.registry import build_encoder
    from epalm.extract.live import LiveFeatures
    from epalm.extract.trained import TrainableFeatures

    choice = choice_of(settings, modality, "playground" if data == "playground" else settings.weights)
    encoder = build_encoder(choice, device=device)
    layers = parse_layers(f"last:{tokens}", encoder.depth)
    source = TrainableFeatures if settings.train else LiveFeatures
    return source(encoder, layers, dataset, view_seed=view_seed, choice=choice, index=index)


def choice_of(
    settings: "EncoderSettings", modality: Modality, weights: str | None, statistics: str = "own"
) -> "EncoderChoice":
    """The recipe's encoder with these weights. Raises UsageError when it does not read such media."""
    from epalm.extract.encoders.registry import EncoderChoice, default_kind, require_fit

    if weights is not None and Path(weights).is_dir():
        weights = str(Path(weights).resolve())  # recorded with the run, and found from anywhere
    return require_fit(
        EncoderChoice(
            settings.kind or default_kind(modality),
            weights,
            frames=settings.frames,
            spec_augment=settings.spec_augment,
            statistics=statistics,
        ),
        modality,
    )


def live_features(
    told: dict[str, Any],
    dataset: Dataset,
    device: str,
    trained: "Mapping[str, torch.Tensor]",
    weights: str | None = None,
) -> "LiveFeatures":
    """What a run's features were made by, on a data set; `trained` and `weights`: see `rebuild_encoder`."""
    from epalm.extract.encoders.registry import EncoderChoice
    from epalm.extract.live import LiveFeatures

    choice = EncoderChoice.from_record(told["choice"] or {})
    encoder = rebuild_encoder(told, device, trained, weights=weights)
    return LiveFeatures(encoder, tuple(told["layers"]), dataset, choice=choice)


def rebuild_encoder(
    told: dict[str, Any],
    device: str,
    trained: "Mapping[str, torch.Tensor] | None" = None,
    *,
    local_only: bool = False,
    weights: str | None = None,
) -> "Encoder":
    """The encoder that a run's features came from; with `local_only`, nothing is downloaded for it.

    `trained` are the tensors of an encoder that the run trained, none for a frozen one. `weights` says where it is
    now, where that is not the place that the run names.

    Raises:
        UsageError: the run does not say which, it cannot be loaded, or it is another one by now.
    """
    from epalm.extract.encoders.registry import EncoderChoice, build_encoder
    from epalm.extract.trained import load_trained
    from epalm.weights import offline

    choice = EncoderChoice.from_record(told["choice"] or {})
    with offline() if local_only else nullcontext():
        encoder = build_encoder(replace(choice, weights=weights) if weights else choice, device=device)
    if encoder.describe() != told["encoder"] or encoder.input.describe() != told["preprocessing"]:
        raise UsageError(
            "the encoder has other weights or preprocessing than when its features were trained on",
            hint="name the folder of the right one, or extract and train again",
        )
    if trained:
        load_trained(encoder, trained)
    return encoder
