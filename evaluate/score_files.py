"""Scores on disk: `scores.json` of the last scoring, and one pair of files for each, which later ones leave alone.

`NAME.json` has the figures, `NAME.per-sample.jsonl` a line for each sample: what was asked and said, and what it
scored.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import write_atomically
from epalm.errors import UsageError
from epalm.evaluate.scoring import Scores
from epalm.train.runs.run_folder import RunFolder, writing

LAST = "scores.json"
FOLDER = "scores"


@dataclass(frozen=True)
class ScoreFiles:
    """Scores as they were written: the figures, and each sample's line by its id. `name`: the run's, or the file's."""

    name: str
    path: Path
    told: Mapping[str, Any]

    @property
    def lines(self) -> Path:
        """The file of the samples' lines."""
        return self.path.parent / str(self.told["per_sample"])

    def per_sample(self) -> dict[str, dict[str, Any]]:
        """Id → the sample's line. Raises UsageError: the file is not there or damaged."""
        path = self.lines
        found = {}
        try:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    value = json.loads(line, parse_constant=_refuse)
                    _require_line(value)
                    found[value["id"]] = value
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} cannot be read: {error}", hint="epalm score writes it anew") from error
        return found


def write_scores(path: Path, told: Mapping[str, Any], scores: Scores) -> dict[str, Any]:
    """Write `path` and, beside it, the line of each sample; returns what `path` holds. Raises EpalmError."""
    lines = lines_path(path)
    whole = {**told, "tasks": scores.tasks, "per_sample": lines.name}
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(lines, _lines(scores.per_sample))  # first: who finds the figures finds the lines as well
        write_atomically(path, as_json(whole))
    return whole


def lines_path(path: Path) -> Path:
    """Where, beside the scores in `path`, the line of each sample goes: a name that nothing else is given."""
    return path.with_name(f"{path.stem}.per-sample.jsonl")


def as_json(told: Mapping[str, Any]) -> bytes:
    """The text of a scores file."""
    return (json.dumps(dict(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"
    )


def read_scores(name: str, runs: Path, split: str | None = None) -> ScoreFiles:
    """The scores of a run, by its name or folder, or of a file that `epalm score --predictions` wrote.

    `split`: the newest of that split; without one, those of the last scoring.

    Raises:
        UsageError: there are none, or they cannot be read.
    """
    if name.endswith(".json"):
        return _read(Path(name), Path(name).name.removesuffix(".json").removesuffix(".scores"))
    run = RunFolder.find(runs, name)
    again = f"epalm score --run {name}" + (f" --split {split}" if split else "")
    found = sorted((run.path / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found:
        files = _read(path, run.name)
        if split is None or files.told.get("split") == split:
            return files
    what = f"of split {split!r}" if split else "yet"
    raise UsageError(f"{run.path} has no scores {what}", hint=again)


def _read(path: Path, name: str) -> ScoreFiles:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not is_scores(told):
            raise ValueError("it is no file of scores with a line for each sample")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="epalm score writes such files") from error
    return ScoreFiles(name, path, told)


def is_scores(value: Any) -> bool:
    """Whether a file of that JSON value is one of scores, with a line for each sample."""
    return isinstance(value, dict) and {"tasks", "per_sample", "samples"} <= value.keys()


def is_sample_line(value: Any) -> bool:
    """Whether that JSON value is what `write_scores` writes of a sample."""
    try:
        _require_line(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _require_line(value: Any) -> None:
    """Raises ValueError: this is not what `write_scores` writes of a sample."""
    texts = [value["id"], value["task"], value["media"], value["text"], value["prompt"] or ""]
    numbers = [part for one in value["scores"].values() for part in (one if isinstance(one, list) else [one])]
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, int | float) for one in numbers):
        raise ValueError("a line of it is no sample's")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no score")


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    # A lone surrogate, as of a name that is not UTF-8, becomes its escape, which JSON reads back.
    return b"".join((json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace") for row in rows)
