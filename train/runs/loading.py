"""A trained model out of a run folder, once its language model is known to be that of the training."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel

from epalm.cache.objects.durable import write_atomically
from epalm.cache.token_rules import TokenLayout
from epalm.errors import UsageError
from epalm.fingerprint import digest_tensors
from epalm.recipes.config import Config
from epalm.recipes.settings import LmSettings
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.text import TextFormat, load_text_format
from epalm.train.lm.load import lm_source, load_lm
from epalm.train.runs.run_folder import RunFolder
from epalm.weights import pick_device

_ENCODER = "encoder."
_LM_FILES = "lm-files.json"  # in the run folder: the digest of the language model, and the state of its files
_WEIGHTS = (".json", ".safetensors", ".bin", ".gguf")
_SETTLED = 2.0  # seconds since a file's last change: one that is changed again at once may keep its size and times


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


def lm_digest(lm: PreTrainedModel, settings: LmSettings, index: Path, *, write: bool = True) -> str:
    """SHA-256 (hex) of the tensors as they were loaded.

    The file `index` keeps it beside path, size and times of the model's files: unchanged ones are not hashed again.
    `write` says whether it may be written.
    """
    files = _file_states(settings.name)
    key = [settings.dtype, settings.quantized, transformers.__version__, files]
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(index.read_bytes())
        if files and known["files"] == key:
            return str(known["digest"])
    digest = digest_tensors(lm.state_dict())
    if files and write:
        with suppress(OSError):  # a folder that cannot be written: hashed again the next time
            write_atomically(index, json.dumps({"files": key, "digest": digest}).encode())
    return digest


def _file_states(name: str) -> list[Any]:
    """Path, size and times of the model's files; none where they are not known, or were changed a moment ago."""
    source = lm_source(name)
    config = None if source.folder else try_to_load_from_cache(name, "config.json")
    folder = source.folder or (Path(config).parent if isinstance(config, str) else None)
    files = sorted(folder.iterdir()) if folder else []
    states = [(str(path.resolve()), path.stat()) for path in files if path.suffix in _WEIGHTS]
    if any(time.time() - max(state.st_mtime, state.st_ctime) < _SETTLED for _, state in states):
        return []
    return [[path, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for path, state in states]
