"""Versions of the libraries that change numbers: recorded beside a feature set, not part of its name."""

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "epalm",
    "torch",
    "timm",
    "transformers",
    "pillow",
    "av",
    "soxr",
)


def library_versions() -> dict[str, str]:
    """Package → version, for those installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            continue
    return found
