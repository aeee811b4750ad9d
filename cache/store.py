"""The cache: feature sets, the media index, which extraction was the latest, and who uses a set. Knows no models."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.blocks import RECORDS
from epalm.cache.feature_set import FeatureSet
from epalm.cache.fields import NOT_AS_WRITTEN
from epalm.cache.media_index import MediaIndex
from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.objects.local import LocalObjects
from epalm.cache.objects.remote import RemoteObjects
from epalm.cache.spec import FeatureSpec, parse_layers
from epalm.errors import CacheError, UsageError
from epalm.fingerprint import digest_json

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = [
    *("set", "modality", "encoder", "media", "views", "layers", "tokens", "width", "dtype", "bytes", "bad", "warned"),
    *("last_used", "fault"),
]
LEDGER_COLUMNS = ["set", "modality", "media", "digest", "error", "hint", "warning"]
SETS, _INDEX = "sets", "stat-index.sqlite"
LATEST = "latest"  # one object for each modality: two extractions at once leave both notes
_USES, _LAST_USED = "uses", "used.json"  # with each set: marks that keep it from being collected
_LOCAL = Path(".epalm")  # where the media index lies when the cache is in an object store


@dataclass(frozen=True, slots=True)
class LatestExtraction:
    """What the last `epalm extract` worked on: modality, feature set, layers and tokens, `--data` as it was typed."""

    modality: str
    set: str
    layers: tuple[int, ...]
    data: str
    time: float
    tokens: str | None = None  # the rule; None: those of the set


def open_objects(where: str | Path) -> Objects:
    """The storage that the user names: a folder, or a URL such as `s3://bucket/cache`. Raises CacheError."""
    scheme, separator, rest = str(where).partition("://")
    if not separator:
        return LocalObjects(Path(where))
    if scheme in ("file", "local"):
        return LocalObjects(Path(rest))
    return RemoteObjects(str(where))


class Cache:
    """A folder or URL. Nothing is created before the first feature set is."""

    def __init__(self, where: str | Path | Objects, *, read_only: bool = False) -> None:
        """`read_only` is for plans: the index of digests is left as it is, and so must be all else."""
        self.read_only = read_only
        self.objects = open_objects(where) if isinstance(where, str | Path) else where
        self.where = self.objects.where
        self.media = MediaIndex(self.objects.path(_INDEX) or _LOCAL / _INDEX, read_only=read_only)

    def set_names(self) -> list[str]:
        """Names of all feature sets, in order; also of those whose description is damaged or gone."""
        signs = {"spec.json", RECORDS}
        return [name for name in self.objects.names(SETS) if signs & set(self.objects.names(f"{SETS}/{name}"))]

    def load(self, name: str) -> FeatureSet:
        """The feature set of exactly that name. Raises CacheError when there is none, or none that can be read."""
        return FeatureSet.load(self.objects.below(f"{SETS}/{name}"), name)

    def sets(self) -> list[FeatureSet]:
        """All feature sets, in order of name. Raises CacheError when one cannot be read."""
        return [self.load(name) for name in self.set_names()]

    def existing(self, spec: FeatureSpec) -> FeatureSet | None:
        """The set of that spec, if it is there. Raises CacheError when a folder of its name is another's."""
        try:
            return self.load(spec.name)
        except MissingObjectError:
            return None

    def serving(self, spec: FeatureSpec) -> list[FeatureSet]:
        """The sets whose rows hold what `spec` asks for: its own first, then those with more layers."""
        exact = self.existing(spec)
        serving = [exact] if exact else []
        prefix = spec.name.rpartition("-")[0]  # modality and encoder
        for name in self.set_names():
            if name.rpartition("-")[0] == prefix and name != spec.name:
                with suppress(CacheError):  # a damaged set serves nobody; `cache ls` and `verify` name it
                    features = self.load(name)
                    if features.spec.serves(spec):
                        serving.append(features)
        return serving

    def feature_set(self, spec: FeatureSpec, *, recorded: Mapping[str, str]) -> FeatureSet:
        """The set of that spec, created where it is missing; `recorded` says which libraries are at work."""
        features = self.existing(spec) or FeatureSet(self.objects.below(f"{SETS}/{spec.name}"), spec)
        features.prepare(recorded)
        return features

    def find(self, name: str) -> FeatureSet:
        """The set of that name, or the only one whose name starts so. Raises CacheError otherwise."""
        names = self.set_names()
        fitting = [name] if name in names else [one for one in names if one.startswith(name)]
        if len(fitting) != 1:
            fault = "several feature sets" if fitting else "no feature set"
            listed = ", ".join(fitting or names) or "none"
            raise CacheError(f"{fault} named {name!r} in {self.where}; there: {listed}", hint="epalm cache ls")
        return self.load(fitting[0])

    def frame(self) -> "pd.DataFrame":
        """A row for each feature set: what it holds, its size, when it was last used; `fault` for a damaged one."""
        import pandas as pd

        def figures(name: str) -> dict[str, Any]:
            try:
                return set_figures(self.load(name))
            except CacheError as error:
                return {"set": name, "fault": error.message}

        return pd.DataFrame([figures(name) for name in self.set_names()], columns=_FIGURES)

    def ledger(self) -> "pd.DataFrame":
        """A row for each medium that still has no row, and for each with a `warning`. Raises CacheError."""
        import pandas as pd

        rows = [row for features in self.sets() for row in ledger_rows(features)]
        return pd.DataFrame(rows, columns=LEDGER_COLUMNS).astype({"warning": bool})

    def remember(self, modality: str, name: str, layers: tuple[int, ...], data: str, tokens: str | None = None) -> None:
        """Note an extraction as the latest one of its modality, and of all. Raises CacheError."""
        latest = LatestExtraction(modality, name, layers, data, time.time(), tokens)
        self.objects.write(f"{LATEST}/{modality}.json", (json.dumps(asdict(latest), indent=2) + "\n").encode())

    def forget(self, name: str) -> None:
        """Let no extraction into the set of that name be the latest one any more."""
        for latest in self._every_latest():
            if latest.set == name:
                self.objects.delete(f"{LATEST}/{latest.modality}.json")

    def latest(self, modality: str | None = None) -> LatestExtraction:
        """The latest extraction, of one modality or of all. Raises CacheError when there is none."""
        candidates = [latest for latest in self._every_latest() if modality in (None, latest.modality)]
        if not candidates:
            of = f" of modality {modality}" if modality else ""
            hint = f"epalm extract --modality {modality or 'image'}"
            raise CacheError(f"nothing{of} has been extracted into {self.where} yet", hint=hint)
        return max(candidates, key=lambda latest: latest.time)

    def chosen_layers(self, features: FeatureSet, asked: str | None) -> tuple[int, ...]:
        """The layers asked for, else those of the latest extraction where it worked on this set, else all stored.

        "last:N" and "all" are the last, or all, of those stored, as not every encoder says how many it has. Raises
        UsageError when `asked` is of no known form, or names a layer that is not stored.
        """
        if asked is not None:
            try:
                return parse_layers(asked, features.spec.layers)
            except UsageError as error:
                raise error.at(features.name) from error
        latest = self.latest_of(features)
        return latest.layers if latest else features.spec.layers

    def latest_of(self, features: FeatureSet) -> LatestExtraction | None:
        """The latest extraction of a set's modality, where it worked on this set."""
        return next((latest for latest in self._every_latest() if latest.set == features.name), None)

    def latest_rule(self, features: FeatureSet) -> str | None:
        """Which tokens that extraction asked for."""
        latest = self.latest_of(features)
        return latest.tokens if latest else None

    def _every_latest(self) -> list[LatestExtraction]:
        """That of each modality; damaged notes are passed over."""
        latest = []
        for key in self.objects.names(LATEST):
            with suppress(MissingObjectError, *NOT_AS_WRITTEN):
                value = json.loads(self.objects.read(f"{LATEST}/{key}"))
                layers, when = tuple(map(int, value["layers"])), float(value["time"])
                texts = {name: str(value[name]) for name in ("data", "tokens") if value.get(name) is not None}
                latest.append(LatestExtraction(**{**value, **texts, "layers": layers, "time": when}))
        return latest


def ledger_rows(features: FeatureSet) -> list[dict[str, Any]]:
    """The rows of `Cache.ledger` for one set: media that still have no row, then those with a warning."""
    of = {"set": features.name, "modality": features.spec.modality}
    return [of | asdict(entry) for entry in (*features.bad_media(), *features.warned_media())]


def set_figures(features: FeatureSet) -> dict[str, Any]:
    """What `Cache.frame` says of one set. Raises CacheError where it is damaged."""
    records = features.records()
    return {
        "set": features.name,
        "modality": features.spec.modality,
        "encoder": str(features.spec.encoder.get("kind", "")),
        "media": len(features.rows()),
        "views": list(features.views()),
        "layers": list(features.spec.layers),
        "tokens": features.spec.tokens,
        "width": features.spec.width,
        "dtype": features.spec.stored_dtype,
        "bytes": sum(record.bytes for record in records),
        "bad": len({entry.media for entry in features.bad_media()}),
        "warned": len({entry.media for entry in features.warned_media()}),
        "last_used": last_used(features.objects) or max((record.time or 0.0 for record in records), default=None),
    }


def touch(objects: Objects) -> None:
    """Note that a set is used now. A cache that cannot be written is used all the same."""
    with suppress(CacheError):
        objects.write(_LAST_USED, json.dumps({"time": time.time()}).encode())


def last_used(objects: Objects) -> float | None:
    """When a set was last used (Unix time in seconds); None when that is not known."""
    with suppress(CacheError, *NOT_AS_WRITTEN):
        return float(json.loads(objects.read(_LAST_USED))["time"])
    return None


def mark(objects: Objects, run: str, host: str) -> None:
    """Note that a run (its folder's absolute path) uses a set: it is not collected while the folder is there."""
    with suppress(CacheError):
        use = json.dumps({"run": run, "host": host, "time": time.time()}).encode()
        objects.write(f"{_USES}/{digest_json([host, run])[:16]}.json", use)


def uses(objects: Objects) -> list[tuple[str, str]]:
    """Machine and folder of each run that has marked a set; of one whose mark is damaged, the mark's name."""
    marks = []
    for name in objects.names(_USES):
        use = "damaged mark", name
        with suppress(MissingObjectError, *NOT_AS_WRITTEN):
            value = json.loads(objects.read(f"{_USES}/{name}"))
            use = str(value["host"]), str(value["run"])
        marks.append(use)
    return marks
