"""What a feature set's fingerprint is made of. Knows no media and no files."""

from epalm.cache.spec import FeatureSpec
from epalm.errors import UsageError
from epalm.extract.encoders.protocol import Encoder

DTYPES = ("float16", "float32")
# Of the code that reads a modality's media: raised when it would give other numbers for the same settings.
_VERSIONS = {"image": 3, "video": 3, "audio": 3}


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
