"""Versions of the libraries that change numbers: recorded beside a feature set, not part of its name."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("epalm", "torch", "timm", "transformers", "numpy", "pillow", "av", "soxr")
# What Pillow brings along to decode with loss: of what loses nothing, every version gives the same.
_CODECS = {
    "libjpeg_turbo": "libjpeg-turbo",
    "jpg": "libjpeg",
    "jpg_2000": "openjpeg",
    "webp": "libwebp",
    "avif": "libavif",
}


def library_versions() -> dict[str, str]:
    """Package or library → version, for those installed."""
    import av
    from PIL import features
    from soxr import __libsoxr_version__

    found = {"ffmpeg": str(av.ffmpeg_version_info), "libsoxr": str(__libsoxr_version__)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            continue
    return found | {name: str(known) for codec, name in _CODECS.items() if (known := features.version(codec))}
