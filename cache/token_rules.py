"""Which tokens of an encoder's layer a row holds, and narrower rules out of rows that hold all of them.

A rule is a word: `cls`, `mean`, `pooled` (the model's own pooling), `all`, `pool:2x2` (a mean over cells of the grid,
which keeps `[CLS]`), `time-mean` (over the frames of a clip; keeps `[CLS]`). Knows no encoder and no file.

Means are taken of tokens as they are stored: rounded first, summed in float32 by additions of pairs in a fixed order,
divided by their count, rounded again. So rows of `all` give every narrower rule the bits that extracting it gives, with
NumPy and torch, on any device. A token of zeros is padding behind an input of variable length, and left out.

Letters: T tokens, D hidden size.
"""

import math
import operator
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from epalm.errors import UsageError

CLS, MEAN, POOLED, ALL, TIME_MEAN = "cls", "mean", "pooled", "all", "time-mean"
FORMS = "cls, mean, pooled, all, time-mean, pool:AxB of a picture's or clip's grid, or pool:K of a sequence"
_MOST = 4096  # of a cell's side, in the list of those that there may be


@dataclass(frozen=True)
class TokenLayout:
    """What the T tokens of a row's layer are: `[CLS]` where `cls`, then those of the grid, the last axis fastest.

    The grid is (h, w) of pictures, (t, h, w) of clips, (t,) or (f, t) of sound; () where there are no others.
    """

    cls: bool
    grid: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.cls) + (math.prod(self.grid) if self.grid else 0)

    def narrowed(self, rule: str) -> "TokenLayout":
        """What a rule leaves of this layout, which is that of `all`. Raises UsageError where it cannot be had."""
        require_rule(rule)
        if rule == CLS and not self.cls:
            raise UsageError("there is no [CLS] token", hint="use --tokens mean")
        if rule == CLS:
            return TokenLayout(True, ())
        if rule == MEAN and not self.grid:
            raise UsageError("there are no tokens but [CLS]", hint="use --tokens cls")
        if rule in (MEAN, POOLED):
            return TokenLayout(False, (1,))
        grid = tuple(size // factor for size, factor in zip(self.grid, self._factors(rule), strict=True))
        return TokenLayout(self.cls, grid[1:] if rule == TIME_MEAN else grid)

    def pool(self, values: Any, rule: str) -> Any:
        """Tokens (..., T, D) of this layout, an array or tensor of the stored dtype → (..., T', D) of a narrower rule.

        Raises UsageError where the rule cannot be had from them.
        """
        if rule == POOLED:
            raise UsageError("the model's own pooling cannot be had from its tokens", hint="extract it")
        kept = self.narrowed(rule)
        if rule == CLS:
            return values[..., :1, :]
        factors = self._factors(rule)
        if math.prod(factors) == 1:
            return values if kept.cls == self.cls else values[..., 1:, :]
        places = values[..., int(self.cls) :, :]
        real = _float32((places != 0).any(-1))[..., None]
        counts = self._sums(real, factors)
        means = _as(self._sums(_float32(places), factors) / (counts + (counts == 0)), values)
        return _join(values[..., :1, :], means) if kept.cls else means

    def _factors(self, rule: str) -> tuple[int, ...]:
        """How many places of each axis of the grid a rule makes one. Raises UsageError where it does not fit."""
        if rule == MEAN:
            return self.grid
        if rule == ALL:
            return (1,) * len(self.grid)
        if rule == TIME_MEAN:
            if len(self.grid) != 3:
                raise UsageError("--tokens time-mean is for clips of several times", hint="use all, mean or pool:AxB")
            return self.grid[0], 1, 1
        factors = tuple(int(number) for number in rule.removeprefix("pool:").split("x"))
        if len(self.grid) == 3 and len(factors) == 2:
            factors = (1, *factors)  # of the places, at each time
        if len(factors) != len(self.grid) or any(map(operator.mod, self.grid, factors)):
            letters = "ABC" if len(self.grid) > 1 else "K"
            sides = [f"{letter} of {_divisors(size)}" for letter, size in zip(letters, self.grid, strict=False)]
            form = "x".join(letters[: len(self.grid)])
            fault = f"--tokens {rule} does not divide the grid of {'×'.join(map(str, self.grid))} tokens"
            raise UsageError(fault, hint=f"use pool:{form} with {' and '.join(sides)}" if sides else "use cls")
        return factors

    def _sums(self, values: Any, factors: tuple[int, ...]) -> Any:
        """The sums (..., T', D) of cells of a grid of values (..., T, D)."""
        *leading, _, width = values.shape
        grid = list(self.grid)
        for axis in reversed(range(len(grid))):
            before, behind = math.prod(grid[:axis]), math.prod(grid[axis + 1 :])
            cells, factor = grid[axis] // factors[axis], factors[axis]
            values = _tree_sum(values.reshape(*leading, before * cells, factor, behind * width))
            grid[axis] = cells
        return values.reshape(*leading, math.prod(grid), width)


def require_rule(text: str) -> None:
    """Raise UsageError where a rule is of no known form."""
    if text not in (CLS, MEAN, POOLED, ALL, TIME_MEAN) and not re.fullmatch(r"pool:[1-9]\d*(x[1-9]\d*){0,2}", text):
        raise UsageError(f"--tokens {text!r} is unknown", hint=f"use {FORMS}")


def _tree_sum(values: Any) -> Any:
    """Values (..., N, M) summed over N: neighbours in pairs, again and again; what is left over comes last."""
    left: Any = None
    while (count := values.shape[-2]) > 1:
        if count % 2:
            left = values[..., -1:, :] if left is None else left + values[..., -1:, :]
        values = values[..., 0 : count - 1 : 2, :] + values[..., 1:count:2, :]
    return (values if left is None else values + left)[..., 0, :]


def _divisors(number: int) -> str:
    return ", ".join(str(one) for one in range(1, min(number, _MOST) + 1) if number % one == 0)


def _float32(values: Any) -> Any:
    return values.astype("float32") if hasattr(values, "astype") else values.float()


def _as(values: Any, like: Any) -> Any:
    return values.astype(like.dtype) if hasattr(like, "astype") else values.to(like.dtype)


def _join(first: Any, rest: Any) -> Any:
    """Tokens behind one another, along the axis before the last."""
    library = import_module("numpy" if hasattr(first, "astype") else "torch")  # not for the command line's `--help`
    return library.concatenate((first, rest), -2)
