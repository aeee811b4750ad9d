"""How an answer comes back from a decoding process: a header of fixed length, texts, an array's raw bytes.

The receiving end believes nothing: types and sizes are checked before memory is taken, and nothing is ever
unpickled, so a decoder that a file has taken over cannot run code here. Knows sockets and arrays; knows no media.
"""

import math
import socket
import struct
import time
from typing import Any, NamedTuple

import numpy as np

from epalm.errors import MediaError
from epalm.extract.media.limits import MediaWarning

READY = b"+"  # sent once, when a process can decode
MAX_BYTES = 1 << 30  # of one array
HEADER = struct.Struct("<dIBB8Q")  # seconds, bytes of texts, type (0: no array), axes, lengths of these
_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.uint8), np.dtype(np.float32))
_MAX_AXES = 8
_MAX_TEXT = 500  # characters of a message: it becomes one ledger line


class Answer(NamedTuple):
    """One medium's array, or why there is none; `seconds` is what decoding it took. A `warning` is about an array."""

    result: np.ndarray | MediaError
    seconds: float
    warning: MediaWarning | None = None


class GarbledError(Exception):
    """What came is not an answer."""


def sendable(array: np.ndarray) -> np.ndarray:
    """The array as `send_answer` takes it. Raises TypeError: not uint8 or float32; MediaError: above `MAX_BYTES`."""
    if not isinstance(array, np.ndarray) or array.dtype not in _DTYPES:
        raise TypeError(f"{getattr(array, 'dtype', type(array).__name__)}, where uint8 or float32 is expected")
    if array.nbytes > MAX_BYTES:
        hint = "ask for fewer views or frames of it at a time"
        raise MediaError(f"it decodes to {array.nbytes / 1e9:.1f} GB", hint=hint)
    return np.ascontiguousarray(array)


def send_answer(pipe: socket.socket, answer: Answer) -> None:
    """Raises OSError when nobody listens any more."""
    result, about = answer.result, answer.warning
    kind, shape, body = 0, tuple[int, ...](), memoryview(b"")
    if isinstance(result, MediaError):
        about = MediaWarning(result.message, result.hint)
    else:
        kind, shape, body = 1 + _DTYPES.index(result.dtype), result.shape, _bytes(result)
    lines = [plain(text) for text in (about.message, about.hint) if text is not None] if about else []
    texts = "\n".join(lines).encode()
    lengths = [*shape, *[0] * (_MAX_AXES - len(shape))]
    header = HEADER.pack(answer.seconds, len(texts), kind, len(shape), *lengths)
    pipe.sendall(b"".join((header, texts, body)))  # in one go: the other end wakes up once


def receive_answer(pipe: socket.socket, timeout: float) -> Answer:
    """The next answer, if it comes within `timeout` seconds.

    Raises:
        TimeoutError, EOFError, OSError: none came; the other end has closed.
        GarbledError: something else came.
    """
    header = bytearray(HEADER.size)
    deadline = time.monotonic() + timeout
    _fill(pipe, memoryview(header), deadline)
    seconds, size, kind, axes, *lengths = HEADER.unpack(header)
    if not 0 <= seconds < math.inf or size > 10 * _MAX_TEXT or kind > len(_DTYPES) or axes > _MAX_AXES:
        raise GarbledError("an impossible header")
    shape, dtype = tuple(lengths[:axes]), _DTYPES[kind - 1]
    if math.prod(length or 1 for length in shape) * dtype.itemsize > MAX_BYTES:
        raise GarbledError("an array of impossible size")
    texts = bytearray(size)
    _fill(pipe, memoryview(texts), deadline)
    message, *hints = map(plain, texts.decode(errors="replace").split("\n", 1))
    hint = hints[0] if hints else None
    if not kind:
        return Answer(MediaError(message, hint=hint), seconds)
    array = np.empty(shape, dtype)
    _fill(pipe, _bytes(array), deadline)
    return Answer(array, seconds, MediaWarning(message, hint) if size else None)


def plain(text: str) -> str:
    """One line of at most 500 characters, without control characters: it goes to terminals and ledgers."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_TEXT])


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(pipe: socket.socket, left: memoryview, deadline: float) -> None:
    """Receive into place: nothing is copied once more, and the interpreter's lock is free while waiting."""
    while left:
        pipe.settimeout(max(deadline - time.monotonic(), 1e-3))
        count = pipe.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
