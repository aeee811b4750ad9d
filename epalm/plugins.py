"""Other installed packages: what they add to epalm by their entry points, and those that only some settings need.

Nothing of them is imported before it is used.
"""

import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from epalm.errors import UsageError


@cache
def installed() -> EntryPoints:
    """The entry points of all packages: to look through these takes 15 ms, and is done once for all groups."""
    return entry_points()


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, such as `epalm.metrics`, by name."""
    return {point.name: point for point in installed().select(group=group)}


@cache
def load_plugin(group: str, name: str) -> Any:
    """What the entry point leads to. Raises UsageError: it cannot be imported."""
    point = plugins(group)[name]
    try:
        return point.load()
    except Exception as error:  # whatever a foreign module does when it is imported
        package = point.dist.name if point.dist else point.module
        raise UsageError(
            f"{name!r} of the package {package} cannot be loaded ({point.value}): {type(error).__name__}: {error}",
            hint=f"repair or uninstall {package}",
        ) from error


def require_package(name: str, setting: str, extra: str) -> None:
    """Raise UsageError where a package is not installed that epalm does not bring and `setting` needs."""
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{setting} needs {name}, which is not installed", hint=f"pip install 'epalm[{extra}]'")
