"""Whether a model's folder holds what its config promises: known from the files' first bytes, before they are loaded.

Knows files; knows no model library. Whoever loads them finds out the rest.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from epalm.errors import UsageError

_POINTER = b"version https://git-lfs.github.com/spec/"
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read, or one in parts before the next
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_OF_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_HEADER_CAP = 100 << 20  # bytes; the format's own limit
_AGAIN = "copy or download it again"


def require_whole(folder: Path, what: str) -> None:
    """Raise UsageError where weights or settings are cut off, damaged, or pointers of Git LFS."""
    _require_objects(folder, _SETTINGS)
    for path in _weights(folder):
        if not path.is_file():
            raise UsageError(f"{path}, a part of the weights for the {what}, is not there", hint=_AGAIN)
        _require_no_pointer(path)
        if path.suffix == ".safetensors":
            _require_whole_safetensors(path)
        elif _begins_with(path, b"PK") and not zipfile.is_zipfile(path):  # its directory is at its end
            raise UsageError(f"{path} is cut off: it has {path.stat().st_size:,} bytes", hint=_AGAIN)


def require_tokenizer(folder: Path) -> None:
    """Raise UsageError where the folder holds no tokenizer, or a damaged one."""
    names = next((names for names in _TOKENIZERS if all((folder / name).is_file() for name in names)), None)
    if names is None:
        raise UsageError(
            f"{folder} holds no tokenizer for the language model",
            hint="copy tokenizer.json, or vocab.json and merges.txt, from where its weights were published",
        )
    _require_objects(folder, _OF_TOKENIZERS)
    for name in names:
        _require_no_pointer(folder / name)
    _require_objects(folder, [name for name in names if name.endswith(".json")])


def _weights(folder: Path) -> Iterator[Path]:
    """The files that loading reads, those of an index included; none where there are no weights."""
    for name in _WHOLE:
        if (folder / name).is_file():
            yield folder / name
            return
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = _read_object(index).get("weight_map")
            names: set[str] = set(map(str, parts.values())) if isinstance(parts, dict) else set()
            if not names or not all(Path(part).name == part and Path(part).suffix for part in names):
                raise UsageError(f"{index} does not name the files that it is an index of", hint=_AGAIN)
            yield from (folder / part for part in sorted(names))
            return


def _require_objects(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (folder / name).is_file():
            _read_object(folder / name)


def _read_object(path: Path) -> dict[str, Any]:
    _require_no_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is cut off, or no JSON: {error}", hint=_AGAIN) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object", hint=_AGAIN)
    return value


def _require_no_pointer(path: Path) -> None:
    if _begins_with(path, _POINTER):
        raise UsageError(
            f"{path} is a pointer of Git LFS, not the file itself: its repository was cloned without git-lfs",
            hint="git lfs install && git lfs pull in that repository, or download the file",
        )


def _begins_with(path: Path, beginning: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _require_whole_safetensors(path: Path) -> None:
    """Eight bytes with the header's length, the header in JSON with each tensor's place, the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 8 + length <= size and length <= _HEADER_CAP else b""
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        wanted = 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise UsageError(f"{path} is cut off or no safetensors file: its header cannot be read", hint=_AGAIN) from error
    if wanted != size:
        what = "is cut off" if wanted > size else "is damaged"
        raise UsageError(f"{path} {what}: it has {size:,} bytes, and its header says {wanted:,}", hint=_AGAIN)
