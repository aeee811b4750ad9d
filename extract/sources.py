"""The files of media that are known by digest, found again through manifests and the data sets that these name.

Believes no name: a file counts when its bytes have the digest now. Knows data sets and digests; decodes nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from epalm.cache.manifest import Manifest
from epalm.cache.media_index import MediaIndex
from epalm.datasets import load_dataset
from epalm.errors import EpalmError, MediaError
from epalm.extract.plan import Pending
from epalm.samples import Dataset, Modality


@dataclass
class Sources:
    """What was found so far, and why the rest was not."""

    manifests: Sequence[Manifest]
    modality: Modality
    index: MediaIndex
    found: dict[str, Pending] = field(default_factory=dict)  # by digest; without views
    _names: dict[str, str] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)
    _datasets: dict[str, Dataset | str] = field(default_factory=dict)  # by `--data`: itself, or why it is not here

    def look_for(self, digests: Collection[str]) -> None:
        """Find as many of these as there are."""
        wanted = set(digests) - self.found.keys()
        places = []
        for manifest in self.manifests:
            for name, digest in manifest.digests.items():
                if digest not in wanted:
                    continue
                self._names[digest] = name
                dataset = self._dataset(manifest)
                if isinstance(dataset, str):
                    self._faults[digest] = dataset
                    continue
                try:
                    places.append((name, digest, dataset.locate(name)))
                except MediaError as error:
                    self._faults[digest] = error.message
        files = [file for _, _, file in places]
        statuses = [file.status() for file in files]
        hashed = self.index.digests(files, statuses)
        for (name, digest, file), status, now in zip(places, statuses, hashed, strict=True):
            if status is not None and now == digest:
                self.found[digest] = Pending(name, file, digest, status, ())
            else:
                gone = "is not there" if status is None else "has changed since, or cannot be read"
                self._faults[digest] = f"{file.path} {gone}"

    def name(self, digest: str) -> str:
        """What a data set calls the medium, or the digest's first digits."""
        return self._names.get(digest, f"digest {digest[:12]}")

    def why_not(self, digest: str) -> str:
        """Why a medium was not found."""
        return self._faults.get(digest, "no data set is known to hold it")

    def sequences(self, bad: Collection[str]) -> Iterator[list[str]]:
        """The digests of each data set at hand in its order: of all its media, then of each split.

        Each without those that are `bad`, then with them where there are any: they may have been tried again.
        """
        for manifest in self.manifests:
            dataset = self._dataset(manifest)
            if isinstance(dataset, str):
                continue
            everything = dataset.media(self.modality)
            splits = dict.fromkeys(sample.split for sample in dataset.samples)
            parts = [{sample.media for sample in dataset.split(split)} for split in splits] if len(splits) > 1 else []
            for part in [None, *parts]:
                names = (name for name in everything if part is None or name in part)
                digests = (manifest.digests.get(name) for name in names)
                sequence = list(dict.fromkeys(digest for digest in digests if digest))
                readable = [digest for digest in sequence if digest not in bad]
                yield readable
                if len(readable) < len(sequence):
                    yield sequence

    def _dataset(self, manifest: Manifest) -> Dataset | str:
        if manifest.data not in self._datasets:
            try:
                self._datasets[manifest.data] = load_dataset(manifest.data, self.modality)
            except EpalmError as error:
                self._datasets[manifest.data] = error.message
        return self._datasets[manifest.data]
