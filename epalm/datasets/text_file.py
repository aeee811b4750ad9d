"""A text file that a user names: what keeps it from being read becomes one message."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epalm.errors import UsageError

HALF = re.compile(r"\\u[dD][89a-fA-F]")  # JSON's escape of what may be half of a character
_PATH_KEYS = ("id", "media")  # where a name that is not UTF-8 may stand, its bytes as Python's surrogates


@contextmanager
def reading(path: Path, *, not_text: str = "save it as UTF-8") -> Iterator[None]:
    """Around opening and reading a file as UTF-8; `not_text` is what to do where it is none.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint=not_text) from error


def require_characters(value: Any, where: str) -> None:
    """Refuse text with half a character (a lone surrogate), which no file and no tokenizer takes. Raises UsageError."""
    parts = value.items() if isinstance(value, dict) else [("", value)]
    for key, part in parts:
        try:
            key.encode()
            json.dumps(part, ensure_ascii=False).encode(errors="surrogateescape" if key in _PATH_KEYS else "strict")
        except UnicodeEncodeError as error:
            half = f"{error.object[error.start]!a}"
            named = f"{key!a} has" if key else "there is"
            raise UsageError(
                f"{where}: {named} {half}, half of a character", hint="write the character whole, or remove it"
            ) from None
