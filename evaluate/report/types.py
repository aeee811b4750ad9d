"""Where the errors are: accuracy by type of answer and of question, the commonest wrong answers, captions by score."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epalm.evaluate.metrics.bootstrap import figures
from epalm.evaluate.metrics.metric import Measured
from epalm.evaluate.metrics.registry import metrics
from epalm.evaluate.report.rows import question_start, score_of, short, wanted_texts
from epalm.evaluate.report.scored_runs import ScoredRun
from epalm.samples import Task

_TYPES = 16  # shown of each kind, the most numerous ones
_MISTAKES = 12
_BINS = 12  # of a histogram


def type_tables(runs: Sequence[ScoredRun], judged: Mapping[str, str]) -> list[dict[str, Any]]:
    """One table for each kind of type: its "title", "left_out" types, and "rows" with a figure of each run.

    Where the data set names no type of question, the first two words stand for it.
    """
    told = [run.told["tasks"].get(Task.QA, {}) for run in runs]
    tables = []
    for key, title in (("by_answer_type", "By type of answer"), ("by_question_type", "By type of question")):
        parts = [one.get(key, {}) for one in told]
        if parts[0]:
            tables.append(_table(title, parts))
    if Task.QA in judged and not any(one.get("by_question_type") for one in told):
        tables.append(_table("By the question's first two words", _by_start(runs, judged)))
    return tables


def mistakes(runs: Sequence[ScoredRun], judged: Mapping[str, str]) -> list[dict[str, Any]]:
    """The commonest wrong answers of the first run: "wanted", "said" and how often each run says so."""
    counts = [_wrong(run, judged) for run in runs]
    most = sorted(counts[0].items(), key=lambda item: (-item[1], item[0]))[:_MISTAKES]
    return [{"wanted": pair[0], "said": pair[1], "counts": [count[pair] for count in counts]} for pair, _ in most]


def histogram(runs: Sequence[ScoredRun], judged: Mapping[str, str]) -> dict[str, Any] | None:
    """How many captions of each run score how much: "edges" (fractions) and "counts"; None where there are none."""
    values = [
        [score for line in run.rows.values() if (score := score_of(line, judged)) is not None and _is_caption(line)]
        for run in runs
    ]
    highest = max((max(part, default=0.0) for part in values), default=0.0)
    if not highest:
        return None
    edges = np.linspace(0, highest, _BINS + 1)
    counts = [np.histogram(part, edges)[0] for part in values]
    return {"measure": judged[Task.CAPTION], "edges": edges.tolist(), "counts": [part.tolist() for part in counts]}


def _table(title: str, parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    names = sorted(parts[0], key=lambda name: (-parts[0][name]["scored"], name))
    rows = [{"type": short(name, 60), "figures": [part.get(name) for part in parts]} for name in names[:_TYPES]]
    measure = parts[0][names[0]]["metric"]
    return {"title": title, "measure": measure, "rows": rows, "left_out": max(0, len(names) - _TYPES)}


def _by_start(runs: Sequence[ScoredRun], judged: Mapping[str, str]) -> list[dict[str, dict[str, Any]]]:
    groups: list[dict[str, list[Mapping[str, Any]]]] = [defaultdict(list) for _ in runs]
    for run, group in zip(runs, groups, strict=True):
        for line in run.rows.values():
            if line["task"] == Task.QA and score_of(line, judged) is not None:
                group[question_start(line["prompt"])].append(line)
    shown = set(sorted(groups[0], key=lambda name: (-len(groups[0][name]), name))[:_TYPES])  # others need no interval
    return [{name: _figure(lines, judged, name in shown) for name, lines in group.items()} for group in groups]


def _figure(lines: Sequence[Mapping[str, Any]], judged: Mapping[str, str], shown: bool) -> dict[str, Any]:
    figure: dict[str, Any] = {"metric": judged[Task.QA], "scored": len(lines)}
    if shown:
        scores = np.array([[score_of(line, judged) or 0.0] for line in lines])
        part = {"": Measured(scores, metrics()[judged[Task.QA]].aggregate)}
        figure |= figures(part, [line.get("digest", line["media"]) for line in lines], over_samples=False)[""]
    return figure


def _is_caption(line: Mapping[str, Any]) -> bool:
    return bool(line["task"] == Task.CAPTION)


def _wrong(run: ScoredRun, judged: Mapping[str, str]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for line in run.rows.values():
        if line["task"] == Task.QA and score_of(line, judged) == 0:
            wanted = wanted_texts(line)
            counts[(short(wanted[0] if wanted else "", 60), short(line["text"].strip(), 60))] += 1
    return counts
