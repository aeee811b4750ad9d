"""A data set of very many tiny media, its samples file, and a cache that holds rows for all but one in a hundred."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.cache.token_rules import TokenLayout
from epalm.datasets import load_dataset
from epalm.extract.inputs.preprocess import ImageInput, Input, Pixels
from epalm.extract.spec_builder import feature_spec
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality

if TYPE_CHECKING:
    import torch

_FOLDER = 1_000  # media in each
_BLOCK = 512  # rows, as `epalm extract` writes them
_NEW = 100  # one medium in so many has no row, and is not known to the index
_LONG_AGO = time.time() - 7 * 86_400  # media changed just now are hashed again every time
_ANSWERS = ("yes", "no", "red", "blue", "two", "a dog")


class SyntheticEncoder:
    """An encoder that never encodes, with rows of eight bytes. It does without torch, which takes much memory."""

    kind, modality, depth, width, precision = "synthetic", Modality.IMAGE, 1, 4, "float32"
    layout = TokenLayout(True, ())
    device: "torch.device"

    def __init__(self) -> None:
        self.input: Input = ImageInput(Pixels((4, 4), "nearest", (0.0,) * 3, (1.0,) * 3))

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def encode(self, batch: "torch.Tensor", layers: Sequence[int], dtype: "torch.dtype") -> "torch.Tensor":
        raise NotImplementedError


def synthetic_spec() -> FeatureSpec:
    """Of its only layer."""
    return feature_spec(SyntheticEncoder(), (0,))


@dataclass(frozen=True)
class ManyMedia:
    """`count` media below `folder`; digests follow from their numbers, so that none has to be looked up."""

    folder: Path
    count: int

    @property
    def cache(self) -> Cache:
        """The cache of the world."""
        return Cache(self.folder / "cache")

    def dataset(self) -> Dataset:
        """The data set, read anew."""
        return load_dataset(str(self.folder / "samples.jsonl"), Modality.IMAGE)

    def make(self) -> None:
        """Write media, samples and cache."""
        for first in range(0, self.count, _FOLDER):
            self._path(first).parent.mkdir(parents=True)
            for number in range(first, min(first + _FOLDER, self.count)):
                descriptor = os.open(self._path(number), os.O_WRONLY | os.O_CREAT)
                os.write(descriptor, _content(number))
                os.close(descriptor)
                os.utime(self._path(number), (_LONG_AGO, _LONG_AGO))
        self.write_samples("samples.jsonl", self.count)
        old = [number for number in range(self.count) if number % _NEW]
        self.cache.media.digests([MediaFile(self._path(number)) for number in old])
        features = self.cache.feature_set(synthetic_spec(), recorded={})
        fill(features, [_digest(number) for number in old])

    def forget_new(self, turn: int) -> None:
        """Let the media without a row be unknown to the index again, though an earlier `turn` hashed them."""
        for number in range(0, self.count, _NEW):
            os.utime(self._path(number), (_LONG_AGO + turn, _LONG_AGO + turn))

    def write_samples(self, name: str, count: int) -> Path:
        """A file of samples of the first `count` media, a question each."""
        path = self.folder / name
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._rows(count))
        return path

    def digests(self, count: int) -> list[str]:
        """Of the first `count` media."""
        return [_digest(number) for number in range(count)]

    def _rows(self, count: int) -> Iterator[dict[str, object]]:
        for number in range(count):
            answers = {_ANSWERS[number % 6]: 1.0, _ANSWERS[number % 5]: 0.6, _ANSWERS[number % 3]: 0.3}
            yield {
                "id": str(number),
                "modality": "image",
                "media": self._path(number).relative_to(self.folder).as_posix(),
                "task": "qa",
                "split": "test" if number % 10 == 0 else "train",
                "prompt": f"what is to be seen in picture {number % 200_000}",
                "answers": answers,
            }

    def _path(self, number: int) -> Path:
        return self.folder / "media" / f"{number // _FOLDER:04}" / f"{number:08}.jpg"


def fill(features: FeatureSet, digests: Sequence[str]) -> None:
    """Commit rows of zeros, as many as `epalm extract` puts into a block at a time."""
    shape = (1, *features.spec.row_shape)
    for first in range(0, len(digests), _BLOCK):
        block = digests[first : first + _BLOCK]
        features.write_block(block, np.zeros((len(block), *shape), features.spec.stored_dtype))


def _content(number: int) -> bytes:
    return b"medium %d" % number


def _digest(number: int) -> str:
    return hashlib.sha256(_content(number)).hexdigest()
