"""What decides a feature set's numbers, and the fingerprint and name that follow from it."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from epalm.cache.fields import NO_OTHERS, NOT_AS_WRITTEN, Count, Dtype, MediaKind, Numbers, Positive, fault_in_words
from epalm.cache.token_rules import ALL, CLS, POOLED, TokenLayout
from epalm.errors import CacheError, UsageError
from epalm.fingerprint import canonical_json, digest_json

BLOCK_BYTES = 64 << 20  # of a block whose rows are large
_DIGITS = 12  # of the fingerprint, in names
_POOLED_AT_ONCE = 1 << 22  # bytes of rows: what the CPU's caches hold, and little memory


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the stored numbers, and nothing else: two equal specs are one feature set.

    `encoder` and `preprocessing` are what the encoder says of itself; `layers` are block numbers, shallow to
    deep; `width` is the hidden size D; `version` is raised by code that changes the numbers by itself; `tokens` is how
    many tokens T of each layer are stored.
    """

    __pydantic_config__ = NO_OTHERS

    modality: MediaKind
    encoder: Mapping[str, Any]
    layers: Numbers
    width: Positive
    preprocessing: Mapping[str, Any]
    augmentation: Mapping[str, Any] | None
    compute: Mapping[str, Any]
    stored_dtype: Dtype
    version: Count
    tokens: Positive = 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields."""
        return digest_json(self.to_json())

    @property
    def name(self) -> str:
        """The feature set's folder: modality and encoder to read, the fingerprint's first digits to be exact."""
        kind = re.sub(r"[^a-z0-9]+", "-", str(self.encoder.get("kind", "encoder")).lower()).strip("-")
        return f"{self.modality}-{kind}-{self.fingerprint[:_DIGITS]}"

    def serves(self, wanted: "FeatureSpec") -> bool:
        """Whether rows of this spec hold those of `wanted`: the same but for more layers, or all tokens of them."""
        with suppress(UsageError, CacheError):
            return self.narrowed(wanted.rule, wanted.layers) == wanted
        return False

    def narrowed(self, rule: str, layers: Sequence[int]) -> "FeatureSpec":
        """What an extraction by another rule, of fewer layers, would store, where rows of this spec hold it.

        Raises UsageError: they do not.
        """
        if absent := [layer for layer in layers if layer not in self.layers]:
            fault = f"{self.name} does not hold layers {absent}; it has {list(self.layers)}"
            raise UsageError(fault, hint="epalm extract --layers makes a set that does")
        fewer = replace(self, layers=tuple(layers))
        if rule == self.rule:
            return fewer
        encoder = {**self.encoder, "tokens": rule}
        if rule == CLS:  # as sets of 0.1 describe it, which had no other
            encoder = {
                key: value for key, value in self.encoder.items() if key not in ("tokens", "layout", "cls_token")
            }
            encoder["token"] = self.encoder.get("cls_token")
        if self.rule != ALL or rule == POOLED or not encoder.get("token"):
            fault = f"{self.name} holds {self.rule} tokens, out of which there is no {rule}"
            raise UsageError(fault, hint=f"epalm extract --tokens {rule} makes a set of them")
        return replace(fewer, encoder=encoder, tokens=self.layout.narrowed(rule).tokens)

    @property
    def served(self) -> str:
        """The rules of tokens that rows of this spec hold, in words."""
        if self.rule != ALL:
            return self.rule
        grid, cls = self.layout.grid, "cls, " if self.encoder.get("cls_token") else ""
        return f"all, {cls}mean, pool of the grid {'×'.join(map(str, grid))}{', time-mean' if len(grid) == 3 else ''}"

    def narrow(self, values: np.ndarray, wanted: "FeatureSpec") -> np.ndarray:
        """Of values (R, L, T, D) of this spec those of a `narrowed` one, with the bits that extraction gives them."""
        values = values[:, self.places_of(wanted.layers)]
        if wanted.rule == self.rule:
            return values
        pooled, layout = np.empty((len(values), *wanted.row_shape), self.stored_dtype), self.layout
        step = max(1, _POOLED_AT_ONCE // self.row_bytes)
        for start in range(0, len(values), step):
            pooled[start : start + step] = layout.pool(values[start : start + step], wanted.rule)
        return pooled

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values. One token is left out: sets of version 0.1 had no other and keep their names."""
        value = {**asdict(self), "layers": list(self.layers)}
        if self.tokens == 1:
            del value["tokens"]
        return value

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """(L, T, D) of one view of one medium."""
        return len(self.layers), self.tokens, self.width

    @property
    def row_bytes(self) -> int:
        """Of one view of one medium."""
        return math.prod(self.row_shape) * np.dtype(self.stored_dtype).itemsize

    def block_rows(self, views: int, most: int) -> int:
        """How many media of so many views make a block: `most`, or as many as have the bytes of one."""
        return max(1, min(most, BLOCK_BYTES // (self.row_bytes * views)))

    @property
    def rule(self) -> str:
        """Which tokens of a layer are stored, a rule of `token_rules`: what the encoder says of itself."""
        return str(self.encoder.get("tokens", CLS))

    @property
    def layout(self) -> TokenLayout:
        """What the T tokens of a layer are. Raises CacheError where the encoder describes others.

        Rules that need no grid are stored without it, and so is what an encoder of another package says nothing of.
        """
        described = self.encoder.get("layout")
        if described is None:
            return TokenLayout(True, ()) if (self.rule, self.tokens) == (CLS, 1) else TokenLayout(False, (self.tokens,))
        try:
            layout = TokenLayout(bool(described["cls"]), tuple(map(int, described["grid"]))).narrowed(self.rule)
        except (TypeError, KeyError, ValueError, UsageError) as error:
            raise CacheError(f"{self.name} describes its tokens in no known form: {error}") from error
        if layout.tokens != self.tokens:
            raise CacheError(f"{self.name} holds {self.tokens} tokens and describes {layout.tokens}")
        return layout

    def places_of(self, layers: Sequence[int]) -> slice | list[int]:
        """Where these layers are among those stored: a slice, which numpy takes without a copy, where there is one."""
        places = [self.layers.index(layer) for layer in layers]
        step = places[1] - places[0] if len(places) > 1 else 1
        regular = step > 0 and places == list(range(places[0], places[-1] + 1, step))
        return slice(places[0], places[-1] + 1, step) if regular else places

    @property
    def view_seed(self) -> int:
        """The seed of its augmented views, 0 where it has none."""
        return int((self.augmentation or {"seed": 0})["seed"])

    def to_bytes(self) -> bytes:
        """The canonical JSON, as `spec.json` holds it."""
        return canonical_json(self.to_json())

    @staticmethod
    def from_json(value: Any) -> "FeatureSpec":
        """The spec that `to_json` gave. Raises CacheError for anything else."""
        try:
            spec = _SPEC.validate_python(value)
            spec.to_bytes()  # which takes no NaN
        except NOT_AS_WRITTEN as error:
            hint = "extract again, into another --cache"
            raise CacheError(f"a feature set of another format: {fault_in_words(error)}", hint=hint) from error
        return spec


_SPEC = TypeAdapter(FeatureSpec)


def parse_layers(text: str, blocks: Sequence[int], option: str = "--layers", what: str = "blocks") -> tuple[int, ...]:
    """Those of some blocks, numbers from 0, shallow to deep, that "last:6", "all", "a-b" (with b) or "1,2,3" names.

    Raises UsageError for another form, or a block that is none of them; `option` and `what` are its words.
    """
    text = text.strip().lower()
    numbers: Sequence[int]
    if text == "all":
        numbers = blocks
    elif match := re.fullmatch(r"last:(\d{1,6})", text):
        numbers = blocks[-int(match[1]) :] if 0 < int(match[1]) <= len(blocks) else ()
    elif match := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
        numbers = range(int(match[1]), int(match[2]) + 1)
    elif re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        numbers = sorted({int(number) for number in text.split(",")})
    else:
        raise UsageError(f"{option} {text!r} is of no known form", hint="use last:6, all, 6-11 or 7,9,11")
    if not numbers or not set(numbers) <= set(blocks):
        between = list(blocks) == list(range(blocks[0], blocks[-1] + 1)) and len(blocks) > 2
        words = f"{blocks[0]} to {blocks[-1]}" if between else ", ".join(map(str, blocks))
        message = f"{option} {text!r} is out of range: there are {what} {words}"
        raise UsageError(message, hint=f"use last:{min(6, len(blocks))}, or all")
    return tuple(numbers)
