"""Names for content: canonical JSON, files and tensors → SHA-256 digests.

Two things get the same digest exactly if every bit that decides them is the same. Paths, modification times,
dictionary order and memory layout never count.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_READ = 4 << 20  # bytes per read: large enough that hashing, not reading calls, is the cost


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces and no NaN: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises OSError."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_tensors(tensors: Mapping[str, "torch.Tensor"]) -> str:
    """SHA-256 (hex) of named tensors: name, dtype, shape and bytes of each, in name order."""
    import torch

    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        hasher.update(canonical_json(header))
        data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        hasher.update(data)
    return hasher.hexdigest()
