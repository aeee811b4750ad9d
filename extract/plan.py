"""What an extraction has to do: which media are in the cache, which are known to be bad, which are left.

Knows data sets, digests and the ledger; decodes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epalm.cache.feature_set import FeatureSet
from epalm.cache.spec import FeatureSpec
from epalm.cache.store import Cache
from epalm.datasets.paths import MediaRoot
from epalm.errors import MediaError
from epalm.extract.media_file import require_file
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality

_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Pending:
    """A medium to encode: as the data set writes it, where it lies, and what its bytes and status were."""

    media: str
    path: Path
    digest: str
    status: tuple[int, int]  # bytes, modification time in ns

    def unchanged(self) -> bool:
        """Whether the file still is the one that was hashed."""
        return MediaFile(self.path).status() == self.status


@dataclass(frozen=True)
class Plan:
    """The work, counted. Media with equal bytes count once in `pending` and each in `media`."""

    set_name: str
    media: int
    hits: int
    pending: tuple[Pending, ...]
    known_bad: int
    unreadable: Mapping[str, MediaError] = field(default_factory=dict)  # media → why it could not be hashed
    row_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What the new rows will take on disk."""
        return self.row_bytes * len(self.pending)


def make_plan(
    dataset: Dataset, modality: Modality, spec: FeatureSpec, cache: Cache, *, retry_bad: bool = False
) -> Plan:
    """Compare the data set's media with what the cache holds. Opens no feature set that is not there yet."""
    media = dataset.media(modality)
    paths, unreadable = _locate(dataset.root, media)
    # Taken before hashing: a file that changes afterwards is noticed.
    files = [MediaFile(path) for path in paths.values()]
    found = [file.status() for file in files]
    statuses = dict(zip(paths, found, strict=True))
    digests = dict(zip(paths, cache.media.digests(files, found), strict=True))
    existing = cache.existing(spec)
    rows = existing.rows() if existing else set()
    bad = _known_bad(existing, rows, retry_bad)
    hits = known_bad = 0
    pending: dict[str, Pending] = {}
    for name, digest in digests.items():
        status = statuses[name]
        if digest is None or status is None:
            unreadable[name] = _why(paths[name])
        elif digest in rows:
            hits += 1
        elif digest in bad:
            known_bad += 1
        else:
            pending.setdefault(digest, Pending(name, paths[name], digest, status))
    return Plan(
        set_name=spec.name,
        media=len(media),
        hits=hits,
        pending=tuple(pending.values()),
        known_bad=known_bad,
        unreadable=unreadable,
        row_bytes=len(spec.layers) * spec.width * _BYTES[spec.stored_dtype],
    )


def _locate(root: Path, media: Sequence[str]) -> tuple[dict[str, Path], dict[str, MediaError]]:
    paths: dict[str, Path] = {}
    refused: dict[str, MediaError] = {}
    folder = MediaRoot(root)
    for name in media:
        try:
            paths[name] = require_file(folder.locate(name))
        except MediaError as error:
            refused[name] = error
    return paths, refused


def _known_bad(existing: FeatureSet | None, rows: set[str], retry_bad: bool) -> set[str]:
    if existing is None or retry_bad:
        return set()
    return set(existing.ledger.digests()) - rows


def _why(path: Path) -> MediaError:
    """Why a file that was there could not be hashed."""
    try:
        require_file(path)
    except MediaError as error:
        return error
    return MediaError("the file cannot be read", hint="check its permissions")
