"""Which layers are stored, and what a feature set's fingerprint is made of. Knows no media and no files."""

import re

from epalm.cache.spec import FeatureSpec
from epalm.errors import UsageError
from epalm.extract.encoders.protocol import Encoder

DTYPES = ("float16", "float32")
# Of the code that reads a modality's media: raised when it would give other numbers for the same settings.
_VERSIONS = {"image": 3, "video": 3, "audio": 3}


def parse_layers(text: str, depth: int) -> tuple[int, ...]:
    """Block numbers from 0, shallow to deep, of "last:6", "all", "a-b" (both included) or "1,2,3".

    Raises:
        UsageError: another form, or a block that an encoder of `depth` blocks does not have.
    """
    text = text.strip().lower()
    if text == "all":
        return tuple(range(depth))
    if match := re.fullmatch(r"last:(\d{1,6})", text):
        count = int(match[1])
        numbers = list(range(depth - count, depth)) if count >= 1 else []
    elif match := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
        first, last = int(match[1]), int(match[2])
        numbers = list(range(first, min(last, depth) + 1))  # one too many is enough to be out of range
    elif re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        numbers = sorted({int(number) for number in text.split(",")})
    else:
        raise UsageError(f"--layers {text!r} is of no known form", hint="use last:6, all, 6-11 or 7,9,11")
    if not numbers or numbers[0] < 0 or numbers[-1] >= depth:
        raise UsageError(
            f"--layers {text!r} is out of range: the encoder has blocks 0 to {depth - 1}",
            hint=f"use last:{min(6, depth)}, or all",
        )
    return tuple(numbers)


def feature_spec(
    encoder: Encoder, layers: tuple[int, ...], dtype: str = "float16", *, view_seed: int = 0
) -> FeatureSpec:
    """Everything that decides the stored numbers; `view_seed` is what augmented views are drawn from.

    Raises:
        UsageError: a dtype that is not stored.
    """
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r} is not stored", hint=f"use {' or '.join(DTYPES)}")
    policy = encoder.input.describe_augmentation()
    return FeatureSpec(
        modality=encoder.modality.value,
        encoder=encoder.describe(),
        layers=layers,
        width=encoder.width,
        preprocessing=encoder.input.describe(),
        augmentation=None if policy is None else {**policy, "seed": view_seed},
        compute={"weights": "float32", "precision": encoder.precision},
        stored_dtype=dtype,
        version=_VERSIONS[encoder.modality.value],
    )
