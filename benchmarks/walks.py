"""Which modules something passes through while work is done on it: what a newcomer opens to follow it.

A module counts when a function of it is called with that something among its arguments, from another module. What is
merely imported does not count, nor do the command line, errors and what is shown on the screen. A return is a call into
a module that was left before, to a function that was not called the first time: it is visited for another job. A module
whose functions wait for what they have called is not left, nor do the medium's own methods (`epalm.media`) lead back.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_ASIDE = ("epalm.cli", "epalm.console", "epalm.errors", "epalm.api")
_MEDIUM = "epalm.media"
_DEEP, _MANY = 4, 50  # how far into arguments is looked


@dataclass
class Walk:
    """Modules in the order of their first call; of each the functions, and how many of these were for another job."""

    modules: dict[str, list[str]] = field(default_factory=dict)
    returns: list[str] = field(default_factory=list)

    def show(self) -> str:
        """The list, numbered, and the returns."""
        lines = [f"{n:3} {name}: {', '.join(calls)}" for n, (name, calls) in enumerate(self.modules.items(), 1)]
        return "\n".join([*lines, f"{len(self.returns)} returns: {', '.join(self.returns)}"])


def walk(work: Callable[[], Any], followed: Collection[Any]) -> Walk:
    """The modules of this package that work in this thread takes any of `followed` through."""
    result, last = Walk(), [""]
    waiting: list[tuple[FrameType, str]] = []  # for what they have called

    def seen(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and waiting and waiting[-1][0] is frame:
            last[0] = waiting.pop()[1]
        if event != "call" or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # the body of a module or a class
            return
        name, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        if not name.startswith("epalm.") or name.startswith(_ASIDE) or function.startswith("<"):
            return
        if not any(_holds(value, followed, _DEEP) for value in frame.f_locals.values()):
            return
        calls = result.modules.setdefault(name, [])
        if function not in calls:
            here = last[0] == name or any(module == name for _, module in waiting)
            if calls and not here and name != _MEDIUM and not function.startswith("_"):
                result.returns.append(f"{name}.{function}")
            calls.append(function)
        waiting.append((frame, name))
        last[0] = name

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return result


def _holds(value: Any, followed: Collection[Any], deep: int) -> bool:
    """Whether a value is one of `followed`, or holds it."""
    if isinstance(value, str | bytes | int | float) or value is None:
        return isinstance(value, str) and value in followed
    if deep == 0:
        return False
    if isinstance(value, Mapping):
        return any(_holds(one, followed, deep - 1) for one in [*value][:_MANY] + [*value.values()][:_MANY])
    if isinstance(value, list | tuple | set | frozenset):
        return any(_holds(one, followed, deep - 1) for one in [*value][:_MANY])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = (getattr(value, one.name, None) for one in dataclasses.fields(value))
        return any(_holds(one, followed, deep - 1) for one in values)
    return hasattr(value, "__fspath__") and str(value) in followed
