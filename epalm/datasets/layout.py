"""What of a benchmark is below a folder and what is missing, and what its splits come to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epalm.datasets.benchmark import Benchmark, MediaFolder, Part, candidates
from epalm.errors import MediaError
from epalm.samples import Dataset, Modality


@dataclass(frozen=True, slots=True)
class Place:
    """One annotation file or folder of media of one form. `found` is a path below the root; `size` is in bytes of a
    file, in media of a folder, in which `passed_over` counts other files by reason."""

    form: str
    split: str
    what: str
    expected: str
    folder: bool
    needed: bool
    found: str | None = None
    size: int = 0
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Split:
    """What one split comes to. `media_there` counts media with a file."""

    name: str
    samples: int
    with_answers: int
    media: int
    media_there: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def places(benchmark: Benchmark, root: Path | None = None, *, follow_links: bool = False) -> list[Place]:
    """The layout of each form; with a root, what of it is there."""
    found = []
    for form in benchmark.forms:
        found += [_file(form.name, part, root) for part in form.files]
        found += [_folder(form.name, part, root, benchmark.modality, follow_links) for part in form.media]
    return found


def splits(dataset: Dataset) -> list[Split]:
    """The splits of a data set that is loaded. Asks for each medium whether its file is there."""
    there = {media for media in dict.fromkeys(s.media for s in dataset.samples) if _is_there(dataset, media)}
    result = []
    for name in dict.fromkeys(sample.split for sample in dataset.samples):
        samples = dataset.split(name)
        media = {sample.media for sample in samples}
        answered = sum(bool(s.answers or s.references or s.unanswerable) for s in samples)
        result.append(Split(name, len(samples), answered, len(media), len(media & there)))
    return result


def _file(form: str, part: Part, root: Path | None) -> Place:
    there = [path for path in candidates(root, part) if path.is_file()] if root else []
    place = (form, part.split, part.what, part.names[0], False, not part.optional)
    if not there or root is None:
        return Place(*place)
    return Place(*place, there[0].relative_to(root).as_posix(), there[0].stat().st_size)


def _folder(form: str, part: Part, root: Path | None, modality: Modality, follow_links: bool) -> Place:
    place = (form, part.split, part.what, part.names[0], True, True)
    there = [name for name in part.names if (root / name).is_dir()] if root else []
    if not there or root is None:
        return Place(*place)
    folder = MediaFolder(root, there[:1], modality, follow_links)
    return Place(*place, there[0], folder.count, dict(folder.passed_over))


def _is_there(dataset: Dataset, media: str) -> bool:
    try:
        return dataset.locate(media).status() is not None
    except MediaError:
        return False
