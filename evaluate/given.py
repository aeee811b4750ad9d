"""Predictions that others made, as files: JSON lines, or the results form of VQA or of COCO captions.

A line, or an entry of the list, is {"id", "text"}, {"question_id", "answer"} (visualqa.org/evaluation) or {"image_id",
"caption"} (cocodataset.org/#format-results); more keys beside these are left alone. Nothing is guessed: an id that the
data do not have, and one that is there twice, are told.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.errors import UsageError
from epalm.evaluate.scoring import is_expected
from epalm.samples import Prediction, Sample

FORMS = (("id", "text"), ("question_id", "answer"), ("image_id", "caption"))
_HINT = " or ".join(f'{{"{key}": …, "{text}": "…"}}' for key, text in FORMS)
_SHOWN = 3  # ids that a message names


@dataclass(frozen=True)
class Given:
    """Predictions of samples that the data have; `unknown` are ids of others, `repeated` those given twice alike."""

    predictions: tuple[Prediction, ...]
    unknown: tuple[str, ...]
    repeated: tuple[str, ...]


def read_given(path: Path, samples: Sequence[Sample]) -> Given:
    """The predictions in a file, for these samples.

    Raises:
        UsageError: the file cannot be read, an entry is of none of the forms, an id has two texts, or no id is one of
            the samples'.
    """
    known, found = {sample.id for sample in samples}, dict[str, tuple[str, str]]()
    repeated: list[str] = []
    for where, entry in _entries(path):
        name, text = _entry(entry, f"{path}, {where}")
        if name in found:
            before, first = found[name]
            if before != text:
                raise UsageError(
                    f"{path}, {where}: id {name!r} has another text than in {first}",
                    hint="keep one prediction for each id",
                )
            repeated.append(name)
        else:
            found[name] = text, where
    if not found:
        raise UsageError(f"{path} holds no prediction", hint=f"one a line: {_HINT}")
    predictions = tuple(Prediction(name, text) for name, (text, _) in found.items() if name in known)
    if not predictions:
        ours = next((sample.id for sample in samples if is_expected(sample)), samples[0].id)
        raise UsageError(
            f"{path}: none of its {len(found)} ids, such as {next(iter(found))!r}, is one of the data's {len(samples)} "
            f"samples, such as {ours!r}",
            hint="check --data and --split",
        )
    return Given(predictions, tuple(name for name in found if name not in known), tuple(repeated))


def some(ids: Sequence[str]) -> str:
    """A few ids, for a message."""
    return ", ".join(map(repr, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, entry) of a JSON list, or of a file of JSON lines."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            if _begins_with(file, "["):
                yield from ((f"entry {n}", one) for n, one in enumerate(_json(file.read(), str(path)), start=1))
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"line {number}", _json(line, f"{path}, line {number}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="--predictions takes a file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error


def _begins_with(file: Any, mark: str) -> bool:
    while (first := file.read(1)).isspace():
        pass
    file.seek(0)
    return bool(first == mark)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({str(error)[:80]})", hint=f"one a line: {_HINT}") from None


def _entry(entry: Any, where: str) -> tuple[str, str]:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: not an object", hint=_HINT)
    for key, text in FORMS:
        if key in entry:
            name, said = entry[key], entry.get(text)
            if isinstance(name, bool) or not isinstance(name, str | int):
                raise UsageError(f"{where}: {key!r} is {name!r}, neither a text nor a whole number", hint=_HINT)
            if not isinstance(said, str):
                fault = f"is {said!r}, not a text" if text in entry else "is missing"
                raise UsageError(f"{where}: {text!r} {fault}", hint=_HINT)
            return str(name), said
    keys = " or ".join(repr(key) for key, _ in FORMS)
    raise UsageError(f"{where}: it has no {keys}", hint=_HINT)
