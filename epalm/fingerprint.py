"""Names for content: canonical JSON, files and tensors → SHA-256 digests.

Two things get the same digest exactly if every bit that decides them is the same. Paths, modification times,
dictionary order and memory layout never count.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_READ = 1 << 20  # bytes per read: large enough that hashing, not reading calls, is the cost


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces and no NaN: equal values give equal bytes.

    A lone surrogate, as of a file name that is not UTF-8, is written as its escape.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(
    path: Path, offset: int = 0, size: int | None = None, *, pulse: Callable[[], None] | None = None
) -> str:
    """SHA-256 (hex) of a regular file's bytes, or of the `size` bytes from `offset` on.

    `pulse` is called before each read; what it raises ends the reading. Raises OSError: unreadable, a pipe, device or
    folder, or no `size` bytes there.
    """
    hasher = hashlib.sha256()
    left = math.inf if size is None else size
    # A pipe would block until someone writes.
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is not a regular file")
        file.seek(offset)
        while left > 0:
            if pulse is not None:
                pulse()
            if not (chunk := file.read(int(min(_READ, left)))):
                break
            hasher.update(chunk)
            left -= len(chunk)
    if size is not None and left:
        raise OSError(f"{path} ends {left} bytes early")
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
