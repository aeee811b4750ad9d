"""The settings of a run, checked when read: TOML recipe ← overlays ← overrides. Every fault is reported at once.

`epalm.recipes.settings` explains each key.
"""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from epalm.errors import UsageError
from epalm.recipes.settings import Config

__all__ = ["Config", "flat", "load_config", "parse_inject", "read_config", "recipes"]

# What a recipe says of its bridge alone.
_OF_BRIDGE = (
    *(f"model.{key}" for key in ("bridge", "tokens", "start", "end", "exit", "front_attention", "connector", "prompt")),
    *("model.deep_prompt", "encoder.tokens", "bridge."),
)
_FORMER = {  # keys of 0.1, and what they are called now
    "optim.loss_scale": "optim.loss_weight",
    "optim.accumulate": "optim.micro_batches",
    "optim.checkpointing": "optim.gradient_checkpointing",
}
Values = dict[str, Any]  # by "section.key"


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(_packaged("."))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """A recipe by name, or a TOML file, with `section.key=value` overrides.

    What overrides choose brings figures of its own along, an overlay on the recipe's: another variant than the
    recipe's, few-shot training, unfrozen parts. The recipe's table `overlays` may replace them. With another bridge,
    what the recipe says of its own is left out. Raises UsageError: no such recipe, or settings that cannot be; all of
    them are named.
    """
    packaged, overlays = _packaged("."), _packaged("overlays")
    use = f"use {', '.join(sorted(packaged))}, or a .toml file"
    if recipe not in packaged and not recipe.endswith(".toml"):
        raise UsageError(f"there is no recipe {recipe!r}{_meant(recipe, packaged)}", hint=use)
    try:
        text = packaged[recipe] if recipe in packaged else Path(recipe).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # not there, a folder, not to be read, no text
        raise UsageError(f"the recipe {recipe} cannot be read: {error}", hint=use) from error
    values, faults = _parsed(text, recipe), []
    for key in [key for key in values if key.partition(".")[0] == "overlays"]:
        name, overlay = key.partition(".")[2], values.pop(key)
        if name in overlays and isinstance(overlay, dict) and all(isinstance(one, dict) for one in overlay.values()):
            overlays[name] = tomli_w.dumps(overlay)
        else:
            faults.append(f"{key}: must be tables [overlays.NAME.SECTION], NAME of {', '.join(sorted(overlays))}")
    given = dict(map(_override, overrides))
    if (bridge := given.get("model.bridge")) is not None and bridge != values.get("model.bridge", "epalm"):
        values = {key: value for key, value in values.items() if not key.startswith(_OF_BRIDGE)}
    changed = {key: value for key, value in given.items() if value != values.get(key)}
    chosen = {
        "few-shot": changed.get("data.few_shot") is not None,
        "epalm-pt-l": changed.get("model.variant") == "epalm-pt-l",
        "epalm-pt-l-vit": changed.get("model.variant") == "epalm-pt-l" and values.get("encoder.kind") == "vit",
        "unfrozen": True in (changed.get("lm.train"), changed.get("encoder.train")),
    }
    for name in (name for name, laid in chosen.items() if laid):
        values |= _parsed(overlays[name], name)
    return _validated(values | given, recipe, faults)


def read_config(text: str, origin: str) -> Config:
    """Settings of a run from its TOML; keys of 0.1 are read by their new names. Raises UsageError as `load_config`."""
    return _validated({_FORMER.get(key, key): value for key, value in _parsed(text, origin).items()}, origin)


def parse_inject(text: str) -> tuple[int, int, int]:
    """(tokens, start, end) of "6@19:31". Raises UsageError."""
    match = re.fullmatch(r"(\d{1,4})@(\d{1,4}):(\d{1,4})", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"--inject {text!r} is not of the form tokens@start:end", hint="--inject 6@19:31")
    return int(match[1]), int(match[2]), int(match[3])


def _packaged(folder: str) -> dict[str, str]:
    """Name → TOML of what the package has in a folder of its recipes."""
    paths = files("epalm.recipes").joinpath(folder).iterdir()
    return {path.name[:-5]: path.read_text(encoding="utf-8") for path in paths if path.name.endswith(".toml")}


def _parsed(text: str, origin: str) -> Values:
    try:
        return flat(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is no TOML: {error}") from error


def flat(tables: Mapping[str, Any]) -> Values:
    """Tables of settings by "section.key"."""
    values: Values = {}
    for section, table in tables.items():
        values |= (
            {f"{section}.{key}": value for key, value in table.items()} if isinstance(table, dict) else {section: table}
        )
    return values


def _override(text: str) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    if not equals or "." not in key:
        raise UsageError(f"--set {text!r} is not of the form section.key=value", hint="--set optim.epochs=4")
    try:
        return key.strip(), tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), written.strip()  # a bare word: --set lm.name=facebook/opt-125m


def _validated(values: Values, origin: str, faults: Sequence[str] = ()) -> Config:
    tables: dict[str, Any] = {}
    for path, value in values.items():
        section, dot, key = path.partition(".")
        if dot and isinstance(tables.setdefault(section, {}), dict):
            tables[section][key] = value
        else:  # also where a section is no table, or what is none is taken for one: that is a fault
            tables[section] = value
    config = None
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        faults = [*faults, *map(_fault, error.errors())]
    if config is None or faults:
        raise UsageError(f"settings of {origin}: {'; '.join(faults)}", hint="docs/recipes.md lists every key")
    return config


def _fault(fault: Any) -> str:
    key, message = ".".join(map(str, fault["loc"][:2])), str(fault["msg"])  # further on are places inside of a value
    if fault["type"] == "value_error":
        return message.removeprefix("Value error, ")  # a conflict, which names its keys
    if key in _FORMER:
        message = f"it is now {_FORMER[key]}"
    elif fault["type"] == "extra_forbidden":
        sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in Config.model_fields.items()}
        known = [*sections, *(f"{name}.{setting}" for name, settings in sections.items() for setting in settings)]
        message = f"there is no such setting{_meant(key, known)}"
    return f"{key}: {message}"


def _meant(name: str, known: Collection[str]) -> str:
    """A suggestion, where one of the known names is like this one."""
    like = get_close_matches(name, known, n=1)
    return f" (did you mean {like[0]}?)" if like else ""
