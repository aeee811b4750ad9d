"""Options of a request: a dataclass field with the text that explains it, which `--help` shows."""

from dataclasses import field
from typing import Any


def option(default: Any, explained: str, **how: Any) -> Any:
    """A field of a frozen dataclass that is an option of a command too; `how` is what Typer's `Option` takes."""
    return field(default=default, metadata={"help": explained, **how})
