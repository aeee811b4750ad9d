"""Manifests: which media names of which data set stand for which digests, kept with a feature set.

They let a cache be used where the media are not: training looks a name up that has no file, repair names the media
of a dropped block. A name may stand for several digests in several manifests; then only the data set tells.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epalm.cache.objects.base import Objects
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

MANIFESTS = "manifests"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One data set's media at one extraction: `data` as it is typed from any folder, name → digest of the bytes."""

    data: str
    digests: Mapping[str, str] = field(repr=False)

    def to_bytes(self) -> bytes:
        """A line with the data set, then one for each medium, in order of name: equal content, equal bytes."""
        lines: list[Any] = [{"data": self.data}, *([name, self.digests[name]] for name in sorted(self.digests))]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    @staticmethod
    def from_bytes(data: bytes, where: str) -> "Manifest":
        """The manifest that `to_bytes` gave. Raises CacheError for anything else."""
        try:
            head, *lines = data.splitlines()
            # All pairs as one flat list: a list for each would cost many times as long.
            values = json.loads(b"[" + b",".join(line[1:-1] for line in lines) + b"]")
            bracketed = all(line.startswith(b"[") and line.endswith(b"]") for line in lines)
            if not bracketed or len(values) != 2 * len(lines):
                raise ValueError("a line is not a pair")
            return Manifest(json.loads(head)["data"], dict(zip(values[::2], values[1::2], strict=True)))
        except (ValueError, TypeError, KeyError) as error:
            raise CacheError(f"{where} is no manifest: {error}", hint="delete it, then run epalm extract") from error


def write_manifest(objects: Objects, manifest: Manifest) -> None:
    """Keep a manifest with the set, in place of the data set's earlier one."""
    objects.keep(f"{MANIFESTS}/{digest_json(manifest.data)[:16]}.jsonl", manifest.to_bytes())


def read_manifests(objects: Objects) -> list[Manifest]:
    """Every manifest of the set, one for each data set that was extracted. Raises CacheError."""
    return [read_manifest(objects, name) for name in objects.names(MANIFESTS)]


def read_manifest(objects: Objects, name: str) -> Manifest:
    """The manifest in the object of that name, below `manifests/`. Raises CacheError."""
    key = f"{MANIFESTS}/{name}"
    return Manifest.from_bytes(objects.read(key), f"{objects.where}/{key}")


def look_up(manifests: Iterable[Manifest], data: str) -> dict[str, str | None]:
    """Name → digest in the data set `data`; of names that only others have, None for one that stands for several."""
    own: dict[str, str] = {}
    others: dict[str, str | None] = {}
    for manifest in manifests:
        if manifest.data == data:
            own |= manifest.digests
        for name, digest in manifest.digests.items():
            others[name] = digest if others.get(name, digest) == digest else None
    return {**others, **own}


def names_by_digest(manifests: Iterable[Manifest]) -> dict[str, tuple[str, ...]]:
    """Digest → the names that data sets give to it, each once."""
    names: dict[str, tuple[str, ...]] = {}
    for manifest in manifests:
        for name, digest in manifest.digests.items():
            known = names.get(digest)
            names[digest] = (name,) if known is None else known if name in known else (*known, name)
    return names
