"""What a feature set is named by and what is recorded beside it: its spec and library versions. Knows no media."""

from importlib.metadata import version

from epalm import __version__
from epalm.cache.spec import FeatureSpec
from epalm.errors import UsageError
from epalm.extract.encoders.registry import Encoder

DTYPES = ("float16", "float32")
# Of the code that reads a modality's media: raised when it would give other numbers for the same settings.
_VERSIONS = {"image": 3, "video": 3, "audio": 3}
_PACKAGES = ("torch", "torchvision", "timm", "transformers", "numpy", "pillow", "av", "soxr")
# What Pillow brings along to decode with loss: of what loses nothing, every version gives the same.
_CODECS = {
    "libjpeg_turbo": "libjpeg-turbo",
    "jpg": "libjpeg",
    "jpg_2000": "openjpeg",
    "webp": "libwebp",
    "avif": "libavif",
}


def feature_spec(
    encoder: Encoder, layers: tuple[int, ...], dtype: str = "float16", *, view_seed: int = 0
) -> FeatureSpec:
    """All that decides the stored numbers; augmented views are drawn from `view_seed`. Raises UsageError: the dtype."""
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
        tokens=encoder.layout.tokens,
    )


def would_give(encoder: Encoder, spec: FeatureSpec) -> bool:
    """Whether an encoder gives the numbers that a feature set of this spec holds."""
    seed = spec.view_seed
    return feature_spec(encoder, spec.layers, spec.stored_dtype, view_seed=seed).fingerprint == spec.fingerprint


def library_versions() -> dict[str, str]:
    """Package or library that can change numbers → version."""
    import av
    from PIL import features
    from soxr import __libsoxr_version__

    libraries = {"epalm": __version__, "ffmpeg": str(av.ffmpeg_version_info), "libsoxr": str(__libsoxr_version__)}
    codecs = {name: str(known) for codec, name in _CODECS.items() if (known := features.version(codec))}
    return libraries | {package: version(package) for package in _PACKAGES} | codecs
