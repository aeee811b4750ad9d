"""Scores on disk: `scores.json` of the last scoring, and one pair of files for each, which later ones leave alone.

`NAME.json` has the figures, `NAME.per-sample.jsonl` a line for each sample: what was asked and predicted, and its
scores.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.objects.durable import write_atomically
from epalm.errors import UsageError
from epalm.evaluate.scoring import Scores
from epalm.train.runs.run_folder import RunFolder, writing

if TYPE_CHECKING:
    import pandas as pd

LAST = "scores.json"
FOLDER = "scores"
# The columns of `ScoreFile.frame` beside the scores, each with its key in a sample's line.
COLUMNS = {"id": "id", "task": "task", "medium": "media", "digest": "digest", "question": "prompt"} | {
    "prediction": "text",
    **{key: key for key in ("references", "answers", "question_type", "answer_type")},
}


@dataclass(frozen=True)
class ScoreFile:
    """A scoring as it was written: `figures` are what the file holds. `name`: the run's, or the file's.

    `run` is None for scores of predictions from elsewhere.
    """

    name: str
    path: Path
    figures: Mapping[str, Any]
    run: RunFolder | None = None

    @property
    def lines(self) -> Path:
        """The file of the samples' lines."""
        return self.path.parent / str(self.figures["per_sample"])

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row a sample, by id: `COLUMNS`, then a column for each metric, NaN where a sample has no such score.

        The statistics of metrics that are no mean, such as "BLEU counts", are lists. Raises UsageError: the file of the
        lines is not there or damaged.
        """
        import pandas as pd

        try:
            with self.lines.open(encoding="utf-8") as file:
                rows = [_row(json.loads(line)) for line in file]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.lines} cannot be read: {error}", hint="epalm score writes it anew") from error
        frame = pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=list(COLUMNS), dtype=object)
        frame = frame.drop_duplicates("id", keep="last").set_index("id", drop=False)
        for name in frame.columns[len(COLUMNS) :]:
            if not frame[name].map(lambda value: isinstance(value, list)).any():
                frame[name] = frame[name].astype(float)
        return frame


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a sample's line. Raises ValueError, KeyError, TypeError: `write_scores` writes no such line."""
    texts = [line["id"], line["task"], line["media"], line["text"], line["prompt"] or ""]
    numbers = [part for one in line["scores"].values() for part in (one if isinstance(one, list) else [one])]
    if not all(isinstance(one, str) for one in texts) or not all(abs(one) < float("inf") for one in numbers):
        raise ValueError("a line of it is no sample's")
    lists = {"references": line.get("references", []), "answers": line.get("answers", {})}
    return {**{column: line.get(key) for column, key in COLUMNS.items()}, **lists, **line["scores"]}


def lines_path(path: Path) -> Path:
    """Where, beside the scores in `path`, the line of each sample goes: a name that nothing else is given."""
    return path.with_name(f"{path.stem}.per-sample.jsonl")


def write_scores(path: Path, about: Mapping[str, Any], scores: Scores, *, last: Path | None = None) -> dict[str, Any]:
    """Write `path`, beside it the line of each sample, and `last`, above it, with the same figures.

    Returns what was written last. Raises EpalmError.
    """
    lines = lines_path(path)
    whole = {"written_by": "epalm score", **about, "samples": scores.digest, "tasks": scores.tasks}
    # A lone surrogate, as of a name that is not UTF-8, becomes its escape, which JSON reads back.
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in scores.per_sample)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(lines, text.encode(errors="backslashreplace"))  # first: who finds figures finds lines as well
        for file in [path, last] if last else [path]:
            whole["per_sample"] = lines.relative_to(file.parent).as_posix()
            text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
            write_atomically(file, f"{text}\n".encode(errors="backslashreplace"))
    return whole


def read_scores(name: str | None, runs: Path, split: str | None = None) -> ScoreFile:
    """The scores of a run, by its name or folder, or of a file that `epalm score --predictions` wrote.

    `name`: without one, the latest run. `split`: the newest of that split; without one, those of the last scoring.
    Raises UsageError: there are none, or they cannot be read.
    """
    if name is not None and name.endswith(".json"):
        return _read(Path(name), Path(name).name.removesuffix(".json").removesuffix(".scores"))
    run = RunFolder.find(runs, name)
    for path in sorted((run.path / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        scores = _read(path, run.name, run)
        if split is None or scores.figures.get("split") == split:
            return scores
    again = f"epalm score --run {name or run.path}" + (f" --split {split}" if split else "")
    raise UsageError(f"{run.path} has no scores {f'of split {split!r}' if split else 'yet'}", hint=again)


def _read(path: Path, name: str, run: RunFolder | None = None) -> ScoreFile:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(figures, dict) or not {"tasks", "per_sample", "samples"} <= figures.keys():
            raise ValueError("it is no file of scores with a line for each sample")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="epalm score writes such files") from error
    return ScoreFile(name, path, figures, run)
