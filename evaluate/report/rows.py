"""What a report lists: a row a sample, with what each run said of it, and which of them are shown with their medium."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from epalm.evaluate.metrics.registry import judge
from epalm.evaluate.report.scored_runs import ScoredRun
from epalm.samples import Task

MAX_ROWS = 20_000
_MAX_TEXT = 1000  # characters of a question, a prediction or a reference
_MAX_REFERENCES = 10
_RIGHT = 0.5  # of an answer's score; VQA gives parts of one


@dataclass(frozen=True)
class Rows:
    """`rows` as the page has them; `of` how many samples there are, `judged` by what each task's samples are."""

    rows: list[dict[str, Any]]
    of: int
    judged: Mapping[str, str]


def make_rows(runs: Sequence[ScoredRun], shown: int) -> Rows:
    """A row for each sample of the first run, `shown` of them marked; at most 20,000, the others drawn away by id.

    A row has "id", "task", "media", "prompt", "wanted" (texts), "type" and "start", and for each run what it said
    ("texts"), the sample's score ("scores"), what that amounts to ("grades") and all its scores ("all").
    """
    first = runs[0].rows
    judged = _judged(first)
    chosen = _chosen(runs, judged, shown)
    others = sorted((name for name in first if name not in chosen), key=_lot)
    kept = {*chosen, *others[: max(0, MAX_ROWS - len(chosen))]}
    thirds = [_thirds(run, judged) for run in runs]
    rows = [_row(name, runs, judged, thirds) | {"shown": name in chosen} for name in first if name in kept]
    return Rows(rows, len(first), judged)


def score_of(line: Mapping[str, Any] | None, judged: Mapping[str, str]) -> float | None:
    """What a sample got by its task's measure; None where it has no such score."""
    return line["scores"].get(judged.get(line["task"], "")) if line else None


def question_start(prompt: str | None) -> str:
    """The first two words of a question: what stands for its type where the data set names none."""
    return " ".join((prompt or "").lower().split()[:2])[:40]


def short(text: str, most: int = _MAX_TEXT) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def wanted_texts(line: Mapping[str, Any]) -> list[str]:
    """References, or acceptable answers, the best first."""
    answers: Mapping[str, float] = line.get("answers", {})
    return list(line.get("references", ())) or sorted(answers, key=lambda text: (-answers[text], text))


def _judged(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for line in rows.values():
        found.setdefault(line["task"], set()).update(line["scores"])
    return {task: name for task in found if (name := judge(found[task]))}


def _chosen(runs: Sequence[ScoredRun], judged: Mapping[str, str], count: int) -> dict[str, None]:
    """Ids, as many worst as best as drawn ones of each task, and as many that changed most where runs are compared."""
    queues: list[Iterator[str]] = []
    first = runs[0].rows
    for task in sorted({line["task"] for line in first.values()}):
        names = sorted((name for name, line in first.items() if line["task"] == task), key=_lot)
        scores = {name: score_of(first[name], judged) or 0.0 for name in names}
        queues += [iter(sorted(names, key=scores.__getitem__)), iter(sorted(names, key=lambda n: -scores[n]))]
        queues.append(iter(names))
        for other in runs[1:]:
            change = {name: abs((score_of(other.rows.get(name), judged) or 0.0) - scores[name]) for name in names}
            queues.append(iter(sorted((n for n in names if change[n]), key=lambda n: -change[n])))
    chosen: dict[str, None] = {}
    while queues and len(chosen) < count:
        queue = queues.pop(0)
        name = next((one for one in queue if one not in chosen), None)
        if name is not None:
            chosen[name] = None
            queues.append(queue)
    return chosen


def _lot(name: str) -> bytes:
    """A drawing of lots that depends on nothing but the id."""
    return sha256(name.encode("utf-8", "surrogatepass")).digest()


def _thirds(run: ScoredRun, judged: Mapping[str, str]) -> tuple[float, float]:
    """The caption scores that a third and two thirds of the samples are below."""
    captions = [score_of(line, judged) for line in run.rows.values() if line["task"] == Task.CAPTION]
    values = sorted(value for value in captions if value is not None)
    return (values[len(values) // 3], values[2 * len(values) // 3]) if values else (0.0, 0.0)


def _row(
    name: str, runs: Sequence[ScoredRun], judged: Mapping[str, str], thirds: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    line = runs[0].rows[name]
    lines = [run.rows.get(name) for run in runs]
    scores = [score_of(one, judged) for one in lines]
    wanted = wanted_texts(line)
    return {
        "id": short(str(name), 200),
        "task": line["task"],
        "media": str(line["media"]),
        "prompt": short(line["prompt"] or ""),
        "wanted": [short(text) for text in wanted[:_MAX_REFERENCES]],
        "more": max(0, len(wanted) - _MAX_REFERENCES),
        "type": line.get("answer_type") or "",
        "start": line.get("question_type") or question_start(line["prompt"]),
        "texts": [None if one is None else short(one["text"]) for one in lines],
        "scores": [None if score is None else round(score, 5) for score in scores],
        "grades": [_grade(line["task"], score, third) for score, third in zip(scores, thirds, strict=True)],
        "all": [_all_scores(one) for one in lines],
    }


def _grade(task: str, score: float | None, thirds: tuple[float, float]) -> str:
    if score is None:
        return "none"
    if task == Task.CAPTION:
        low, high = thirds
        return "lower" if score < low else "upper" if score >= high else "middle"
    return "right" if score >= _RIGHT else "partly" if score > 0 else "wrong"


def _all_scores(line: Mapping[str, Any] | None) -> dict[str, float]:
    scores = line["scores"] if line else {}
    return {name: round(value, 5) for name, value in scores.items() if not isinstance(value, list)}
