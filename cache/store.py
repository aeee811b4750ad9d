"""The cache: feature sets, the media index, and which extraction was the latest. Knows no models."""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cache.feature_set import FeatureSet, read_json
from epalm.cache.media_index import MediaIndex
from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.objects.local import LocalObjects
from epalm.cache.record import RECORDS
from epalm.cache.spec import FeatureSpec, parse_layers
from epalm.cache.uses import last_used
from epalm.errors import CacheError

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = [
    *("set", "modality", "encoder", "media", "views", "layers", "tokens", "width", "dtype", "bytes", "bad", "warned"),
    *("last_used", "fault"),
]
_LEDGER = ["set", "modality", "media", "digest", "error", "hint", "warning"]
SETS, _INDEX = "sets", "stat-index.sqlite"
_LATEST = "latest"  # one object for each modality: two extractions at once leave both notes
_LOCAL = Path(".epalm")  # where the media index lies when the cache is in an object store


@dataclass(frozen=True, slots=True)
class LatestExtraction:
    """What the last `epalm extract` worked on: modality, feature set, layers, and `--data` as it was typed."""

    modality: str
    set: str
    layers: tuple[int, ...]
    data: str
    time: float


def open_objects(where: str | Path) -> Objects:
    """The storage that the user names: a folder, or a URL such as `s3://bucket/cache`; nothing is created.

    Raises:
        CacheError: a URL of a kind that nothing here reads.
    """
    text = str(where)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalObjects(Path(text))
    if scheme in ("file", "local"):
        return LocalObjects(Path(rest))
    from epalm.cache.objects.remote import RemoteObjects  # obstore takes a moment to import

    return RemoteObjects(text)


class Cache:
    """A folder or URL. Nothing is created before the first feature set is."""

    def __init__(self, where: str | Path, *, read_only: bool = False) -> None:
        """`read_only` is for plans: the index of digests is left as it is, and so must be all else."""
        self.read_only = read_only
        self.objects = open_objects(where)
        self.where = self.objects.where
        self.media = MediaIndex(self.objects.path(_INDEX) or _LOCAL / _INDEX, read_only=read_only)

    def set_names(self) -> list[str]:
        """Names of all feature sets, in order; also of those whose description is damaged or gone."""
        return [name for name in self.folder_names() if self._has_become_set(name)]

    def folder_names(self) -> list[str]:
        """Names of all folders for feature sets, also of those that have not become one yet."""
        return self.objects.names(SETS)

    def load(self, name: str) -> FeatureSet:
        """The feature set of exactly that name. Raises CacheError when there is none, or none that can be read."""
        return FeatureSet.load(self.objects.below(f"{SETS}/{name}"), name)

    def sets(self) -> list[FeatureSet]:
        """All feature sets, in order of name. Raises CacheError when one cannot be read."""
        return [self.load(name) for name in self.set_names()]

    def existing(self, spec: FeatureSpec) -> FeatureSet | None:
        """The set of that spec, if it is there. Raises CacheError when a folder of its name is another's."""
        try:
            found = self.load(spec.name)
        except MissingObjectError:
            return None
        if found.spec.fingerprint != spec.fingerprint:
            raise CacheError(
                f"{found.where} is not the feature set of its name", hint="move it away, then extract again"
            )
        return found

    def serving(self, spec: FeatureSpec) -> list[FeatureSet]:
        """The sets whose rows hold what `spec` asks for: its own first, then those with more layers."""
        exact = self.existing(spec)
        begin = spec.name[: -len(spec.name.rpartition("-")[2])]  # modality and encoder
        wider = []
        for name in self.set_names():
            if name.startswith(begin) and name != spec.name:
                with suppress(CacheError):  # a damaged set serves nobody; `cache ls` and `verify` name it
                    found = self.load(name)
                    if found.spec.serves(spec):
                        wider.append(found)
        return [*([exact] if exact else []), *wider]

    def feature_set(self, spec: FeatureSpec, *, recorded: Mapping[str, str]) -> FeatureSet:
        """The set of that spec, created where it is missing; `recorded` says which libraries are at work."""
        found = self.existing(spec) or FeatureSet(self.objects.below(f"{SETS}/{spec.name}"), spec)
        found.prepare(recorded)
        return found

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

        return pd.DataFrame([self._figures_or_fault(name) for name in self.set_names()], columns=_FIGURES)

    def ledger(self) -> "pd.DataFrame":
        """A row for each medium that still has no row, and for each with a `warning`. Raises CacheError."""
        return ledger_frame(self.sets())

    def remember(self, modality: str, name: str, layers: tuple[int, ...], data: str) -> None:
        """Note an extraction as the latest one of its modality, and of all. Raises CacheError."""
        latest = LatestExtraction(modality, name, layers, data, time.time())
        self.objects.write(f"{_LATEST}/{modality}.json", (json.dumps(asdict(latest), indent=2) + "\n").encode())

    def forget(self, name: str) -> None:
        """Let no extraction into the set of that name be the latest one any more."""
        for key in self.objects.names(_LATEST):
            with suppress(CacheError):  # damaged: it names nothing
                if self._noted(key).set == name:
                    self.objects.delete(f"{_LATEST}/{key}")

    def latest(self, modality: str | None = None) -> LatestExtraction:
        """The latest extraction, of one modality or of all. Raises CacheError when there is none."""
        keys = self.objects.names(_LATEST)
        if modality is not None:
            keys = [key for key in keys if key == f"{modality}.json"]
        if not keys:
            which = modality or "image"
            raise CacheError(
                f"nothing{f' of modality {modality}' if modality else ''} has been extracted into {self.where} yet",
                hint=f"epalm extract --modality {which}",
            )
        return max(map(self._noted, keys), key=lambda one: one.time)

    def chosen_layers(self, features: FeatureSet, asked: str | None) -> tuple[int, ...]:
        """The layers asked for, else those of the latest extraction where it worked on this set, else all stored.

        Raises:
            UsageError: `asked` is of no known form.
        """
        if asked is not None:
            depth = int(dict(features.spec.encoder.get("architecture", {})).get("depth", max(features.spec.layers) + 1))
            return parse_layers(asked, depth)
        try:
            latest = self.latest(features.spec.modality)
        except CacheError:
            return features.spec.layers
        return latest.layers if latest.set == features.name else features.spec.layers

    def _figures_or_fault(self, name: str) -> dict[str, Any]:
        try:
            return set_figures(self.load(name))
        except CacheError as error:
            return {"set": name, "fault": error.message}

    def _has_become_set(self, name: str) -> bool:
        described = self.objects.size(f"{SETS}/{name}/spec.json") is not None
        return described or bool(self.objects.names(f"{SETS}/{name}/{RECORDS}"))

    def _noted(self, key: str) -> LatestExtraction:
        try:
            value = read_json(self.objects, f"{_LATEST}/{key}")
            return LatestExtraction(**{**value, "layers": tuple(value["layers"])})
        except (TypeError, KeyError) as error:
            raise CacheError(
                f"{self.where}/{_LATEST}/{key} is damaged: {error}", hint="run epalm extract again"
            ) from error


def ledger_frame(sets: Iterable[FeatureSet]) -> "pd.DataFrame":
    """A row for each medium that still has no row, then for each with a warning; see `Cache.ledger`."""
    import pandas as pd

    noted = [
        {"set": features.name, "modality": features.spec.modality, **entry.to_json()}
        for features in sets
        for entry in (*features.bad_media(), *features.warned_media())
    ]
    return pd.DataFrame(noted, columns=_LEDGER).astype({"warning": bool})


def set_figures(features: FeatureSet) -> dict[str, Any]:
    """What `Cache.frame` says of one set. Raises CacheError where it is damaged."""
    ledger = ledger_frame([features])
    times = [record.time or 0.0 for record in features.records()]
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
        "bytes": features.stored_bytes(),
        "bad": ledger.loc[~ledger["warning"], "media"].nunique(),
        "warned": ledger.loc[ledger["warning"], "media"].nunique(),
        "last_used": last_used(features.objects) or max(times, default=None),
    }
