"""Other installed packages: what they add to epalm by their entry points, and those that only some settings need.

Nothing of them is imported before it is used.
"""

import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from epalm.errors import UsageError

Kind = TypeVar("Kind")


@cache
def installed() -> Any:  # `EntryPoints`; in Python 3.11 what has the same `select`
    """The entry points of all packages: to look through these takes 15 ms, and is done once for all groups."""
    return entry_points()


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, such as `epalm.metrics`, by name."""
    return {point.name: point for point in installed().select(group=group)}


def load_plugin(group: str, name: str, kind: type[Kind]) -> Kind:
    """The object that the entry point leads to, or one of the class that it leads to.

    Raises UsageError: it cannot be imported, is of another kind, or has a `name` and that is another one.
    """
    point = plugins(group)[name]
    package = point.dist.name if point.dist else point.module
    where, hint = f"{name!r} of the package {package} ({point.value})", f"repair or uninstall {package}"
    try:
        found = point.load()
        found = found() if isinstance(found, type) and issubclass(found, kind) else found
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UsageError(f"{where} cannot be loaded: {type(error).__name__}: {error}", hint=hint) from error
    if not isinstance(found, kind) or getattr(found, "name", name) != name:
        raise UsageError(f"{where} is no {kind.__name__} of that name", hint=hint)
    return found


def require_package(name: str, setting: str, extra: str) -> None:
    """Raise UsageError where a package is not installed that epalm does not bring and `setting` needs."""
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{setting} needs {name}, which is not installed", hint=f"pip install 'epalm[{extra}]'")
