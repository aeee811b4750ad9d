"""What crosses the stages: samples in, predictions out. Knows nothing about files or models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Modality(StrEnum):
    """What a medium is, and so which encoders can read it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class Task(StrEnum):
    """What is asked about a medium."""

    QA = "qa"
    CAPTION = "caption"


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with its answers, or one medium with its reference captions.

    `media` is a POSIX path below the data root. `prompt` is the question as written (a trailing "?" is
    dropped by the text format, not here). `answers` maps each acceptable answer to its score in (0, 1];
    `raw_answers` are VQA's ten human answers where the data set has them.
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


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of one data set, all splits, with the folder their media lie in.

    `spec` is what the user typed for `--data` ("playground" for the built-in world).
    """

    spec: str
    root: Path
    samples: tuple[Sample, ...]

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of one split, in file order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def media(self, modality: Modality) -> tuple[str, ...]:
        """Each medium of a modality once, in order of first use: one medium serves any number of samples."""
        return tuple(dict.fromkeys(s.media for s in self.samples if s.modality == modality))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said for one sample."""

    id: str
    text: str
