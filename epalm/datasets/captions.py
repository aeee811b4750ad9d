"""Captions gathered by medium: one sample each, with all captions as its references."""

from collections.abc import Iterator

from epalm.datasets.entries import Entry
from epalm.datasets.sharing import Shared
from epalm.samples import Modality, Sample, Task


class Captions:
    """Captions of one split, medium by medium in the order of first use."""

    def __init__(self, split: str, modality: Modality, shared: Shared) -> None:
        self._split, self._modality, self._shared = split, modality, shared
        self._media: dict[str, tuple[Entry, str, list[str]]] = {}

    def add(self, entry: Entry, name: str, media: str, *captions: str) -> None:
        """Captions of the medium called `name`. Equal ones stay: what is published is scored against all of them."""
        self._media.setdefault(name, (entry, media, []))[2].extend(filter(None, captions))

    def samples(self) -> Iterator[tuple[Entry, Sample]]:
        """What was gathered."""
        for name, (entry, media, captions) in self._media.items():
            references = self._shared.texts(captions)
            yield entry, Sample(name, self._modality, media, Task.CAPTION, self._split, references=references)
