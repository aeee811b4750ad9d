"""The cache: a folder of feature sets, the media index, and which extraction was the latest."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.durable import read_json, write_atomically
from epalm.cache.feature_set import FeatureSet
from epalm.cache.media_index import MediaIndex
from epalm.cache.spec import FeatureSpec
from epalm.errors import CacheError


@dataclass(frozen=True, slots=True)
class LatestExtraction:
    """What the last `epalm extract` worked on: modality, feature set, and `--data` as it was typed."""

    modality: str
    set_name: str
    data: str


class Cache:
    """Nothing is created before the first feature set is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.media = MediaIndex(path / "stat-index.sqlite")
        self._sets, self._latest = path / "sets", path / "latest.json"

    def sets(self) -> list[FeatureSet]:
        """All feature sets, in order of name."""
        return [FeatureSet.load(path.parent) for path in sorted(self._sets.glob("[!.]*/spec.json"))]

    def existing(self, spec: FeatureSpec) -> FeatureSet | None:
        """The set of that spec, if it is there. Raises CacheError when a folder of its name is another's."""
        path = self._sets / spec.name
        if not (path / "spec.json").exists():
            return None
        found = FeatureSet.load(path)
        if found.spec.fingerprint != spec.fingerprint:
            raise CacheError(f"{path} is not the feature set of its name", hint="move it away, then extract again")
        return found

    def feature_set(self, spec: FeatureSpec, *, recorded: Mapping[str, str]) -> FeatureSet:
        """The set of that spec, created where it is missing; `recorded` says which libraries are at work."""
        found = self.existing(spec) or FeatureSet(self._sets / spec.name, spec)
        found.prepare(recorded)
        return found

    def find(self, name: str) -> FeatureSet:
        """The set of that name, or the only one whose name starts so. Raises CacheError otherwise."""
        names = [path.parent.name for path in sorted(self._sets.glob("[!.]*/spec.json"))]
        fitting = [name] if name in names else [one for one in names if one.startswith(name)]
        if len(fitting) != 1:
            fault = "several feature sets" if fitting else "no feature set"
            listed = ", ".join(fitting or names) or "none"
            raise CacheError(f"{fault} named {name!r} in {self.path}; there: {listed}", hint="epalm cache ls")
        return FeatureSet.load(self._sets / fitting[0])

    def remember(self, modality: str, name: str, data: str) -> None:
        """Note an extraction as the latest one of its modality, and of all."""
        noted = self._noted()
        noted[modality] = {"set": name, "data": data, "time": time.time()}
        write_atomically(self._latest, (json.dumps(noted, indent=2) + "\n").encode())

    def latest(self, modality: str | None = None) -> LatestExtraction:
        """The latest extraction, of one modality or of all. Raises CacheError when there is none."""
        noted = self._noted()
        if modality is not None:
            noted = {key: value for key, value in noted.items() if key == modality}
        if not noted:
            which = modality or "image"
            raise CacheError(
                f"nothing{f' of modality {modality}' if modality else ''} has been extracted into {self.path} yet",
                hint=f"epalm extract --modality {which}",
            )
        newest = max(noted, key=lambda key: noted[key]["time"])
        return LatestExtraction(newest, noted[newest]["set"], noted[newest]["data"])

    def _noted(self) -> dict[str, Any]:
        if not self._latest.exists():
            return {}
        value: dict[str, Any] = read_json(self._latest)
        return value
