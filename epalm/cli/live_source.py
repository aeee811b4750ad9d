"""Encoders outside extraction: in the training loop, and again for a trained run."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from epalm.errors import UsageError
from epalm.samples import Dataset, Modality

if TYPE_CHECKING:
    from epalm.extract.encoder import Encoder
    from epalm.extract.live import LiveFeatures


def default_live_features(
    modality: Modality, data: str, dataset: Dataset, tokens: int, device: str, *, view_seed: int | None
) -> "LiveFeatures":
    """The modality's default encoder on the data set's media; its last `tokens` layers; views as `LiveFeatures`."""
    from epalm.extract.encoders import EncoderChoice, build_encoder, default_kind
    from epalm.extract.live import LiveFeatures
    from epalm.extract.selection import parse_layers

    weights = "playground" if data == "playground" else None
    choice = EncoderChoice(default_kind(modality), weights, modality=modality)
    encoder = build_encoder(choice, device=device)
    layers = parse_layers(f"last:{tokens}", encoder.depth)
    return LiveFeatures(encoder, layers, dataset, view_seed=view_seed, choice=choice)


def live_features(told: dict[str, Any], dataset: Dataset, device: str) -> "LiveFeatures":
    """What a run's features were made by, on a data set. Raises UsageError as `rebuild_encoder`."""
    from epalm.extract.encoders import EncoderChoice
    from epalm.extract.live import LiveFeatures

    choice = EncoderChoice.from_record(told["choice"] or {})
    return LiveFeatures(rebuild_encoder(told, device), tuple(told["layers"]), dataset, choice=choice)


def rebuild_encoder(told: dict[str, Any], device: str, *, local_only: bool = False) -> "Encoder":
    """The encoder that a run's features came from; with `local_only`, nothing is downloaded for it.

    Raises:
        UsageError: the run does not say which, it cannot be loaded, or it is another one by now.
    """
    from epalm.extract.encoders import EncoderChoice, build_encoder
    from epalm.weights import offline

    with offline() if local_only else nullcontext():
        encoder = build_encoder(EncoderChoice.from_record(told["choice"] or {}), device=device)
    if encoder.describe() != told["encoder"] or encoder.input.describe() != told["preprocessing"]:
        raise UsageError(
            "the encoder has other weights or preprocessing than when its features were trained on",
            hint="extract and train again",
        )
    return encoder
