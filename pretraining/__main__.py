"""`python -m pretraining MODEL...`: train the playground's models again and write them into the package."""

import argparse
from importlib import import_module
from pathlib import Path

from epalm.playground import weights_folder

MODELS = {"lm": "language", "image": "image", "video": "video", "audio": "audio"}


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    parser.add_argument("models", nargs="+", choices=(*MODELS, "all"))
    parser.add_argument("--out", type=Path, help="folder for the weights [default: inside the package]")
    arguments = parser.parse_args()
    names = list(MODELS) if "all" in arguments.models else arguments.models
    for name in names:
        out = arguments.out / name if arguments.out else weights_folder(name)
        import_module(f"pretraining.{MODELS[name]}").pretrain(out)


if __name__ == "__main__":
    main()
