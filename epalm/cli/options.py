"""The options of commands: those that several share, and how parameters and requests become options."""

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

import epalm
from epalm.console import say
from epalm.request_fields import Option

DEFAULT_CACHE = epalm.DEFAULT_CACHE
DEFAULT_RUNS = Path(epalm.DEFAULT_RUNS)
STOPPED = 130  # exit code: Ctrl-C

_DATA = (
    "Samples (.jsonl, .json, .csv, .tsv), a folder of media, tar shards, NAME:/root of a benchmark (epalm datasets), "
    'or "playground"'
)
_NOW = "Where the run's {} is now: a folder or Hub name. [default: as in training]"
_SCHEDULER = "With --engine dask: tcp://HOST:PORT of a cluster's scheduler. [default: a cluster on this machine]"
_WORKERS = "With --engine dask, no --scheduler: processes to start."

SHARED = {  # by the name of the parameter or field
    "cache": Option("Feature cache: a folder, or a URL such as s3://bucket/cache.", envvar="EPALM_CACHE"),
    "runs": Option("Folder that holds the run folders.", envvar="EPALM_RUNS"),
    "data": Option(f"{_DATA} (the built-in world)."),
    "follow_links": Option("Let links below the data's folder lead out of it; later steps on this data do so too."),
    "modality": Option("Which media to work on.", short="-m"),
    "device": Option("auto, cpu, cuda, cuda:N or mps; auto takes the GPU where there is one."),
    "recipe": Option("A recipe's name or a .toml file. [default: that of the same name as the data; own for yours]"),
    "settings": Option("Override one key of the recipe; may be given several times.", name="set", metavar="KEY=VALUE"),
    "checkpoint": Option("best, by the loss at validation, or latest, of a run that is not done too."),
    "layers": Option("Blocks whose tokens are used: last:6, all, 6-11 or 7,9,11. [default: those of the extraction]"),
    "engine": Option("Who does the work: local (this machine) or dask.", panel="Machine"),
    "scheduler": Option(_SCHEDULER, panel="Machine"),
    "dask_workers": Option(_WORKERS, panel="Machine", minimum=1),
    "lm": Option(_NOW.format("language model")),
    "weights": Option(_NOW.format("encoder")),
    "plan": Option("Say what would be done, and stop: nothing is written."),
    "as_json": Option("Print the result as JSON on stdout.", name="json"),
    "force": Option("Replace the file even if epalm did not write it; never an input."),
}
OPTIONAL = {  # those of them that say something else where None is allowed
    "data": Option(f"{_DATA}. [default: that of the step before]"),
    "modality": Option("Which media to work on. [default: found from what is there]", short="-m"),
}
Command = Callable[..., None]


def takes_requests(command: Command) -> Command:
    """Give a command an option for each of its parameters, and for each field of those that are dataclasses.

    An option is explained where its field stands (`epalm.request_fields.option`), or in the parameter's annotation
    (`Annotated[int, Option("How many.")]`); one without is among those that several commands share. Other annotations
    are Typer's own. Ctrl-C ends it with the command line to go on with.
    """
    parameters = inspect.signature(command).parameters.values()
    hints = get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        try:
            command(**{one.name: _filled(hints[one.name], one.name, given) for one in parameters})
        except KeyboardInterrupt:
            say(f"stopped; what is finished stays. To go on: {shlex.join(['epalm', *sys.argv[1:]])}")
            raise typer.Exit(STOPPED) from None

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
    option = notes[0] if notes else _shared(one.name, kind)
    if not isinstance(option, Option):
        return hint
    flag = f"--{(option.name or one.name).replace('_', '-')}"
    return Annotated[
        kind,
        typer.Option(
            f"{flag}/--no-{flag[2:]}" if bool in get_args(kind) else flag,
            *filter(None, (option.short,)),
            help=option.help,
            show_default=one.default not in (None, ""),
            min=option.minimum,
            max=option.maximum,
            metavar=option.metavar,
            writable=option.writable,
            envvar=option.envvar,
            case_sensitive=False,
            rich_help_panel=option.panel,
        ),
    ]
