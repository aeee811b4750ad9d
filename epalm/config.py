"""The settings of a run, checked when read: TOML recipe ← overrides. Every fault is reported at once.

Only builders read these; modules take plain numbers. Figures without another source are the paper's (eP-ALM, ICCV
2023, section 4 and supplementary material).
"""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from epalm.errors import UsageError
from epalm.samples import Task

Variant = Literal["epalm", "epalm-pt", "epalm-lin"]
ConnectorForm = Literal["shared", "separate"]
PromptForm = Literal["mlp", "plain", "none"]
_FORMS: dict[str, tuple[ConnectorForm, PromptForm]] = {
    "epalm": ("separate", "mlp"),
    "epalm-pt": ("shared", "plain"),
    "epalm-lin": ("shared", "none"),
}
_INJECTED_BLOCKS = 12  # of OPT-2.7B: 19 to 31, of OPT-350M: 11 to 23; the last block gets no token of its own
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, le=10)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LmSettings(_Section):
    """The frozen language model."""

    name: str = "facebook/opt-2.7b"  # Hub id, folder, or "playground"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class ModelSettings(_Section):
    """What is put around the language model."""

    variant: Variant = "epalm"
    tokens: Positive = 6  # perceptual tokens K: the last K layers that the cache holds
    start: Annotated[int, Field(ge=0)] | None = None  # first block that sees one [12 before `end`]
    end: Positive | None = None  # first block that gets no new one [the LM's last block]
    attention: Literal["causal", "reference"] = "causal"
    connector: ConnectorForm | None = None  # [by variant]
    prompt: PromptForm | None = None  # [by variant]
    prompt_length: Positive = 10
    blind: bool = False  # withhold the perceptual token: what the text alone gives away

    @property
    def connector_form(self) -> ConnectorForm:
        """The connector's form: as set, else the variant's."""
        return self.connector or _FORMS[self.variant][0]

    @property
    def prompt_form(self) -> PromptForm:
        """The prompt's form: as set, else the variant's."""
        return self.prompt or _FORMS[self.variant][1]


class OptimSettings(_Section):
    """AdamW, its learning rates, the loss. The connector's rate warms up per step, then falls per epoch (cosine)."""

    epochs: Positive = 8
    max_steps: Positive | None = None  # end earlier
    batch_size: Positive = 64
    warmup_steps: Annotated[int, Field(ge=0)] = 400
    warmup_lr: Rate = 1e-5
    peak_lr: Rate = 2e-5
    min_lr: Rate = 1e-6
    fixed_lr: Rate = 1e-5  # of the prompt
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    loss_scale: Annotated[float, Field(gt=0)] = 0.1
    loss_on: Literal["all", "answer"] = "all"  # every real token, question included, or the answer's alone
    seed: Annotated[int, Field(ge=0)] = 0


class DataSettings(_Section):
    """Which samples are trained on."""

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = (Task.QA,)
    train_split: str = "train"
    val_split: str = "val"
    augment: bool = True  # train on augmented views, another one each epoch, where the features have them


class EvalSettings(_Section):
    """Validation while training."""

    every_steps: Positive = 1000
    val_samples: Positive = 1000


class DecodeSettings(_Section):
    """Decoding."""

    num_beams: Positive = 3
    max_length: Annotated[int, Field(ge=2)] = 30  # tokens in all, the question included


class Config(_Section):
    """All settings of a run."""

    description: str = ""
    lm: LmSettings = LmSettings()
    model: ModelSettings = ModelSettings()
    optim: OptimSettings = OptimSettings()
    data: DataSettings = DataSettings()
    eval: EvalSettings = EvalSettings()
    decode: DecodeSettings = DecodeSettings()

    @model_validator(mode="after")
    def _order(self) -> "Config":
        start, end = self.model.start, self.model.end
        if start is not None and end is not None and start >= end:
            raise ValueError(f"model.start ({start}) must be below model.end ({end})")
        return self

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
        model = self.model.model_copy(update={"start": start, "end": end, **forms})
        return self.model_copy(update={"model": model})

    def to_toml(self) -> str:
        """As TOML that `read_config` takes; what is None is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        path.name.removesuffix(".toml") for path in files("epalm.recipes").iterdir() if path.name[-5:] == ".toml"
    )


def load_config(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """A recipe by name, or a TOML file, with `section.key=value` overrides.

    Raises:
        UsageError: no such recipe, or settings that cannot be; all of them are named.
    """
    if recipe in recipes():
        text = files("epalm.recipes").joinpath(f"{recipe}.toml").read_text(encoding="utf-8")
    elif Path(recipe).is_file() and recipe.endswith(".toml"):
        text = Path(recipe).read_text(encoding="utf-8")
    else:
        raise UsageError(f"there is no recipe {recipe!r}", hint=f"use {', '.join(recipes())}, or a .toml file")
    return read_config(text, recipe, overrides)


def read_config(text: str, origin: str, overrides: Sequence[str] = ()) -> Config:
    """Settings from TOML. Raises UsageError as `load_config` does."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is no TOML: {error}") from error
    for override in overrides:
        _apply(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(fault) for fault in error.errors())
        raise UsageError(f"settings of {origin}: {faults}", hint="docs/recipes.md lists every key") from error


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
    where = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "there is no such setting"
    return f"{where}: {message}" if where else message
