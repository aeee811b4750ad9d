"""The encoders by name, and the one builder that reads a choice. An encoder is one file.

Each file of this folder that declares `ENCODERS` (name → `EncoderKind`) is known, and so is each entry point of the
group `epalm.encoders` that an installed package declares (see docs/encoders.md). Imports nothing heavy: files import
their model library when they build, as the command line reads the names for `--help`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from epalm import PLAYGROUND
from epalm.cache.token_rules import TokenLayout, require_rule
from epalm.errors import UsageError
from epalm.extract.media.limits import Limits
from epalm.fingerprint import canonical_json
from epalm.playground import weights_folder
from epalm.plugins import load_plugin, plugins
from epalm.samples import Modality

if TYPE_CHECKING:
    import torch

    from epalm.extract.inputs.preprocess import Input
    from epalm.weights import Source

PLUG_INS = "epalm.encoders"  # group of entry points
# What options of few values may be, beside None where that is the default.
_VALUES = {
    "precision": ("float32", "bfloat16", "float16"),
    "resize": ("own", "stretch"),
    "statistics": ("own", "clip"),
}
_OTHER_FILES = {"pretrained", "registry", "transformer"}  # of this folder, that are no encoders
# Of the pictures that CLIP was trained on.
_CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
SPEC_AUGMENT = (24, 96)  # method: SpecAugment of the paper's best AudioCaps run


class Encoder(Protocol):
    """A frozen perceptual encoder and the input that it reads."""

    kind: str
    modality: Modality
    depth: int  # blocks
    width: int  # D
    input: "Input"
    layout: TokenLayout  # what the T tokens of a layer are
    device: "torch.device"
    precision: str  # of the matrix products: float32, or bfloat16 or float16 under autocast

    def describe(self) -> dict[str, Any]:
        """What decides its numbers, as JSON: kind, architecture, digest of the weights, token rule.

        Where these are not all there are or one: `tokens`, the rule, and `layout`, `cls` and `grid` of rule `all`; with
        `[CLS]` also `cls_token`, what `token` is by rule `cls`.

        Never a path or a Hub name: the same weights are the same encoder wherever they came from.
        """

    def encode(self, batch: "torch.Tensor", layers: Sequence[int], dtype: "torch.dtype") -> "torch.Tensor":
        """Tokens of these blocks (B, L, T, D) of stacked inputs (B, ...), as floating-point numbers of any kind.

        They will be stored as `dtype`: means over tokens are those of tokens that have been rounded to it (see
        `token_rules`). The batch may lie on any device; the result lies on the encoder's.
        """


@runtime_checkable
class TrainableEncoder(Encoder, Protocol):
    """An encoder whose model can be trained: gradients flow through `encode` once its tensors ask for them."""

    module: "torch.nn.Module"


@dataclass(frozen=True)
class EncoderChoice:
    """What the user asks for. None means the encoder's own default.

    `weights` is a Hub name, a folder, or "playground" for the built-in world's; `frames` is of a clip;
    `modality` matters only to an encoder that reads several. `precision` is that of the matrix products;
    `reduced_jpeg` decodes large JPEGs at a fraction of their size. `augmented`: whether views 1 … V can be drawn;
    `spec_augment`: the widest frequency mask (mel bins) and time mask (frames) of audio's. `statistics`: mean and
    deviation of pixels, the encoder's "own" or "clip"'s, which the paper's public implementation takes for all.
    `resize`: how view 0 comes to the encoder's size, as the model's "own" processor does or by "stretch".
    `tokens` is what is taken of each block's output, a rule of `token_rules`.
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
    resize: str | None = None
    tokens: str | None = None

    def to_record(self) -> dict[str, str]:
        """The choice as a feature set records it, so that `predict` can build the same encoder again."""
        return {"encoder": canonical_json(asdict(self)).decode()}

    @staticmethod
    def from_record(record: Mapping[str, str]) -> "EncoderChoice":
        """The choice that `to_record` wrote. Raises UsageError when the record has none, or a damaged one."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(EncoderChoice).validate_json(record.get("encoder", ""))
        except (ValidationError, TypeError) as error:  # a set may come from anywhere
            fault = f"the feature set's record of its encoder is missing or damaged: {' '.join(str(error).split())}"
            raise UsageError(fault, hint="extract it again") from error


@dataclass(frozen=True)
class Compute:
    """Where and how an encoder computes.

    Weights stay float32; `precision` is that of the matrix products, under autocast. `compiled` has torch.compile make
    kernels for the blocks: minutes once, then faster; rounding may differ.
    """

    device: "torch.device"
    precision: str = "float32"
    compiled: bool = False


@dataclass(frozen=True)
class EncoderKind:
    """An encoder as its file declares it. `build` gets the choice, where the weights are, and how to compute.

    `default`: it is taken for media of its modalities where none is named. `has_frames`: `--frames` applies.
    `playground`: whose weights of the built-in world fit. Kinds of one `family` that were loaded from the same place
    are the same encoder, whatever their digests say.
    """

    modalities: tuple[Modality, ...]
    build: "Callable[[EncoderChoice, Source, Compute], Encoder]"
    default: bool = False
    has_frames: bool = False
    playground: str | None = None
    family: str | None = None


@cache
def own_encoders() -> Mapping[str, EncoderKind]:
    """The encoders of this folder, by name."""
    kinds: dict[str, EncoderKind] = {}
    for _, name, _ in iter_modules([str(Path(__file__).parent)]):
        kinds |= {} if name in _OTHER_FILES else import_module(f"{__package__}.{name}").ENCODERS
    return kinds


def encoder_names() -> list[str]:
    """All there are, those of installed packages too; these are not imported for it."""
    return [*own_encoders(), *sorted(plugins(PLUG_INS).keys() - own_encoders().keys())]


def encoder_kind(name: str) -> EncoderKind:
    """What is declared of the encoder with that name. Raises UsageError: there is none, or its package is broken."""
    if name not in encoder_names():
        raise UsageError(f"there is no encoder {name!r}", hint=f"use one of: {', '.join(encoder_names())}")
    return own_encoders().get(name) or load_plugin(PLUG_INS, name, EncoderKind)


def family(name: str | None) -> str | None:
    """See `EncoderKind`; None for an encoder that is not installed any more."""
    return encoder_kind(name).family if name and name in encoder_names() else None


def default_kind(modality: Modality) -> str:
    """The name of the modality's default encoder."""
    return next(name for name, kind in own_encoders().items() if kind.default and modality in kind.modalities)


def default_weights(kind: str, data: str) -> str | None:
    """The built-in world's, on its data and for an encoder that they fit; else None, the encoder's own default."""
    return PLAYGROUND if data == PLAYGROUND and encoder_kind(kind).playground else None


def require_fit(choice: EncoderChoice, modality: Modality) -> EncoderChoice:
    """The choice, for media of that modality.

    Raises UsageError: there is no such encoder for them, or the built-in world has no weights for it.
    """
    kind, weights = encoder_kind(choice.kind), choice.weights
    if modality not in kind.modalities:
        fitting = [name for name in encoder_names() if modality in encoder_kind(name).modalities]
        raise UsageError(f"encoder {choice.kind!r} does not read {modality} media", hint=f"use {' or '.join(fitting)}")
    if weights == PLAYGROUND and not kind.playground:
        fault = f"the playground has no weights for encoder {choice.kind!r}"
        raise UsageError(fault, hint="leave --weights out for its published ones, or name others")
    if weights is not None and weights != PLAYGROUND and Path(weights).is_dir():
        weights = str(Path(weights).resolve())  # recorded, and found from anywhere
    return replace(choice, modality=modality, weights=weights)


def build_encoder(
    choice: EncoderChoice, *, device: str = "auto", compiled: bool = False, limits: Limits | None = None
) -> "Encoder":
    """The chosen encoder with its weights, frozen, on the device; `limits` are for the media that it reads.

    Raises UsageError: no such encoder, option or device, or its weights cannot be loaded.
    """
    from epalm.weights import Source, pick_device

    kind, name = encoder_kind(choice.kind), choice.weights
    if choice.frames is not None and not kind.has_frames:
        raise UsageError(f"encoder {choice.kind!r} has no --frames", hint="leave the option out")
    for option, values in _VALUES.items():
        if (value := getattr(choice, option)) not in (None, *values):
            raise UsageError(f"--{option} {value!r} is unknown", hint=f"use {' or '.join(values)}")
    if name == PLAYGROUND:  # in records of before it was refused also of a kind that it has none for
        name = str(weights_folder(kind.playground)) if kind.playground else None
    if choice.tokens is not None:
        require_rule(choice.tokens)
    source = Source(name, choice.random_weights, choice.seed)
    encoder = kind.build(choice, source, Compute(pick_device(device), choice.precision, compiled))
    if choice.tokens not in (None, getattr(encoder, "tokens", None)):
        raise UsageError(f"encoder {choice.kind!r} has no --tokens", hint="leave the option out")
    encoder.input = _with_options(encoder.input, choice, limits or Limits())
    return encoder


def parse_spec_augment(text: str) -> tuple[int, int] | None:
    """(frequency, time) of "24/96", None of "off". Raises UsageError."""
    widths = re.fullmatch("([0-9]{1,5})/([0-9]{1,5})", text)
    if widths is None and text != "off":
        raise UsageError(f"--spec-augment {text!r} is of no known form", hint="use 24/96, or off")
    return (int(widths[1]), int(widths[2])) if widths else None


def _with_options(read: Any, choice: EncoderChoice, limits: Limits) -> "Input":
    """What the encoder reads, as the choice has it augmented and limited."""
    from epalm.extract.inputs.augment import SpecAugment
    from epalm.extract.inputs.preprocess import ImageInput

    options: dict[str, Any] = {"limits": limits}
    pixels: Any = getattr(read, "pixels", None)  # none of sounds, and of some plug-ins' own inputs
    if not choice.augmented:
        options["augmentation"] = None
    elif isinstance(read.augmentation, SpecAugment):
        options["augmentation"] = SpecAugment(*choice.spec_augment)
    clip = choice.statistics == "clip"
    for option, asked in (("--statistics clip", clip), (f"--resize {choice.resize}", choice.resize is not None)):
        if asked and pixels is None:
            raise UsageError(f"encoder {choice.kind!r} has no {option}: it is for pixels", hint="leave the option out")
    if clip:
        options["pixels"] = replace(pixels, **_CLIP)
    if choice.reduced_jpeg:
        if not isinstance(read, ImageInput) or pixels.fit:
            raise UsageError("--reduced-jpeg is for pictures and --resize stretch", hint="leave the option out")
        options["reduced_jpeg"] = True
    return replace(read, **options)  # type: ignore[no-any-return]
