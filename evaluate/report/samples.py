"""The samples of a report: a row each, with what each run predicted, which have their media shown, and the errors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import islice, zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from epalm.evaluate.metrics.bootstrap import figures
from epalm.evaluate.metrics.metric import Measured
from epalm.evaluate.metrics.registry import judge, metrics
from epalm.evaluate.score_files import ScoreFile
from epalm.samples import Task

MAX_ROWS = 20_000
_MAX_TEXT = 1000  # characters of a question, a prediction or a reference
_MAX_REFERENCES = 10
_RIGHT = 0.5  # of an answer's score; VQA gives parts of one
_TYPES = 16  # shown of each kind, the most numerous ones
_MISTAKES = 12
_BINS = 12  # of a histogram


class Samples(NamedTuple):
    """`rows` as the page lists them; `judged`: the metric that stands for the samples of each task.

    `frames` has the samples of each run by id (see `ScoreFile.frame`), with the "score" by that metric, the "grade"
    of it, the "wanted" texts, and the "start" of the question.
    """

    rows: list[dict[str, Any]]
    judged: Mapping[str, str]
    frames: Sequence[pd.DataFrame]


def make_samples(runs: Sequence[ScoreFile], shown: int) -> Samples:
    """A row for each sample of the first run, `shown` of them marked; at most 20,000, the others drawn away by id.

    A row has "id", "task", "media", "prompt", "wanted" (texts), "type" and "start", and for each run its prediction
    ("texts"), the sample's score ("scores"), what that amounts to ("grades") and all its scores ("all").
    """
    first = runs[0].frame
    tasks = {str(task): part.columns[part.notna().any()] for task, part in first.groupby("task", sort=False)}
    judged = {task: name for task, columns in tasks.items() if (name := judge(columns))}
    frames = [_with_scores(run.frame, judged) for run in runs]
    # Lots that depend on nothing but the ids, drawn of each task: as many worst as best as drawn ones, and as many that
    # changed most where runs are compared.
    drawn = sorted(first.index, key=lambda name: sha256(name.encode("utf-8", "surrogatepass")).digest())
    ordered = [frame["score"].reindex(pd.Index(drawn, dtype=object)).fillna(0.0) for frame in frames]
    queues: list[Any] = []
    for _, scores in ordered[0].groupby(first["task"]):
        queues += [one.sort_values(kind="stable").index for one in (scores, -scores)]
        queues.append(scores.index)
        for other in ordered[1:]:
            change = (other[scores.index] - scores).abs()
            queues.append((-change[change > 0]).sort_values(kind="stable").index)
    in_turn = (name for turn in zip_longest(*queues) for name in turn if name is not None)
    chosen = dict.fromkeys(islice(dict.fromkeys(in_turn), shown))
    kept = set(islice(dict.fromkeys([*chosen, *drawn]), max(MAX_ROWS, len(chosen))))
    records: list[Any] = [frame[frame.index.isin(kept)].to_dict("index") for frame in frames]
    rows = [_row([one.get(name) for one in records]) | {"shown": name in chosen} for name in records[0]]
    return Samples(rows, judged, frames)


def count_with_media(samples: Samples, media: Mapping[str, Mapping[str, Any]]) -> int:
    """How many of the rows have their media shown, which `media` has by name, and no fault in their place."""
    return sum(row["shown"] and "fault" not in media[row["media"]] for row in samples.rows)


def short(text: str, most: int = _MAX_TEXT) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _with_scores(frame: pd.DataFrame, judged: Mapping[str, str]) -> pd.DataFrame:
    score = pd.Series(np.nan, frame.index)
    for task, name in judged.items():
        if name in frame:
            score = score.mask(frame["task"] == task, frame[name])
    caption = frame["task"] == Task.CAPTION
    values = np.sort(score[caption].dropna())  # captions are graded by the thirds of them
    low, high = (values[len(values) // 3], values[2 * len(values) // 3]) if len(values) else (0.0, 0.0)
    grades = {
        "none": score.isna(),
        "lower": caption & (score < low),
        "upper": caption & (score >= high),
        "middle": caption,
        "right": score >= _RIGHT,
        "partly": score > 0,
    }
    wanted = [
        references or sorted(answers, key=lambda text: (-answers[text], text))
        for references, answers in zip(frame["references"], frame["answers"], strict=True)
    ]
    starts = zip(frame["question_type"], frame["question"], strict=True)
    return frame.assign(
        score=score,
        grade=np.select(list(grades.values()), list(grades), "wrong"),
        wanted=pd.Series(wanted, frame.index, object),
        # The first two words of a question stand for its type where the data set names none.
        start=[kind or " ".join((question or "").lower().split()[:2])[:40] for kind, question in starts],
    )


def _row(records: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    first = records[0] or {}
    scores = [
        {key: round(value, 5) for key, value in (one or {}).items() if isinstance(value, float) and not np.isnan(value)}
        for one in records
    ]
    return {
        "id": short(first["id"], 200),
        "task": first["task"],
        "media": first["medium"],
        "prompt": short(first["question"] or ""),
        "wanted": [short(text) for text in first["wanted"][:_MAX_REFERENCES]],
        "more": max(0, len(first["wanted"]) - _MAX_REFERENCES),
        "type": first["answer_type"] or "",
        "start": first["start"],
        "texts": [one and short(one["prediction"]) for one in records],
        "scores": [one.pop("score", None) for one in scores],
        "grades": [one["grade"] if one else "none" for one in records],
        "all": scores,
    }


def type_tables(runs: Sequence[ScoreFile], samples: Samples) -> list[dict[str, Any]]:
    """One table for each kind of type: its "title", "left_out" types, and "rows" with a figure of each run.

    Where the data set names no type of question, the first two words stand for it.
    """
    scored = [run.figures["tasks"].get(Task.QA, {}) for run in runs]
    kinds = {kind: [one.get(f"by_{kind}_type", {}) for one in scored] for kind in ("answer", "question")}
    if Task.QA in samples.judged and not any(kinds["question"]):
        kinds["question: its first two words"] = _by_start(samples)
    tables = []
    for kind, parts in kinds.items():
        names = sorted(parts[0], key=lambda name: (-parts[0][name]["scored"], name))
        rows = [{"type": short(name, 60), "figures": [part.get(name) for part in parts]} for name in names[:_TYPES]]
        if rows:
            measure, left_out = parts[0][names[0]]["metric"], max(0, len(names) - _TYPES)
            tables.append({"title": f"By type of {kind}", "measure": measure, "rows": rows, "left_out": left_out})
    return tables


def _by_start(samples: Samples) -> list[dict[str, dict[str, Any]]]:
    """The figure of each beginning of a question, of each run."""
    name = samples.judged[Task.QA]
    asked = [frame[(frame["task"] == Task.QA) & frame["score"].notna()] for frame in samples.frames]
    sizes = asked[0].groupby("start").size()
    shown = set(sorted(sizes.index, key=lambda start: (-sizes[start], start))[:_TYPES])  # others need no interval
    tables = []
    for frame in asked:
        parts: dict[str, dict[str, Any]] = {}
        for start, part in frame.groupby("start"):
            parts[str(start)] = {"metric": name, "scored": len(part)}
            if start in shown:
                measured = {"": Measured(part[["score"]].to_numpy(), metrics()[name].aggregate)}
                media = part["digest"].fillna(part["medium"]).tolist()
                parts[str(start)] |= figures(measured, media)[""]
        tables.append(parts)
    return tables


def mistakes(samples: Samples) -> list[dict[str, Any]]:
    """The commonest wrong answers of the first run: "wanted", "predicted" and how often each run predicts it.

    Both are shortened; "search" is the prediction as its row has it.
    """
    counts = []
    for frame in samples.frames:
        wrong = frame[(frame["task"] == Task.QA) & (frame["score"] == 0)]
        wanted = (texts[0] if texts else "" for texts in wrong["wanted"])
        counts.append(Counter(zip(wanted, (text.strip() for text in wrong["prediction"]), strict=True)))
    most = sorted(counts[0].items(), key=lambda item: (-item[1], item[0]))[:_MISTAKES]
    return [
        {"wanted": short(pair[0], 60), "predicted": short(pair[1], 60), "search": short(pair[1])}
        | {"counts": [count[pair] for count in counts]}
        for pair, _ in most
    ]


def histogram(samples: Samples) -> dict[str, Any] | None:
    """How many captions of each run score how much: "edges" (fractions) and "counts"; None where there are none."""
    values = [frame["score"][frame["task"] == Task.CAPTION].dropna().to_numpy() for frame in samples.frames]
    highest = max((part.max(initial=0.0) for part in values), default=0.0)
    if not highest:
        return None
    edges = np.linspace(0, highest, _BINS + 1)
    counts = [np.histogram(part, edges)[0].tolist() for part in values]
    return {"measure": samples.judged[Task.CAPTION], "edges": edges.tolist(), "counts": counts}
