"""The playground: a built-in world with tiny pretrained models, so that everything runs with nothing downloaded."""

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def weights_folder(name: str) -> Path:
    """The folder of a model that ships with the package: "lm", "image", "video" or "audio"."""
    return _WEIGHTS / name
