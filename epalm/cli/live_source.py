"""The recipe's encoder in the training loop."""

from pathlib import Path
from typing import TYPE_CHECKING

from epalm.samples import Dataset, Modality

if TYPE_CHECKING:
    from epalm.cache.media_index import MediaIndex
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
