"""How an answer comes back from a decoding process: a JSON header of fixed length, texts, an array's raw bytes.

The receiving end believes nothing: types and sizes are checked before memory is taken, and nothing is ever
unpickled, so a decoder that a file has taken over cannot run code here. Knows sockets and arrays; knows no media.
"""

import json
import math
import socket
import time
from typing import Any, NamedTuple

import numpy as np

from epalm.errors import MediaError
from epalm.extract.media.media_warnings import MediaWarning

MAX_BYTES = 1 << 30  # of one array
_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype(np.uint8), "float32": np.dtype(np.float32)}
_HEADER = 256  # bytes: JSON, filled up with spaces
_MAX_TEXTS = 1 << 14  # bytes of JSON: a message and a hint, of up to twelve bytes a character
_MAX_AXES = 8
_MAX_TEXT = 500  # characters of a message: it becomes one ledger line
_TRANSFER = 60.0  # seconds for all that follows a header


class Answer(NamedTuple):
    """One medium's array, or why there is none; `seconds` is what decoding it took.

    `warning` is what there is to say of a medium that has an array; what is said of another is not sent.
    """

    result: np.ndarray | MediaError
    seconds: float
    warning: MediaWarning | None = None


class GarbledError(Exception):
    """What came is not an answer."""


def sendable(array: np.ndarray) -> np.ndarray:
    """The array as `send_answer` takes it.

    Raises:
        TypeError: neither uint8 nor float32.
        MediaError: more than `MAX_BYTES`.
    """
    if not isinstance(array, np.ndarray) or array.dtype not in _DTYPES.values():
        raise TypeError(f"{getattr(array, 'dtype', type(array).__name__)}, where uint8 or float32 is expected")
    if array.nbytes > MAX_BYTES:
        raise MediaError(
            f"it decodes to {array.nbytes / 1e9:.1f} GB", hint="ask for fewer views or frames of it at a time"
        )
    return np.ascontiguousarray(array)


def send_answer(pipe: socket.socket, answer: Answer) -> None:
    """Raises OSError when nobody listens any more."""
    result, about = answer.result, answer.result if isinstance(answer.result, MediaError) else answer.warning
    texts = json.dumps([plain(about.message), about.hint and plain(about.hint)]).encode() if about else b""
    header: dict[str, Any] = {"seconds": answer.seconds, "texts": len(texts)}
    body = memoryview(b"")
    if not isinstance(result, MediaError):
        header |= {"dtype": result.dtype.name, "shape": result.shape}
        body = _bytes(result)
    head = json.dumps(header).encode().ljust(_HEADER) + texts
    sent = pipe.sendmsg([head, body])  # in one go: the other end wakes up once
    pipe.sendall(head[sent:])  # unless a signal came in between
    pipe.sendall(body[max(0, sent - len(head)) :])


def receive_answer(pipe: socket.socket, timeout: float) -> Answer:
    """The next answer, if it begins within `timeout` seconds.

    Raises:
        TimeoutError, EOFError, OSError: none came; the other end has closed.
        GarbledError: something else came.
    """
    header = _receive_json(pipe, _HEADER, time.monotonic() + timeout)
    deadline = time.monotonic() + _TRANSFER
    match header:
        case {"seconds": float(seconds), "texts": int(size), "dtype": str(name), "shape": [*shape]}:
            checked = _checked(shape, name)
            warning = MediaWarning(*_receive_texts(pipe, size, deadline)) if size else None
            array = np.empty(checked, _DTYPES[name])
            _fill(pipe, _bytes(array), deadline)
            return Answer(array, seconds, warning)
        case {"seconds": float(seconds), "texts": int(size)} if "shape" not in header:
            message, hint = _receive_texts(pipe, size, deadline)
            return Answer(MediaError(message, hint=hint), seconds)
    raise GarbledError("an unknown header")


def plain(text: str) -> str:
    """One line of at most 500 characters, without control characters: it goes to terminals and ledgers."""
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_TEXT])


def _checked(shape: list[Any], dtype: str) -> tuple[int, ...]:
    lengths = tuple(length for length in shape if type(length) is int and length >= 0)
    if dtype not in _DTYPES or len(lengths) != len(shape) or len(shape) > _MAX_AXES:
        raise GarbledError("an impossible array")
    if math.prod(length or 1 for length in lengths) * _DTYPES[dtype].itemsize > MAX_BYTES:
        raise GarbledError("an array of impossible size")
    return lengths


def _receive_texts(pipe: socket.socket, size: int, deadline: float) -> tuple[str, str | None]:
    """A message and a hint."""
    if 0 < size <= _MAX_TEXTS:
        match _receive_json(pipe, size, deadline):
            case [str(message), str() | None as hint]:
                return plain(message), hint and plain(hint)
    raise GarbledError("no message")


def _receive_json(pipe: socket.socket, size: int, deadline: float) -> Any:
    data = bytearray(size)
    _fill(pipe, memoryview(data), deadline)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GarbledError("not JSON") from error


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(pipe: socket.socket, left: memoryview, deadline: float) -> None:
    """Receive into place: nothing is copied once more, and the interpreter's lock is free while waiting."""
    while left:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        pipe.settimeout(remaining)
        count = pipe.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
