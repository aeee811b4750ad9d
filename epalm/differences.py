"""What differs between two records of inputs, in words: "preprocessing.size 224 → 384". Knows nested JSON values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN_DIGITS = 12  # of a digest
Leaf = tuple[str, Any, Any]


def differing_leaves(one: Any, other: Any, path: str = "") -> Iterator[Leaf]:
    """(dotted path, `one`'s value, `other`'s) of each value that differs; None for what is in one alone."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from differing_leaves(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    elif json.dumps(one, default=str) != json.dumps(other, default=str):  # a tuple is a list there
        yield path, one, other


def change_in_words(was: Any, now: Any) -> str:
    """As "224 → 384"; of lists of equal values one, of digests their first digits."""
    if _is_even(was) and _is_even(now) and len(was) == len(now):
        was, now = was[0], now[0]
    return f"{_say(was)} → {_say(now)}"


def _is_even(value: Any) -> bool:
    """Whether it is a list of equal values, which one of them stands for."""
    return isinstance(value, list | tuple) and len(set(map(str, value))) == 1


def _say(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "on"
    if isinstance(value, list | tuple):
        return f"[{', '.join(str(one) for one in value)}]"
    text = str(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:SHOWN_DIGITS] if is_digest else text
