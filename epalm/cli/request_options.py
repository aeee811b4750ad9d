"""Commands as functions of requests: a parameter, or a field of a request, is an option of the command."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from epalm.cli.options import OPTIONAL, SHARED
from epalm.request_fields import Option

Command = Callable[..., None]


def takes_requests(command: Command) -> Command:
    """Give a command an option for each of its parameters, and for each field of those that are dataclasses.

    An option is explained where its field stands (`epalm.request_fields.option`), or in the parameter's annotation
    (`Annotated[int, Option("How many.")]`); one without is among those that several commands share. Other annotations
    are Typer's own.
    """
    parameters = inspect.signature(command).parameters.values()
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**{one.name: _filled(hints[one.name], one.name, given) for one in parameters})

    shown: list[Parameter] = []
    for one in parameters:
        kind = hints[one.name]
        shown += _options(kind) if is_dataclass(kind) else [one.replace(annotation=_annotated(one, kind))]
    called.__signature__ = inspect.Signature(sorted(shown, key=lambda one: one.kind))  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in shown}
    return called


def _filled(kind: Any, name: str, given: Mapping[str, Any]) -> Any:
    """The value of a parameter or field: a dataclass of the options of its fields, or the option itself."""
    if not is_dataclass(kind):
        return given[name]
    hints = get_type_hints(kind)
    return kind(**{one.name: _filled(hints[one.name], one.name, given) for one in fields(kind)})  # type: ignore[operator]


def _options(kind: Any) -> Iterator[Parameter]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _options(hint)
            continue
        default = Parameter.empty if field.default is MISSING else field.default
        own = field.metadata.get("option") or _shared(field.name, hint)
        one = Parameter(field.name, Parameter.KEYWORD_ONLY, default=default)
        yield one.replace(annotation=_annotated(one, Annotated[hint, own]))


def _shared(name: str, hint: Any) -> Option:
    """The option of that name; where it may be None, the one that says what is taken then."""
    return (type(None) in get_args(hint) and OPTIONAL.get(name)) or SHARED[name]


def _annotated(one: Parameter, hint: Any) -> Any:
    """The type of an option, with what Typer is to make of it."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    own = notes[0] if notes else _shared(one.name, kind)
    if not isinstance(own, Option):
        return hint
    flag = f"--{(own.name or one.name).replace('_', '-')}"
    return Annotated[
        kind,
        typer.Option(
            f"{flag}/--no-{flag[2:]}" if bool in get_args(kind) else flag,
            *filter(None, (own.short,)),
            help=own.help,
            show_default=one.default not in (None, ""),
            min=own.minimum,
            max=own.maximum,
            metavar=own.metavar,
            writable=own.writable,
            envvar=own.envvar,
            case_sensitive=False,
            rich_help_panel=own.panel,
        ),
    ]
