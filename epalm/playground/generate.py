"""Write the playground to disk: drawn media as real files, and their questions and captions as samples.

A folder appears complete or not at all. Knows scenes, drawing and files; knows nothing about models.
"""

import json
import random
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from epalm.errors import UsageError
from epalm.playground.draw import write_medium
from epalm.playground.world import QUESTIONS, SPLITS, captions, draw_scenes
from epalm.samples import Modality, Task

_VERSION, _SEED = 2, 0  # the version is raised whenever the same seed would give other files
_MARKER = "playground.json"
COUNTS = {  # media per split: train, val, test
    Modality.IMAGE: (1500, 80, 150),
    Modality.VIDEO: (900, 60, 120),
    Modality.AUDIO: (900, 60, 120),
}


def generate_playground(root: Path, modality: Modality, *, counts: tuple[int, int, int] | None = None) -> Path:
    """Draw the media of one modality below `root`, with `samples.jsonl` beside them, and return `root`.

    A folder that already holds exactly this is left alone; one of another version or size is replaced. `counts` are the
    media of the train, val and test split [default: `COUNTS`]. Raises UsageError: `root` holds something else, which is
    never deleted.
    """
    counts = counts or COUNTS[modality]
    marker, there = _expected(modality, counts), _marker(root)
    if there == marker:
        return root
    if there is None and root.exists() and any(root.iterdir()):
        raise UsageError(
            f"{root} holds files that are not the playground's", hint="move them, or work in another folder"
        )
    draft = root.parent / f".{root.name}-{uuid.uuid4().hex[:8]}"
    try:
        _write(draft, modality, counts)
        (draft / _MARKER).write_text(json.dumps(marker))
        if _marker(root) not in (None, marker):
            shutil.rmtree(root)
        try:
            draft.rename(root)
        except OSError:
            if _marker(root) != marker:  # no other process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def is_drawn(root: Path, modality: Modality) -> bool:
    """Whether the playground lies there, whole and of this version."""
    return _marker(root) == _expected(modality, COUNTS[modality])


def _expected(modality: Modality, counts: tuple[int, int, int]) -> dict[str, Any]:
    return {"version": _VERSION, "modality": modality, "seed": _SEED, "media": list(counts)}


def _marker(root: Path) -> object:
    with suppress(OSError, ValueError):
        marker = json.loads((root / _MARKER).read_text())
        return marker if isinstance(marker, dict) else None
    return None


def _write(folder: Path, modality: Modality, counts: tuple[int, int, int]) -> None:
    """The media, and of each one question per attribute, in one of its wordings, and one sample of captions."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{_SEED}/{modality}")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as lines:
        for split, count in zip(SPLITS, counts, strict=True):
            (folder / split).mkdir()
            for number, scene in enumerate(draw_scenes(modality, split, count, rng)):
                stem = f"{split}/{number:05d}"
                media = write_medium(scene, folder / stem, rng).relative_to(folder).as_posix()
                base = {"modality": modality, "media": media, "split": split}
                for attribute, wordings in QUESTIONS[modality].items():
                    asked = {"prompt": rng.choice(wordings), "answers": {scene[attribute]: 1.0}}
                    row = {"id": f"{stem}/{attribute}", **base, "task": Task.QA, **asked}
                    lines.write(json.dumps(row) + "\n")
                row = {"id": f"{stem}/caption", **base, "task": Task.CAPTION, "references": captions(scene)}
                lines.write(json.dumps(row) + "\n")
