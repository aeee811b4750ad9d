"""From what the user types to tar shards: one file, a range in braces, or a pattern. Knows names; opens nothing."""

import glob
import os
import re
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

from epalm.datasets.listing import is_shard
from epalm.errors import UsageError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000  # shards: more is a mistyped range
_NAMED = 3  # missing shards named in a message; the rest is counted


def find_shards(spec: str) -> tuple[Path, list[Path]] | None:
    """The folder that all shards lie in, and the shards in order; None where `spec` names no shards.

    `spec` is a .tar file, such a name with braces (`train-{000..009}.tar`, `{train,val}.tar`), or a pattern
    (`shards/*.tar`, `**` for folders of any depth). A file of exactly that name goes before a pattern.

    Raises:
        UsageError: nothing is there, or only a part of the range.
    """
    if not is_shard(spec) or Path(spec).is_dir():
        return None
    names = [spec] if Path(spec).exists() else list(_expand(spec))
    shards: dict[Path, None] = {}
    missing = []
    for name in names:
        # Unlike Path.glob this takes a pattern from the root on.
        found = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        missing += [] if found else [name]
        shards |= dict.fromkeys(map(Path, found))
    if missing:
        rest = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise UsageError(
            f"data {spec!r}: there is no {', '.join(missing[:_NAMED])}{rest}",
            hint="quote patterns and ranges, so that the shell leaves them alone",
        )
    return Path(os.path.commonpath([shard.absolute().parent for shard in shards])), list(shards)


def _expand(spec: str) -> Iterator[str]:
    """The names that braces stand for, the first brace's changing slowest."""
    parts = [_choices(part, spec) if n % 2 else [part] for n, part in enumerate(_BRACES.split(spec))]
    if prod(map(len, parts)) > _MOST:
        raise UsageError(f"data {spec!r} names more than {_MOST:,} shards", hint="check the range in braces")
    return map("".join, product(*parts))


def _choices(text: str, spec: str) -> list[str]:
    """`000..009` counts, with leading zeros as in its first number; `a,b` lists; other braces stay as they are."""
    numbers = _RANGE.fullmatch(text)
    if not numbers:
        return text.split(",") if "," in text else [f"{{{text}}}"]
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < _MOST:
        raise UsageError(f"data {spec!r}: {{{text}}} is no range of up to {_MOST:,} shards", hint="{000..009}")
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
