"""What crosses the stages: samples in, predictions out. Knows nothing about files' contents or models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from epalm.errors import MediaError
from epalm.media import MediaFile, MediaRoot

if TYPE_CHECKING:
    import pandas as pd


class Modality(StrEnum):
    """What a medium is, and so which encoders can read it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class Task(StrEnum):
    """What is asked about a medium."""

    QA = "qa"
    CAPTION = "caption"


# The measure that stands for a task.
HEADLINE = {Task.QA: "exact match", Task.CAPTION: "CIDEr"}
LINKS = "follow-links:"  # before the name of a data set whose links may lead out of its folder


def with_links(spec: str, *, follow: bool) -> str:
    """The data set `spec`, and with `follow` its links followed: the name under which runs and caches record it."""
    return f"{LINKS}{spec}" if follow and not spec.startswith(LINKS) else spec


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with its answers, or one medium with its reference captions.

    `media` is a POSIX path below the data root. `prompt` is the question as written (a trailing "?" is
    dropped by the text format, not here). `answers` maps each acceptable answer to its score in (0, 1];
    `raw_answers` are VQA's ten human answers where the data set has them. `question_type` and `answer_type` are the
    data set's own. `unanswerable`: the data set accepts no answer, so that any is wrong; without it, a sample that has
    neither answers nor references is not scored.
    """

    id: str
    modality: Modality
    media: str
    task: Task
    split: str
    prompt: str | None = None
    answers: Mapping[str, float] = field(default_factory=dict)
    raw_answers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    question_type: str | None = None
    answer_type: str | None = None
    unanswerable: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of one data set, all splits, with the folder their media lie in.

    `spec` is what the user typed for `--data` ("playground" for the built-in world). `stretches` says where in tar
    shards the media lie; without it each medium is a file below `root`, or with `follow_links` where links below it
    lead. `passed_over` counts files that were seen beside the media, by reason.
    """

    spec: str
    root: Path
    samples: tuple[Sample, ...]
    stretches: Mapping[str, MediaFile] | None = field(default=None, repr=False)
    follow_links: bool = False
    passed_over: Mapping[str, int] = field(default_factory=dict, compare=False)

    def frame(self) -> "pd.DataFrame":
        """One row per sample, in file order, with the fields of `Sample` as columns; None where a sample has none."""
        import pandas as pd

        names = [each.name for each in fields(Sample)]
        return pd.DataFrame(
            {name: pd.Series([getattr(sample, name) for sample in self.samples], dtype=object) for name in names}
        )

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of one split, in file order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def media(self, modality: Modality) -> tuple[str, ...]:
        """Each medium of a modality once, in order of first use: one medium serves any number of samples."""
        return tuple(dict.fromkeys(s.media for s in self.samples if s.modality == modality))

    def locate(self, media: str) -> MediaFile:
        """Where the bytes of a medium lie. Raises MediaError: the name leads outside `root`, or no shard has it."""
        if self.stretches is None:
            return MediaFile(self._media_root().locate(media))
        if media not in self.stretches:
            raise MediaError(f"{media!r} is in none of the shards", hint=f"check the shards of {self.spec!r}")
        return self.stretches[media]

    def linked_roots(self) -> tuple[str, ...]:
        """The folders out of `root` that links led to in locating media so far."""
        return tuple(sorted(self._media_root().linked)) if self.follow_links else ()

    def _media_root(self) -> MediaRoot:
        return _media_root(self.root, self.follow_links, os.getcwd())  # noqa: PTH109 (a path takes longer)


@lru_cache(maxsize=16)
def _media_root(root: Path, follow_links: bool, _working_folder: str) -> MediaRoot:
    """Of a root that may be relative, so that a process may go to another folder."""
    return MediaRoot(root, follow_links=follow_links)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said for one sample."""

    id: str
    text: str
