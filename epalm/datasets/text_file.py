"""A text file that a user names: what keeps it from being read becomes one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epalm.errors import UsageError


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
