"""A trained model out of a run folder."""

from dataclasses import dataclass
from typing import Any

import torch

from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.fingerprint import digest_tensors
from epalm.recipes.config import Config
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.text import TextFormat, load_text_format
from epalm.train.lm.load import lm_digest, load_lm
from epalm.train.runs.run_folder import RunFolder
from epalm.weights import pick_device

_ENCODER = "encoder."
_LM_FILES = "lm-files.json"  # in the run folder: the digest of the language model, and the state of its files


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with what it needs to be used.

    `encoder` are the tensors of an encoder that was trained too, by the names of its module; the model takes ready
    features. `trained` is the digest of everything that was trained.
    """

    folder: RunFolder
    config: Config
    model: EpalmModel
    text: TextFormat
    inputs: dict[str, Any]
    step: int
    encoder: dict[str, torch.Tensor]
    trained: str

    def decides(self) -> dict[str, Any]:
        """What of it decides a prediction, as JSON: trained tensors, frozen weights, and how they compute."""
        return {
            "trained": self.trained,
            "lm": self.inputs["lm"],
            "model": self.config.model.model_dump(mode="json"),
            "dtype": self.config.lm.dtype,
            "quantized": self.config.lm.quantized,
        }


def load_run(
    folder: RunFolder,
    *,
    device: str = "auto",
    checkpoint: str = "best",
    lm: str | None = None,
    empty: bool = False,
    write: bool = True,
) -> LoadedRun:
    """The run's model with its trained tensors; `lm` says where the language model is now [where the run names it].

    `empty`: the model has the language model's shapes alone, for who leaves computing to others. `write`: the run
    folder may keep the digest of the language model, so that it is not hashed again. Raises UsageError: a part of the
    run is missing, or the language model is not the one that it was trained with.
    """
    config, inputs = folder.config.with_lm(lm or folder.config.lm.name), folder.inputs
    tensors, step = folder.load(checkpoint)
    try:
        weights = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized, empty=empty)
    except UsageError as error:
        raise UsageError(error.message, hint=f"{error.hint}; --lm names where it is now") from error
    if not empty and lm_digest(weights, config.lm, folder.path / _LM_FILES, write=write) != inputs["lm"]:
        fault = f"{config.lm.name!r} has other weights than when {folder.name} was trained"
        raise UsageError(fault, hint="--lm names where the right one is; else train again")
    cls, grid = inputs.get("layout", {"cls": True, "grid": ()}).values()  # runs of 0.1 know of no others
    layout = TokenLayout(cls, tuple(grid))
    text, trained = load_text_format(config.lm.name, weights, config.text), digest_tensors(tensors)
    model = build_model(config, weights, int(inputs["width"]), layout=layout)
    encoder = {name.removeprefix(_ENCODER): tensors.pop(name) for name in [*tensors] if name.startswith(_ENCODER)}
    try:
        model.load_trainable(tensors)
    except ValueError as error:
        raise UsageError(f"{folder.path}: {error}", hint="train again") from error
    model = model.eval() if empty else model.to(pick_device(device)).eval()
    return LoadedRun(folder, config, model, text, inputs, step, encoder, trained)
