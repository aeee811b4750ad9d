"""Frozen models' weights: from the Hub by name, from a local folder, or drawn at random when that is asked for.

Only safetensors, or pickles limited to tensors, are read; no code from a repository runs. Files that are cut off,
damaged or pointers of Git LFS are named before anything is loaded, and what the model libraries raise becomes one
message that says what to do.
"""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from epalm.errors import EpalmError, UsageError
from epalm.fingerprint import digest_tensors
from epalm.plugins import require_package

Loaded = TypeVar("Loaded")
_POINTER = b"version https://git-lfs.github.com/spec/"
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read, or one in parts before the next
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_OF_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Source:
    """Where weights come from: a Hub name or a folder (None: the default), or a random draw.

    `option` is the setting that named it, for messages.
    """

    name: str | None
    random: bool = False
    seed: int = 0
    option: str = "--weights"

    @property
    def folder(self) -> Path | None:
        """The local folder, where `name` is one."""
        path = Path(self.name) if self.name else None
        return path.resolve() if path and path.is_dir() else None

    @property
    def gguf(self) -> str | None:
        """Name of the GGUF file in the folder, where that has no other weights.

        Raises UsageError: there are several, or the package that reads them is not installed.
        """
        folder = self.folder
        files = sorted(path.name for path in folder.glob("*.gguf")) if folder else []
        if not (folder and files) or any(any(folder.glob(f"{name}*")) for name in _WHOLE):
            return None
        if len(files) > 1:
            raise UsageError(
                f"{folder} has {len(files)} GGUF files: {', '.join(files)}",
                hint="put the one to load into a folder of its own",
            )
        require_package("gguf", f"{self.option} {self.name!r}, a GGUF file,", "gguf")
        return files[0]

    def location(self) -> dict[str, str]:
        """It, as arguments of `from_pretrained` of transformers' models, configurations and tokenizers."""
        named = {"pretrained_model_name_or_path": str(self.folder or self.name)}
        return named if self.gguf is None else {**named, "gguf_file": self.gguf}


def pick_device(name: str) -> torch.device:
    """The device of that name, to have weights on; "auto" takes a GPU where there is one. Raises UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        fault = f"device {name!r} cannot be used: {str(error).splitlines()[0]}"
        raise UsageError(fault, hint="--device cpu always works") from error
    return device


def load(source: Source, what: str, build: Callable[[], Loaded]) -> Loaded:
    """`build()`, whose faults become one message.

    Raises UsageError: the weights are not there, not whole, not reachable, or of another architecture.
    """
    from transformers.utils.logging import disable_progress_bar

    name = source.name or ""
    if source.folder:
        if source.gguf:
            _read(source.folder / source.gguf)
        elif not source.random:
            _require_whole(source.folder, what)
    elif name and (Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UsageError(
            f"{source.option} {name!r}, for the {what}, is not a folder",
            hint="give a folder with config.json and model.safetensors, or a Hub name",
        )
    disable_progress_bar()
    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # of the libraries while they try: what matters is in the error
    try:
        with contextlib.redirect_stderr(io.StringIO() if source.gguf else sys.stderr):  # a bar that nothing else hides
            return build()
    except EpalmError:
        raise
    except Exception as error:  # of a dozen libraries, whose own are children of this class alone
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if source.folder:
            message = f"{source.folder} holds no weights for the {what}: {first}"
            hint = "the folder needs config.json and model.safetensors of that architecture"
            if source.gguf:
                hint = "copy or download the file again, or take the model's config.json and model.safetensors"
        else:
            message = f"cannot load the {what}'s weights {source.name!r}: {first}"
            hint = f"with no network: download the model elsewhere, then name its folder in {source.option}"
            if source.option == "--weights":
                hint += "; --random-weights tries the pipeline without"
        raise UsageError(message, hint=hint) from error
    finally:
        logging.disable(silenced)


def from_pretrained(
    model_class: Any,
    source: Source,
    what: str,
    config: Any = None,
    dtype: torch.dtype = torch.float32,
    quantization: Any = None,
    **options: Any,
) -> nn.Module:
    """A transformers model with `source`'s weights; `quantization` is one of transformers' configurations of it.

    `options` go to the class.

    Raises UsageError: see `load`; also when the checkpoint leaves part of the model without weights.
    """

    def build() -> nn.Module:
        model, report = model_class.from_pretrained(
            **source.location(),
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if quantization is None else {"quantization_config": quantization}),
            **options,
        )
        require_none_missing(report["missing_keys"])
        return model  # type: ignore[no-any-return]

    return load(source, what, build)


def require_none_missing(names: Iterable[str]) -> None:
    """Raise ValueError, for `load`, where a checkpoint lacks tensors of those names: they would be drawn at random."""
    if absent := sorted(names):
        raise ValueError(f"it lacks {len(absent)} tensors of the model, among them {absent[0]}")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Only what is on this machine already is loaded: the Hub is not asked."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def seeded(source: Source) -> Iterator[None]:
    """Random initialisation depends on the seed alone, and nobody else's random numbers on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        yield


def freeze(model: nn.Module) -> str:
    """Make the model ready to encode, in float32; returns the digest of its tensors."""
    model.float().eval().requires_grad_(False)
    return digest_tensors(model.state_dict())


def require_tokenizer(folder: Path) -> None:
    """Raise UsageError where the folder, which has no GGUF file, holds no tokenizer, or a damaged one."""
    names = next((names for names in _TOKENIZERS if all((folder / name).is_file() for name in names)), None)
    if names is None:
        raise UsageError(
            f"{folder} holds no tokenizer for the language model",
            hint="copy tokenizer.json, or vocab.json and merges.txt, from where its weights were published",
        )
    for path in (folder / name for name in (*_OF_TOKENIZERS, *names)):
        if path.is_file():
            _read(path)


def _require_whole(folder: Path, what: str) -> None:
    """Raise UsageError where weights or settings are cut off, damaged, or pointers of Git LFS."""
    paths = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    for name in _WHOLE:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            paths.append(folder / name)
            break
        if index.is_file():
            parts = _read(index).get("weight_map")
            names: set[str] = set(map(str, parts.values())) if isinstance(parts, dict) else set()
            if not names or not all(Path(part).name == part and Path(part).suffix for part in names):
                raise UsageError(f"{index} does not name the files that it is an index of", hint=_AGAIN)
            paths += [folder / part for part in sorted(names)]
            break
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}, a part of the weights for the {what}, is not there", hint=_AGAIN)
        _read(path)


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} of another. Raises UsageError: cut off, damaged, or a pointer of Git LFS."""
    from safetensors import SafetensorError, safe_open

    value: Any = {}
    try:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise UsageError(
                    f"{path} is a pointer of Git LFS, not the file itself: its repository was cloned without git-lfs",
                    hint="git lfs install && git lfs pull in that repository, or download the file",
                )
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):  # reads the header and holds it against the file's size
                pass
        elif path.suffix == ".json":
            value = json.loads(path.read_bytes())
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is cut off or damaged: {error}", hint=_AGAIN) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object", hint=_AGAIN)
    return value
