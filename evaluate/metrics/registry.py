"""The metrics there are: ours, and those of other installed packages, by the entry points `epalm.metrics`.

One of ours is an object in `METRICS` of a module named in `_BUILT_IN`; one of another package is what its entry point
of the metric's name leads to. All that scores, compares, reports or documents metrics asks here. The names are known
without importing any of them.
"""

from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from epalm.errors import UsageError
from epalm.plugins import load_plugin, plugins
from epalm.samples import Task

if TYPE_CHECKING:
    from epalm.evaluate.metrics.metric import Metric

GROUP = "epalm.metrics"
_BUILT_IN = {  # in the order in which figures are shown
    "answers": ("exact match", "VQA soft accuracy", "VQA accuracy"),
    "bleu": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"),
    "meteor": ("METEOR",),
    "cider": ("ROUGE-L", "CIDEr"),
    "spice": ("SPICE", "SPIDEr"),
}


def metric_names() -> tuple[str, ...]:
    """The names that `--metrics` takes."""
    return tuple(dict.fromkeys([*(name for names in _BUILT_IN.values() for name in names), *sorted(plugins(GROUP))]))


@cache
def _built_in() -> dict[str, "Metric"]:
    modules = (import_module(f"epalm.evaluate.metrics.{name}") for name in _BUILT_IN)
    return {metric.name: metric for module in modules for metric in module.METRICS}


def metrics() -> Mapping[str, "Metric"]:
    """All metrics by name. Raises UsageError: an installed package offers one that cannot be loaded."""
    return _built_in() | {name: _plugin(name) for name in sorted(plugins(GROUP))}


def choose_metrics(words: str | None = None) -> tuple[str, ...]:
    """The metrics named, separated by commas; None: all. Case, spaces and hyphens do not count, "bleu" is all four.

    Raises UsageError: there is no such metric.
    """
    names = metric_names()
    if words is None:
        return names

    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalnum())

    chosen: set[str] = set()
    for word in [word.strip() for word in words.split(",") if word.strip()] or [words]:
        named = {name for name in names if plain(word) in (plain(name), plain(name).rstrip("1234"))}
        if not named:
            raise UsageError(f"--metrics: there is no metric {word!r}", hint=f"use {', '.join(names)}, or bleu")
        chosen |= named
    return tuple(name for name in names if name in chosen)


def metrics_for(task: Task, names: Collection[str]) -> list["Metric"]:
    """The metrics of those names that score the task, and other forms of them, in the order in which they are shown."""
    return [one for one in metrics().values() if one.task == task and {one.name, one.other_form_of} & {*names}]


def judge(names: Collection[str]) -> str | None:
    """The metric, of these, whose score stands for a sample where a single one is shown; None where none can."""
    known = [metrics()[name] for name in metrics() if name in names]
    ours = [metric for metric in known if metric.per_sample and metric.higher_is_better and not metric.other_form_of]
    return max(ours, key=lambda metric: metric.priority).name if ours else None


@cache
def _plugin(name: str) -> "Metric":
    from epalm.evaluate.metrics.metric import Metric

    if name in _built_in():
        message = f"{plugins(GROUP)[name].value} is no Metric of that name of its own: {name!r} is one of epalm's"
        raise UsageError(message, hint=f"rename the entry point of {GROUP}, and the metric")
    metric = load_plugin(GROUP, name, Metric)
    if metric.library == "epalm":
        metric.library = getattr(plugins(GROUP)[name].dist, "name", metric.library)
    return metric
