"""Where a sample's features come from, as training and decoding see it: the cache, or an encoder in the loop.

Letters: B batch, L layers, T tokens of a layer, D_enc encoder width; N media, V views.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import xxhash
from torch import nn

from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import look_up, read_manifests
from epalm.cache.reader import Blocks
from epalm.cache.store import Cache, touch
from epalm.cache.token_rules import TokenLayout
from epalm.console import first_in_words, say
from epalm.datasets import from_anywhere
from epalm.errors import MediaError, UsageError
from epalm.fingerprint import canonical_json, digest_json
from epalm.media import MediaFile
from epalm.samples import Dataset, Sample
from epalm.train.data.order import in_blocks

REASONS = ("new", "stale", "bad", "absent")  # bad: it is in the ledger; absent: no file, and no row by its name
_NAMED = 5  # media named in a message; the rest is counted
Gather = Callable[..., np.ndarray]  # of `FeatureSource`


class FeatureSource(Protocol):
    """Features of samples, from the cache or from an encoder."""

    layers: int
    width: int
    layout: TokenLayout  # of a layer's T tokens

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        """Features (B, L, T, D_enc): augmented views drawn for a training epoch, view 0 where `epoch` is None."""
        ...

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        """SHA-256 (hex) of each sample's medium; "" for one that cannot be read."""
        ...

    def describe(self) -> dict[str, Any]:
        """What decides the numbers, as JSON: "source", "encoder", "layers", "preprocessing"; "choice" rebuilds it."""
        ...


@runtime_checkable
class TrainableSource(FeatureSource, Protocol):
    """Features of an encoder that is trained."""

    encoder: nn.Module  # raw inputs (B, ...) → features (B, L, T, D_enc), with gradients

    def inputs(self, samples: Sequence[Sample], *, epoch: int | None = None) -> torch.Tensor:
        """Raw inputs (B, ...) for `encoder`; views as `gather`'s."""
        ...


class MissingFeature(NamedTuple):
    """A medium without a row: the reason, one of `REASONS`, and what to tell the user."""

    reason: str
    message: str


class CachedFeatures:
    """Rows of one feature set; media are found by the digest of their bytes.

    A medium whose file is not here is found by its name, in the manifest of the extraction; `sourceless` counts these.
    `missing` says why the others have no row. Until `draw_from` is called, every gather gives view 0.
    """

    def __init__(
        self,
        cache: Cache,
        name: str,
        dataset: Dataset,
        samples: Sequence[Sample],
        layers: str | Sequence[int] | None = None,
        *,
        rule: str | None = None,
        mapped: bool = False,
    ) -> None:
        """The rows of these samples' media in the feature set `name`; `layers` as typed, or as block numbers.

        `rule`: which tokens of them [default: those stored]. `mapped`: the processes of a machine that read these rows
        have them in memory once, but for tokens that are made of those stored. Raises UsageError: layers of no known
        form, or layers or tokens that the set does not hold; CacheError: there is no such set, or it is damaged.
        """
        self._features = features = cache.find(name)
        if not cache.read_only:
            touch(features.objects)
        asked = cache.chosen_layers(features, layers) if layers is None or isinstance(layers, str) else layers
        self._spec = features.spec.narrowed(rule or features.spec.rule, asked)
        media = list(dict.fromkeys(sample.media for sample in samples))
        self._digests, self.missing, self.sourceless = _look_up(features, cache, dataset, media)
        self._reader = features.open(only=set(self._digests.values()), wanted=self._spec, mapped=mapped)
        self.fits = self._reader.fits  # in memory
        self.order_key = digest_json(self._reader.blocks)  # of what an order by blocks depends on
        numbers = self._reader.rows_of(list(self._digests.values())).tolist()
        self._rows: dict[str, int] = dict(zip(self._digests, numbers, strict=True))
        self.layers, self.layout, self.width = len(self._spec.layers), self._spec.layout, self._spec.width
        self.layer_bytes = self._spec.row_bytes // self.layers  # of a medium, as stored
        self._views: tuple[int, ...] = (0,)  # that training epochs draw from
        self._seed = 0
        if self.sourceless:
            say(f"{self.sourceless:,} media are not here: their rows are found by the names of the extraction")

    def draw_from(self, samples: Sequence[Sample], *, seed: int) -> tuple[int, ...]:
        """From now on, draw training views of these samples; the views drawn from: 1 … V, or 0 where there are none.

        A view is a pure function of (seed, epoch, medium, sample). Only views that all these media have are drawn.
        """
        self._seed = seed
        self._views = tuple(view for view in self._reader.views_of(self._rows_of(samples)) if view) or (0,)
        return self._views

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        """See `FeatureSource`; in the stored dtype."""
        return self._gather(samples, epoch=epoch)

    def blocks_of(self, samples: Sequence[Sample], *, epoch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The number (len(samples),) of the block that each sample's view of the epoch is in; the bytes of blocks."""
        blocks = self._reader.blocks_of(self._rows_of(samples), view=self._drawn(samples, epoch))
        return blocks, self._reader.block_bytes

    def ahead(self, parts: Iterable[Sequence[Sample]], *, epoch: int | None = None) -> Generator[Gather]:
        """For each part, in order, a `gather` of its samples; the blocks of the next part are read meanwhile.

        Close what is not gone through to its end.
        """
        blocks = (np.unique(self.blocks_of(part, epoch=epoch)[0]) for part in parts)
        with closing(self._reader.ahead(blocks)) as mapped:
            for one in mapped:
                yield partial(self._gather, blocks=one)

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        """See `FeatureSource`."""
        return [self._digests[sample.media] for sample in samples]

    def describe(self) -> dict[str, Any]:
        """See `FeatureSource`. "fingerprint" and "spec" are of these rows, whatever else the set holds."""
        spec, recorded, derived = self._spec, self._features.recorded, {}
        if spec.rule != (stored := self._features.spec.rule):
            derived = {"derived": f"{spec.rule} tokens made of {stored}"}
            with suppress(KeyError, ValueError, TypeError):  # whoever builds the encoder says what is wrong
                choice = {**json.loads(recorded["encoder"]), "tokens": spec.rule}
                recorded = {**recorded, "encoder": canonical_json(choice).decode()}
        return {
            "source": "cache",
            "set": self._features.name,
            **derived,
            "fingerprint": spec.fingerprint,
            "spec": spec.to_json(),
            "encoder": dict(spec.encoder),
            "layers": list(spec.layers),
            "preprocessing": dict(spec.preprocessing),
            "views": list(self._views),
            "choice": recorded if "encoder" in recorded else None,
        }

    def with_rows(self, samples: Sequence[Sample], *, allow_missing: int | None = 0) -> tuple[Sample, ...]:
        """The samples whose media have a row; None allows any number of media without one.

        Raises UsageError: more than `allow_missing` media have none; the message names them, with the reason.
        """
        if allow_missing is not None:
            self.require_rows(allow_missing, [sample.media for sample in samples])
        return tuple(sample for sample in samples if sample.media not in self.missing)

    def require_rows(self, allow_missing: int, media: Sequence[str] | None = None) -> None:
        """Raise UsageError when more than `allow_missing` of these media [default: all] have no row; names them."""
        missing = [name for name in dict.fromkeys(self.missing if media is None else media) if name in self.missing]
        if len(missing) > allow_missing:
            named = first_in_words([f"{name}: {self.missing[name].message}" for name in missing], _NAMED, "; ")
            raise UsageError(
                f"{len(missing)} media have no row in {self._features.name}: {named}",
                hint=f"run epalm extract on this data, or go on without them: --allow-missing {len(missing)}",
            )

    def coverage(self) -> dict[str, int]:
        """How many media have a row (`in_cache`, of which `sourceless` have no file), how many have none, by reason."""
        reasons = Counter(one.reason for one in self.missing.values())
        counts = {"media": len(self._rows) + len(self.missing), "in_cache": len(self._rows)}
        return {**counts, "sourceless": self.sourceless, **{reason: reasons[reason] for reason in REASONS}}

    def in_blocks(self, samples: Sequence[Sample]) -> Generator[tuple[Sequence[Sample], Gather]]:
        """The samples in parts, each with what gathers it; where they do not fit in memory, in the order of blocks."""
        parts = [samples]
        if not self.fits:
            parts = [[samples[item] for item in part] for part in in_blocks(*self.blocks_of(samples))]
        with closing(self.ahead(parts)) as gathers:
            yield from zip(parts, gathers, strict=True)

    def _gather(
        self, samples: Sequence[Sample], *, epoch: int | None = None, blocks: Blocks | None = None
    ) -> np.ndarray:
        return self._reader.gather(self._rows_of(samples), view=self._drawn(samples, epoch), blocks=blocks)

    def _drawn(self, samples: Sequence[Sample], epoch: int | None) -> int | np.ndarray:
        """The view of each sample, or of all."""
        if epoch is None or len(self._views) == 1:
            return 0 if epoch is None else self._views[0]
        names = [f"{self._digests[sample.media]}/{sample.id}" for sample in samples]
        return draw_views(names, self._views, seed=self._seed, epoch=epoch)

    def _rows_of(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.fromiter((self._rows[sample.media] for sample in samples), np.int64, len(samples))


def _look_up(
    features: FeatureSet, cache: Cache, dataset: Dataset, media: Sequence[str]
) -> tuple[dict[str, str], dict[str, MissingFeature], int]:
    """The digests of the media that have a row, those without one, and how many of the first have no file.

    A medium's name never stands in for a file that is here: a changed file has no row, whatever it is called.
    """
    missing, files = dict[str, MissingFeature](), dict[str, MediaFile]()
    for name in media:
        try:
            files[name] = dataset.locate(name)
        except MediaError as error:
            missing[name] = MissingFeature("absent", error.message)
    hashed = dict(zip(files, cache.media.digests(list(files.values())), strict=True))
    rows = features.rows()
    digests = {name: digest for name, digest in hashed.items() if digest in rows}
    if len(digests) == len(media):
        return digests, missing, 0
    here = len(digests)
    ledger = {entry.media: entry for entry in features.ledger.entries()}
    by_name = look_up(read_manifests(features.objects), from_anywhere(dataset.spec))
    for name in [name for name in hashed if name not in digests]:
        digest, named, entry = hashed[name], by_name.get(name), ledger.get(name)
        if digest is None and named in rows and files[name].status() is None:
            digests[name] = str(named)
        elif entry and (entry.digest or None) == digest:
            missing[name] = MissingFeature("bad", entry.error)
        elif digest and named in rows:
            missing[name] = MissingFeature("stale", "the file has changed since it was extracted")
        elif digest:
            missing[name] = MissingFeature("new", "not extracted yet")
        else:
            several = name in by_name and named is None
            why = ", and in the cache its name stands for several media" if several else ""
            missing[name] = MissingFeature("absent", f"the file is missing or cannot be read{why}")
    return digests, missing, len(digests) - here


def draw_views(names: Sequence[str], views: Sequence[int], *, seed: int, epoch: int) -> np.ndarray:
    """One of `views` for each named sample (len(names),) int64: a pure function of name, seed and epoch."""
    salt = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    drawn = (xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"), salt) for name in names)
    places = np.fromiter((number % len(views) for number in drawn), np.int64, len(names))
    return np.asarray(views, np.int64)[places]
