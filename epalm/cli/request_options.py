"""Commands that take requests: a field of a request is an option of the command, explained where the field stands."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Annotated, Any, get_args, get_type_hints

import typer

from epalm.cli import options
from epalm.request_fields import Option

Command = Callable[..., None]


def takes_requests(command: Command) -> Command:
    """Give a command an option for each field of its parameters that are dataclasses, and fill these from them.

    A field's option is what `epalm.request_fields.option` says of it, else the one of its name in `epalm.cli.options`,
    which several commands share.
    """
    parameters = inspect.signature(command).parameters.values()
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**{one.name: _filled(hints[one.name], one.name, given) for one in parameters})

    shown: list[Parameter] = []
    for one in parameters:
        kind = hints[one.name]
        shown += _options(kind) if is_dataclass(kind) else [one.replace(annotation=kind)]
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
        own: Option | None = field.metadata.get("option")
        if own:
            annotation: Any = Annotated[hint, _typer_option(own, field.name, hint, default)]
        else:
            annotation = _shared(field.name, optional=type(None) in get_args(hint))
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _shared(field: str, *, optional: bool) -> Any:
    """The option that several commands share: `DataOption`, or `OptionalDataOption` where there need be none."""
    name = f"{''.join(word.title() for word in field.split('_'))}Option"
    return getattr(options, f"Optional{name}" if optional else name, None) or getattr(options, name)


def _typer_option(own: Option, field: str, hint: Any, default: Any) -> Any:
    flag = f"--{(own.name or field).replace('_', '-')}"
    return typer.Option(
        f"{flag}/--no-{flag[2:]}" if bool in get_args(hint) else flag,
        *filter(None, (own.short,)),
        help=own.help,
        show_default=default is not None,
        min=own.minimum,
        max=own.maximum,
        metavar=own.metavar,
        writable=own.writable,
        envvar=own.envvar,
        rich_help_panel=own.panel,
    )
