"""What there is to know of a bridge before it is built, and every bridge by its name.

A bridge is a module from rows (B, L, T, D_enc) to groups (B, G, F, D), with G and F as its attributes `groups` and
`front`; or, without groups, one that makes something of rows, and adds of it to hidden states (`added`). Each lies in a
file of its own here and stands in that file's `BRIDGES` by its name: nothing else lists it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple

from pydantic import ValidationError

from epalm.cache.token_rules import ALL, TokenLayout
from epalm.errors import UsageError
from epalm.recipes.config import Config
from epalm.recipes.settings import FrontAttention, PromptForm, Section
from epalm.train import bridge

EPALM = "epalm"  # whose settings the paper's variants and recipes are
_LATE_BLOCKS = 12  # that are entered, of eP-ALM and DePALM


class Entry(NamedTuple):
    """The first block that sees the front, the first that gets no new group, and the first without front, if any."""

    start: int
    end: int
    exit: int | None = None


@dataclass(frozen=True)
class Bridge:
    """`make(layers, layout, width, hidden_size, **settings)` builds it: L, what the T tokens are, D_enc and D.

    The others are what is taken where settings and recipe say nothing.
    """

    make: Callable[..., Any]
    reads: tuple[str, ...]  # rules of the tokens that it takes, the usual one first
    source: str
    layers: int = 1  # L: the encoder's last
    by_block: bool = False  # whether `make` takes how many blocks get a group of their own, as `entered`
    behind: int | None = None  # blocks behind those that are entered; None: block 0 alone is, as by prefix methods
    leaves: bool = False  # whether nobody sees the front in the blocks behind
    front_attention: FrontAttention = "causal"
    in_front: bool = False  # whether each token gets a position of its own in front, padding too
    prompt: tuple[PromptForm, int] = ("none", 1)
    settings: type[Section] = Section  # its own, [bridge] in a recipe

    def build(self, layers: int, layout: TokenLayout, width: int, hidden_size: int, entered: int, **own: Any) -> Any:
        """The module, whose groups enter `entered` blocks."""
        count = {"entered": entered} if self.by_block else {}
        return self.make(layers, layout, width, hidden_size, **count, **own)

    def entry(self, blocks: int, end: int | None = None) -> Entry:
        """Where its tokens enter a language model of so many blocks: late ones are twelve, or what there are.

        Another `end` than its own takes start and exit along.
        """
        if self.behind is None:
            return Entry(0, end or 1)
        end = end or max(1, blocks - self.behind)
        return Entry(max(0, end - _LATE_BLOCKS), end, end if self.leaves else None)

    def takes(self, rule: str) -> bool:
        """Whether it reads tokens of a rule; of one that pools, whatever the cells."""
        return rule.partition(":")[0] in {one.partition(":")[0] for one in self.reads}

    def own(self, config: Config) -> dict[str, Any]:
        """Its own settings, checked, with defaults. Raises UsageError: all that is wrong."""
        try:
            return self.settings.model_validate(config.bridge).model_dump()
        except ValidationError as error:
            faults = (f"bridge.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            known = ", ".join(self.settings.model_fields) or "none"
            raise UsageError("; ".join(faults), hint=f"settings of bridge {config.model.bridge}: {known}") from error


@cache
def bridges() -> dict[str, Bridge]:
    """Every bridge by its name."""
    modules = [import_module(f"{bridge.__name__}.{one.name}") for one in iter_modules(bridge.__path__)]
    return {name: one for module in modules for name, one in getattr(module, "BRIDGES", {}).items()}


def bridge_of(config: Config) -> Bridge:
    """The bridge that settings name. Raises UsageError where there is none of that name."""
    name = config.model.bridge
    if name not in bridges():
        raise UsageError(f"model.bridge {name!r} is no bridge", hint=f"use {', '.join(sorted(bridges()))}")
    return bridges()[name]


def with_bridge(config: Config, blocks: int | None = None) -> Config:
    """Settings with the bridge's own in place of what they leave open; `blocks` of the language model, where known.

    eP-ALM's are the defaults of the settings themselves. Raises UsageError: no such bridge, settings it has not.
    """
    one, model = bridge_of(config), config.model
    own = one.own(config)
    if model.bridge == EPALM:
        return config
    form, length = one.prompt
    usual: dict[str, Any] = {"tokens": one.layers, "prompt": form, "prompt_length": length}
    usual["front_attention"] = one.front_attention
    if blocks is not None:
        usual |= one.entry(blocks, model.end)._asdict()
    left = {key: value for key, value in usual.items() if key not in model.model_fields_set}
    return config.model_copy(update={"model": model.model_copy(update=left), "bridge": own})


def encoding_for(config: Config) -> Config:
    """Settings for an encoder in the loop that gives the tokens that the bridge usually reads, where none are set."""
    if config.model.bridge == EPALM or config.encoder.tokens is not None:  # eP-ALM's are the encoder's own default
        return config
    tokens = {"tokens": bridge_of(config).reads[0]}
    return config.model_copy(update={"encoder": config.encoder.model_copy(update=tokens)})


def rule_for(config: Config, stored: str, layout: TokenLayout, asked: str | None = None) -> str:
    """The rule by which the bridge reads rows that were stored by the rule `stored` with `layout`.

    What the recipe counts on, else what an extraction `asked` for, else what is stored, else what can be had of it.
    Raises UsageError: nothing of that is what the bridge reads; the hint is the extraction that makes such rows.
    """
    one = bridge_of(config)
    wished = (config.encoder.tokens, asked, stored, *one.reads)
    rules = [rule for rule in wished if rule and one.takes(rule) and stored in (rule, ALL)]
    if not rules:
        raise UsageError(
            f"bridge {config.model.bridge} reads {' or '.join(one.reads)} tokens, and these features have {stored}",
            hint=f"epalm extract --layers last:{config.model.tokens} --tokens {one.reads[0]}",
        )
    faults = []
    for rule in rules:
        try:
            if rule != stored:
                layout.narrowed(rule)
            return rule
        except UsageError as error:
            faults.append(error)
    raise faults[0]
