"""Figures of `scores.json` in words: the value, its interval, and of how many samples it is. Knows no measure.

A figure has "value", "low" and "high" (fractions; None without an interval), "interval" (over what, or why there is
none), "scored" samples, those "expected", and those there are, "of" which a limited scoring took the first.
"""

from collections.abc import Mapping
from typing import Any

Figure = Mapping[str, Any]


def hundred(value: float | None, form: str = ".2f") -> str:
    """A fraction × 100; nothing for none."""
    return "" if value is None else f"{100 * value:{form}}"


def interval_in_words(figure: Figure, form: str = ".2f") -> str:
    """The interval × 100, or why there is none."""
    if figure["low"] is None:
        return str(figure["interval"])
    return f"{hundred(figure['low'], form)} – {hundred(figure['high'], form)}"


def samples_in_words(figure: Figure) -> str:
    """How many samples were scored of how many there are, such as "2/60, limited" or "58/60, 2 missing"."""
    expected = figure.get("expected", figure["scored"])
    there_are = figure.get("of", expected)
    words = f"{figure['scored']:,}/{there_are:,}"
    words += ", limited" if expected < there_are else ""
    return words + (f", {figure['missing']:,} missing" if figure.get("missing") else "")


def headline_in_words(name: str, figure: Figure) -> str:
    """A figure that stands alone: its name, value × 100, of how many samples of which split and data."""
    return f"{name} {hundred(figure['value'])} ({samples_in_words(figure)}, {figure['split']} of {figure['data']})"
