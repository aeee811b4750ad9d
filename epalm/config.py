"""The settings of a run, checked when read: TOML recipe ← overrides. Every fault is reported at once.

Only builders read these; modules take plain numbers. What each key means is said in `epalm.settings`.
"""

import copy
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError, model_validator

from epalm.errors import UsageError
from epalm.settings import (
    FORMER,
    OPT_BLOCKS,
    CheckpointSettings,
    DataSettings,
    DecodeSettings,
    EncoderSettings,
    EvalSettings,
    LmSettings,
    ModelSettings,
    OptimSettings,
    Section,
    refuse,
)

_INJECTED_BLOCKS = 12  # of OPT-2.7B: 19 to 31, of OPT-350M: 11 to 23; the last block gets no token of its own


class Config(Section):
    """All settings of a run."""

    description: str = ""
    lm: LmSettings = LmSettings()
    encoder: EncoderSettings = EncoderSettings()
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    data: DataSettings = DataSettings()
    eval: EvalSettings = EvalSettings()
    decode: DecodeSettings = DecodeSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()

    @model_validator(mode="after")
    def _together(self) -> "Config":
        faults = []
        if self.lm.train and self.model.adapter_form == "lora":
            faults.append("model.adapters lora is what is trained in place of the language model: leave out lm.train")
        if self.encoder.train and self.model.blind:
            faults.append("encoder.train changes nothing where model.blind withholds the perceptual token")
        return refuse(self, faults)

    def with_lm(self, name: str) -> "Config":
        """With another name for the language model."""
        return self.model_copy(update={"lm": self.lm.model_copy(update={"name": name})})

    def from_anywhere(self) -> "Config":
        """The same for other working folders: a language model in a folder has its whole path as name."""
        folder = Path(self.lm.name)
        return self.with_lm(str(folder.resolve())) if self.lm.name != "playground" and folder.is_dir() else self

    def resolved(self, blocks: int) -> "Config":
        """With `start` and `end` for a language model of that many blocks, and the variant's forms, filled in.

        Raises:
            UsageError: the blocks are not there.
        """
        end = self.model.end if self.model.end is not None else max(1, blocks - 1)
        start = self.model.start if self.model.start is not None else max(0, end - _INJECTED_BLOCKS)
        if not start < end <= blocks:
            raise UsageError(
                f"model.start {start} and model.end {end} do not fit a language model of {blocks} blocks",
                hint=f"--set model.end={blocks} is the last that fits",
            )
        forms = {"connector": self.model.connector_form, "prompt": self.model.prompt_form}
        placed = {"start": start, "end": end, "adapters": self.model.adapter_form}
        model = self.model.model_copy(update={**forms, **placed})
        return self.model_copy(update={"model": model})

    def at_known_depth(self) -> "Config":
        """Resolved where the language model is a published OPT, else as it is. Raises UsageError as `resolved`."""
        blocks = OPT_BLOCKS.get(self.lm.name)
        return self if blocks is None else self.resolved(blocks)

    def to_toml(self) -> str:
        """As TOML that `read_config` takes; what is None is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(_packaged("."))


def load_config(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """A recipe by name, or a TOML file, with `section.key=value` overrides.

    What overrides choose brings figures of its own along, an overlay on the recipe's: another variant than the
    recipe's, few-shot training, unfrozen parts. The recipe's table `overlays` may replace them.

    Raises:
        UsageError: no such recipe, or settings that cannot be; all of them are named.
    """
    use = f"use {', '.join(recipes())}, or a .toml file"
    if recipe in recipes():
        text = _packaged(".")[recipe]
    elif not recipe.endswith(".toml"):
        raise UsageError(f"there is no recipe {recipe!r}{_meant(recipe, recipes())}", hint=use)
    else:
        try:
            text = Path(recipe).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # not there, a folder, not to be read, no text
            raise UsageError(f"the recipe {recipe} cannot be read: {error}", hint=use) from error
    values = _parse(text, recipe)
    own, faults = _own_overlays(values.pop("overlays", {}))
    asked = copy.deepcopy(values)
    for override in overrides:
        _apply(asked, override)
    for name in _chosen_overlays(values, asked):
        overlay = own[name] if name in own else _parse(_packaged("overlays")[name], name)
        for section, keys in overlay.items():
            table = values.setdefault(section, {})
            if isinstance(table, dict):  # else the validation says so
                table.update(keys)
    return _validated(values, recipe, overrides, faults)


def read_config(text: str, origin: str, overrides: Sequence[str] = ()) -> Config:
    """Settings of a run from its TOML; keys of 0.1 are read by their new names. Raises UsageError as `load_config`."""
    values = _parse(text, origin)
    for former, key in FORMER.items():
        section, name = former.split(".")
        if isinstance(table := values.get(section), dict) and name in table:
            table[key.partition(".")[2]] = table.pop(name)
    return _validated(values, origin, overrides)


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is no TOML: {error}") from error


def _packaged(folder: str) -> dict[str, str]:
    """Name → TOML of what the package has in a folder of its recipes."""
    there = files("epalm.recipes").joinpath(folder).iterdir()
    return {path.name[:-5]: path.read_text(encoding="utf-8") for path in there if path.name.endswith(".toml")}


def _own_overlays(tables: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """A recipe's own overlays, and what is wrong with them; what they set is checked where one is laid."""
    if not isinstance(tables, dict):
        return {}, ["overlays: must be tables [overlays.NAME]"]
    names, faults = sorted(_packaged("overlays")), []
    for name, table in tables.items():
        if name not in names:
            faults.append(f"overlays.{name}: there is none of that name{_meant(name, names)}, only {', '.join(names)}")
        elif not isinstance(table, dict) or not all(isinstance(section, dict) for section in table.values()):
            faults.append(f"overlays.{name}: must be of tables such as [overlays.{name}.optim]")
    return {} if faults else tables, faults


def _meant(name: str, known: Sequence[str]) -> str:
    """A suggestion, where one of the known names is like this one."""
    like = get_close_matches(name, known, n=1)
    return f" (did you mean {like[0]}?)" if like else ""


def _validated(
    values: dict[str, Any], origin: str, overrides: Sequence[str], known_faults: Sequence[str] = ()
) -> Config:
    for override in overrides:
        _apply(values, override)
    faults = list(known_faults)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        faults += map(_fault, error.errors())
    if faults:
        raise UsageError(f"settings of {origin}: {'; '.join(faults)}", hint="docs/recipes.md lists every key")
    return config


def _chosen_overlays(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the overlays that overrides chose, in the order in which they are laid."""

    def value(values: dict[str, Any], section: str, key: str) -> Any:
        table = values.get(section)
        return table.get(key) if isinstance(table, dict) else None

    def changed(section: str, key: str) -> Any:
        new = value(after, section, key)
        return new if new != value(before, section, key) else None

    names = ["few-shot"] if changed("data", "few_shot") is not None else []
    if changed("model", "variant") == "epalm-pt-l":
        names += ["epalm-pt-l", *(["epalm-pt-l-vit"] if value(before, "encoder", "kind") == "vit" else [])]
    names += ["unfrozen"] if True in (changed("lm", "train"), changed("encoder", "train")) else []
    return names


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name) or "." in name:
        raise UsageError(f"--set {override!r} is not of the form section.key=value", hint="--set optim.epochs=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word: --set lm.name=facebook/opt-125m
    table = values.setdefault(section, {})
    if not isinstance(table, dict):
        raise UsageError(f"--set {override!r}: {section} is no section", hint="--set optim.epochs=4")
    table[name] = value


def _fault(fault: Any) -> str:
    where, message = ".".join(str(part) for part in fault["loc"]), str(fault["msg"])
    if fault["type"] == "value_error" and where in Config.model_fields | {"": None}:
        return message.removeprefix("Value error, ")  # of several keys, which it names
    if fault["type"] == "extra_forbidden":
        message = (
            f"it is now {FORMER[where]}" if where in FORMER else f"there is no such setting{_meant(where, _keys())}"
        )
    return f"{where}: {message.removeprefix('Value error, ')}"


def _keys() -> list[str]:
    """Every section, and every setting as "section.key"."""
    found = list(Config.model_fields)
    for section, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += [f"{section}.{key}" for key in field.annotation.model_fields]
    return found
