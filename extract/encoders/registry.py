"""The encoders there are, by name, and the one builder that reads a choice. Knows no media and no cache."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from epalm.devices import pick_device
from epalm.errors import UsageError
from epalm.extract.encoders.compute import Compute
from epalm.extract.encoders.protocol import Encoder
from epalm.extract.inputs.augment import SpecAugment
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Input
from epalm.extract.media.limits import Limits
from epalm.fingerprint import canonical_json
from epalm.playground import weights_folder
from epalm.samples import Modality
from epalm.weights import Source

PLAYGROUND = "playground"
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures that CLIP was trained on
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SPEC_AUGMENT = (24, 96)  # method: SpecAugment of the paper's best AudioCaps run


@dataclass(frozen=True)
class EncoderChoice:
    """What the user asks for. None means the encoder's own default.

    `weights` is a Hub name, a folder, or "playground" for the built-in world's; `frames` is of a clip;
    `modality` matters only to an encoder that reads several. `precision` is that of the matrix products;
    `reduced_jpeg` decodes large JPEGs at a fraction of their size. `augmented`: whether views 1 … V can be drawn;
    `spec_augment`: the widest frequency mask (mel bins) and time mask (frames) of audio's. `statistics`: mean and
    deviation of pixels, the encoder's "own" or "clip"'s, which the paper's public implementation takes for all.
    """

    kind: str
    weights: str | None = None
    random_weights: bool = False
    frames: int | None = None
    seed: int = 0
    modality: Modality | None = None
    precision: str = "float32"
    reduced_jpeg: bool = False
    augmented: bool = True
    spec_augment: tuple[int, int] = SPEC_AUGMENT
    statistics: str = "own"

    def to_record(self) -> dict[str, str]:
        """The choice as a feature set records it, so that `predict` can build the same encoder again."""
        return {"encoder": canonical_json(asdict(self)).decode()}

    @staticmethod
    def from_record(record: Mapping[str, str]) -> "EncoderChoice":
        """The choice that `to_record` wrote. Raises UsageError when the record has none, or a damaged one."""
        import json

        if "encoder" not in record:
            raise UsageError("the feature set does not say which encoder made it", hint="extract it again")
        try:
            fields = json.loads(record["encoder"])
            modality, masks = fields.pop("modality"), fields.pop("spec_augment", SPEC_AUGMENT)
            frequency, time = (int(width) for width in masks)
            return EncoderChoice(
                **fields, modality=Modality(modality) if modality else None, spec_augment=(frequency, time)
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # a set may come from anywhere
            raise UsageError(
                f"what the feature set says of its encoder is damaged: {error}", hint="extract it again"
            ) from error


@dataclass(frozen=True)
class _Kind:
    modalities: tuple[Modality, ...]
    playground: str  # whose weights of the built-in world fit
    has_frames: bool
    build: Callable[[Source, EncoderChoice, Compute], Encoder]


# Each builder imports its own model library: these take seconds, and one extraction needs one of them.


def _vit(source: Source, _choice: EncoderChoice, compute: Compute) -> Encoder:
    from epalm.extract.encoders.vit import build_vit

    return build_vit(source, compute)


def _frame_average(source: Source, choice: EncoderChoice, compute: Compute) -> Encoder:
    from epalm.extract.encoders.frame_average import DEFAULT_FRAMES, FrameAverage
    from epalm.extract.encoders.vit import build_vit

    return FrameAverage(build_vit(source, compute), choice.frames or DEFAULT_FRAMES)


def _divided(source: Source, choice: EncoderChoice, compute: Compute) -> Encoder:
    from epalm.extract.encoders.timesformer import build_timesformer

    return build_timesformer(source, compute, space_only=False, frames=choice.frames, modality=Modality.VIDEO)


def _space_only(source: Source, choice: EncoderChoice, compute: Compute) -> Encoder:
    from epalm.extract.encoders.timesformer import build_timesformer

    modality = choice.modality or Modality.IMAGE
    return build_timesformer(source, compute, space_only=True, frames=choice.frames, modality=modality)


def _ast(source: Source, _choice: EncoderChoice, compute: Compute) -> Encoder:
    from epalm.extract.encoders.audio_transformer import build_audio_transformer

    return build_audio_transformer(source, compute)


# The first one of a modality is its default.
ENCODERS: dict[str, _Kind] = {
    "vit": _Kind((Modality.IMAGE,), "image", False, _vit),
    "timesformer": _Kind((Modality.VIDEO,), "video", True, _divided),
    "timesformer-space": _Kind((Modality.IMAGE, Modality.VIDEO), "video", False, _space_only),
    "vit-frames": _Kind((Modality.VIDEO,), "image", True, _frame_average),
    "ast": _Kind((Modality.AUDIO,), "audio", False, _ast),
}


def parse_spec_augment(text: str) -> tuple[int, int] | None:
    """(frequency, time) of "24/96", None of "off". Raises UsageError."""
    if text == "off":
        return None
    widths = text.split("/")
    if len(widths) != 2 or not all(width.isascii() and width.isdigit() and len(width) < 6 for width in widths):
        raise UsageError(f"--spec-augment {text!r} is of no known form", hint="use 24/96, or off")
    return int(widths[0]), int(widths[1])


def default_kind(modality: Modality) -> str:
    """The name of the modality's default encoder."""
    return next(name for name, kind in ENCODERS.items() if modality in kind.modalities)


def require_fit(choice: EncoderChoice, modality: Modality) -> EncoderChoice:
    """The choice, for media of that modality. Raises UsageError when there is no such encoder for them."""
    fitting = [name for name, kind in ENCODERS.items() if modality in kind.modalities]
    if choice.kind not in fitting:
        fault = "does not read" if choice.kind in ENCODERS else "is unknown; asked for"
        raise UsageError(f"encoder {choice.kind!r} {fault} {modality} media", hint=f"use {' or '.join(fitting)}")
    return replace(choice, modality=modality)


def build_encoder(
    choice: EncoderChoice, *, device: str = "auto", compiled: bool = False, limits: Limits | None = None
) -> Encoder:
    """The chosen encoder with its weights, frozen, on the device; `limits` are for the media that it reads.

    Raises:
        UsageError: no such encoder, option or device, or its weights cannot be loaded.
    """
    if choice.kind not in ENCODERS:
        raise UsageError(f"there is no encoder {choice.kind!r}", hint=f"use one of: {', '.join(ENCODERS)}")
    kind = ENCODERS[choice.kind]
    if choice.frames is not None and not kind.has_frames:
        raise UsageError(f"encoder {choice.kind!r} has no --frames", hint="leave the option out")
    name = choice.weights
    if name == PLAYGROUND:
        name = str(weights_folder(kind.playground))
    source = Source(name, choice.random_weights, choice.seed)
    encoder = kind.build(source, choice, Compute(pick_device(device), choice.precision, compiled))
    encoder.input = _with_options(encoder.input, choice, limits or Limits())
    return encoder


def _with_options(read: Input, choice: EncoderChoice, limits: Limits) -> Input:
    """What the encoder reads, as the choice has it augmented and limited."""
    options: dict[str, Any] = {"limits": limits}
    if not choice.augmented:
        options["augmentation"] = None
    elif isinstance(read, AudioInput):
        options["augmentation"] = SpecAugment(*choice.spec_augment)
    if choice.statistics == "clip":
        if isinstance(read, AudioInput):
            raise UsageError("--statistics clip is for pixels", hint="leave the option out")
        options["pixels"] = replace(read.pixels, mean=_CLIP_MEAN, std=_CLIP_STD)  # type: ignore[attr-defined]
    elif choice.statistics != "own":
        raise UsageError(f"--statistics {choice.statistics!r} is unknown", hint="use own or clip")
    if choice.reduced_jpeg:
        if not isinstance(read, ImageInput):
            raise UsageError("--reduced-jpeg is for pictures", hint="leave the option out")
        options["reduced_jpeg"] = True
    return replace(read, **options)  # type: ignore[type-var]
