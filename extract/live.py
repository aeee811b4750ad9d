"""The encoder of a recipe or of a trained run, and its features with no cache between: samples → tokens.

Does what a reader of cached features does, from media files, with an encoder that may be trained. Knows what feature
sources and runs record of an encoder, as JSON; knows no language model and no optimiser.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from epalm.cache.media_index import MediaIndex
from epalm.cache.spec import parse_layers
from epalm.console import warn
from epalm.errors import MediaError, UsageError
from epalm.extract.decoding.workers import default_workers
from epalm.extract.encoders.registry import (
    Encoder,
    EncoderChoice,
    TrainableEncoder,
    build_encoder,
    default_kind,
    default_weights,
    family,
    require_fit,
)
from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.extract.media.limits import collected_warnings, joined, require_status, without_option
from epalm.extract.spec_builder import feature_spec
from epalm.extract.stream import BatchEncoder
from epalm.fingerprint import digest_json
from epalm.recipes.settings import Config, EncoderSettings
from epalm.samples import Dataset, Modality, Sample
from epalm.weights import offline

_DIGITS = 12  # hex, of the number of a view


class LiveFeatures:
    """Features decoded and encoded when asked for; a view that samples of a batch share is encoded once."""

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        dataset: Dataset,
        *,
        view_seed: int | None = None,
        choice: EncoderChoice | None = None,
        index: MediaIndex | None = None,
    ) -> None:
        """`view_seed`: each training epoch draws another augmented view; None: always view 0.

        `choice` is what built the encoder, for `describe`. `index` remembers digests.
        """
        self._encoder, self._chosen, self._dataset, self._choice = encoder, layers, dataset, choice
        self._view_seed, self._index = view_seed, index
        self._digests: dict[str, str] = {}
        self._warned: set[str] = set()  # media that a warning was shown of
        self.layers, self.layout, self.width = len(layers), encoder.layout, encoder.width
        # Decoders release the interpreter's lock: threads suffice for one batch at a time.
        self._threads = ThreadPoolExecutor(default_workers(), "decode")

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        """The samples' features (B, L, T, D) float32: view 0, or a view drawn for each sample of a training epoch.

        Raises MediaError: a medium cannot be read; the message names it.
        """
        inputs, places = self._decoded(samples, epoch)
        batches = BatchEncoder(self._encoder, self._chosen, "float32", len(inputs))
        features: np.ndarray = batches.submit(inputs)()[places, 0]
        return features

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        """SHA-256 (hex) of each sample's medium; "" for one that cannot be read."""
        files = {}
        for media in {sample.media for sample in samples} - self._digests.keys():
            with suppress(MediaError):  # it is for the reading to say so
                files[media] = self._dataset.locate(media)
        hashed = self._index.digests([*files.values()]) if self._index else [one.digest() for one in files.values()]
        self._digests.update({media: digest for media, digest in zip(files, hashed, strict=True) if digest})
        return [self._digests.get(sample.media, "") for sample in samples]

    def describe(self) -> dict[str, Any]:
        """What decides the numbers, as JSON."""
        return {
            "source": "live",
            "encoder": self._encoder.describe(),
            "layers": list(self._chosen),
            "preprocessing": self._encoder.input.describe(),
            "version": feature_spec(self._encoder, self._chosen).version,
            "view_seed": self._view_seed,
            "choice": self._choice.to_record() if self._choice else None,
        }

    def _decoded(self, samples: Sequence[Sample], epoch: int | None) -> tuple[list[np.ndarray], list[int]]:
        """The raw inputs (1, ...) of each medium in each view that is wanted, and which of them is each sample's."""
        numbers = [0] * len(samples)
        if epoch is not None and self._view_seed is not None:  # views that no other sample and epoch are likely to draw
            numbers = [1 + int(digest_json([sample.id, epoch])[:_DIGITS], 16) for sample in samples]
        wanted = [(sample.media, number) for sample, number in zip(samples, numbers, strict=True)]
        place = {pair: number for number, pair in enumerate(dict.fromkeys(wanted))}
        inputs = list(self._threads.map(lambda pair: self._read(*pair), place))
        return inputs, [place[pair] for pair in wanted]

    def _read(self, media: str, number: int) -> np.ndarray:
        try:
            file, view = self._dataset.locate(media), VIEW_0
            require_status(file, self._encoder.input.limits)
            if number and self._view_seed is not None:
                if media not in self._digests:
                    self._digests[media] = file.digest() or ""
                view = view_of(self._digests[media], number, self._view_seed)
            with collected_warnings() as warnings:
                decoded = self._encoder.input(file, (view,))
        except MediaError as error:
            raise MediaError(f"{media}: {error.message}", hint=without_option(error.hint)) from error
        if (odd := joined(warnings)) and media not in self._warned:
            self._warned.add(media)
            warn(f"{media}: {odd.message}")
        return decoded


class EncoderModule(nn.Module):
    """Raw inputs (B, ...) → tokens (B, L, T, D) of chosen layers, with gradients; every tensor of it is trained."""

    def __init__(self, encoder: TrainableEncoder, layers: Sequence[int]) -> None:
        super().__init__()
        self.model = encoder.module.requires_grad_(True)
        self._encoder, self._layers = encoder, list(layers)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """See the class; `raw` is what the encoder's input gave, before its statistics."""
        inputs = self._encoder.input.normalise(raw.to(self._encoder.device))
        return self._encoder.encode(inputs, self._layers, torch.float32).float()


class TrainableFeatures(LiveFeatures):
    """As `LiveFeatures`; `gather` gives the tokens of the encoder as it is by then."""

    def __init__(self, encoder: Encoder, layers: tuple[int, ...], dataset: Dataset, **options: Any) -> None:
        """See `LiveFeatures`. Raises UsageError when the encoder cannot be trained."""
        if not isinstance(encoder, TrainableEncoder):
            raise UsageError(f"encoder {encoder.kind!r} cannot be trained", hint="leave out encoder.train")
        super().__init__(encoder, layers, dataset, **options)
        self.encoder = EncoderModule(encoder, layers)

    def inputs(self, samples: Sequence[Sample], *, epoch: int | None = None) -> torch.Tensor:
        """Raw inputs (B, ...) of the samples: view 0, or the view of a training epoch. Raises MediaError."""
        inputs, places = self._decoded(samples, epoch)
        return torch.from_numpy(np.concatenate(inputs)[places])


def choice_of(settings: EncoderSettings, modality: Modality, **options: Any) -> EncoderChoice:
    """The recipe's encoder, by default the modality's, with these options. Raises UsageError: it reads other media."""
    asked = settings.model_dump(include={"weights", "frames", "spec_augment", "tokens", "resize"}) | options
    return require_fit(EncoderChoice(settings.kind or default_kind(modality), **asked), modality)


def recipe_features(
    config: Config, modality: Modality, dataset: Dataset, device: str, index: MediaIndex | None = None
) -> LiveFeatures:
    """The recipe's encoder on the data set's media, its last layers; `index` as `LiveFeatures` takes it.

    On the playground the weights are the built-in world's, where it has some for the encoder. Raises UsageError: as
    `build_encoder` and `choice_of`.
    """
    weights = default_weights(config.encoder.kind or default_kind(modality), dataset.spec) or config.encoder.weights
    choice = choice_of(config.encoder, modality, weights=weights)
    encoder = build_encoder(choice, device=device)
    layers = parse_layers(f"last:{config.model.tokens}", range(encoder.depth))
    view_seed = config.optim.seed if config.data.augment else None
    source = TrainableFeatures if config.encoder.train else LiveFeatures
    return source(encoder, layers, dataset, view_seed=view_seed, choice=choice, index=index)


def rebuild_encoder(
    recorded: Mapping[str, Any],
    device: str,
    trained: Mapping[str, torch.Tensor] | None = None,
    *,
    local_only: bool = False,
    weights: str | None = None,
) -> Encoder:
    """The encoder that features came from, `recorded` as they describe themselves.

    `trained` are the tensors of an encoder that a run trained, by the names of an `EncoderModule`; none for a frozen
    one. `weights` says where it is now, where that is not the recorded place. With `local_only`, nothing is downloaded.
    Raises UsageError: it is not recorded, it cannot be loaded, or it is another one by now.
    """
    choice = EncoderChoice.from_record(recorded["choice"] or {})
    with offline() if local_only else nullcontext():
        encoder = build_encoder(replace(choice, weights=weights) if weights else choice, device=device)
    if encoder.describe() != recorded["encoder"] or encoder.input.describe() != recorded["preprocessing"]:
        fault = "the encoder has other weights or preprocessing than when its features were trained on"
        raise UsageError(fault, hint="name the folder of the right one, or extract and train again")
    if trained:
        tensors = {}
        if isinstance(encoder, TrainableEncoder):
            tensors = {f"model.{name}": value for name, value in encoder.module.named_parameters()}
        differ = sorted(tensors.keys() ^ trained.keys()) or [n for n in tensors if tensors[n].shape != trained[n].shape]
        if differ:
            raise UsageError(f"the run's encoder is another one: {differ[0]} differs", hint="train again")
        with torch.no_grad():
            for name, value in tensors.items():
                value.copy_(trained[name])
    return encoder


def require_same_encoder(own: Mapping[str, Any], other: Mapping[str, Any], *, run: str) -> None:
    """That other features than a run's own, as both describe themselves, are of the same encoder, on whatever media.

    Kinds of one family are one encoder when both were loaded from the same place: one may have fewer tensors, so that
    digests cannot tell. Raises UsageError: they are of another encoder.
    """
    same = own["encoder"] == other["encoder"]
    if not same and family(own["encoder"].get("kind")) == family(other["encoder"].get("kind")) is not None:
        places = [json.loads(one["choice"]["encoder"]) for one in (own, other) if one["choice"]]
        sources = [(place["weights"], place["random_weights"], place["seed"]) for place in places]
        same = len(sources) == 2 and sources[0] == sources[1]
    if not same:
        fault = f"{other['set']} was made by another encoder than the one that {run} was trained with"
        raise UsageError(fault, hint="extract with the same --encoder and --weights")
