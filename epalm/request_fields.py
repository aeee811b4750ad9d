"""How a request documents its options: each beside its field, where the command line finds it."""

from dataclasses import MISSING, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """What the command line shows of a field, and what it lets through; see `epalm.cli.options`."""

    help: str
    panel: str | None = None  # under which it is listed
    name: str | None = None  # where it is not the field's
    short: str | None = None  # such as -m
    minimum: float | None = None
    maximum: float | None = None
    metavar: str | None = None  # what is shown for its value, where that is not its type
    writable: bool = False  # it names a file that the command writes
    envvar: str | None = None  # the variable that gives it where the command line does not


def option(help: str, default: Any = MISSING, **more: Any) -> Any:
    """A field of a request dataclass; `more` as `Option`'s."""
    return field(default=default, metadata={"option": Option(help, **more)})
