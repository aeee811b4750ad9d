"""What a feature set keeps about media by name: manifests, and the ledger of those that could not be decoded.

A manifest says which names of a data set stand for which digests. Manifests let a cache be used where the media are
not: training looks a name up that has no file, repair names the media of a dropped block. A name may stand for several
digests in several manifests; then only the data set tells. The ledger has a JSON line for each bad medium, and for each
with a warning: the reason, and what to do.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from epalm.cache.fields import NOT_AS_WRITTEN, fault_in_words
from epalm.cache.objects.base import Objects
from epalm.errors import CacheError
from epalm.fingerprint import digest_json

MANIFESTS, LEDGER = "manifests", "ledger.jsonl"


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
        except NOT_AS_WRITTEN as error:
            raise CacheError(
                f"{where} is no manifest: {fault_in_words(error)}", hint="delete it, then run epalm extract"
            ) from error


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One bad medium: as the data set writes it, its bytes' digest (None: it could not be hashed), and why.

    With `warning`, the medium has a row, and `error` is what is odd about it.
    """

    media: str
    digest: str | None
    error: str
    hint: str | None
    warning: bool = False


class Ledger:
    """A growing text of entries; the last one of a medium counts. Appending is safe from several processes."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.where = f"{objects.where}/{LEDGER}"

    def add_all(self, entries: Iterable[Entry]) -> None:
        """Append entries in one step, which in an object store makes one object of them all. Raises CacheError."""
        if lines := "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries):
            self._objects.append(LEDGER, lines.encode("utf-8", "surrogateescape"))

    def entries(self, *, warning: bool = False) -> list[Entry]:
        """The last error or warning of each medium and content, in order; torn lines and other ones are passed over."""
        text = self._objects.lines(LEDGER).decode("utf-8", "surrogateescape")
        last: dict[tuple[str, str | None, bool], Entry] = {}
        for line in text.split("\n"):  # splitlines would split at U+2028 and U+0085, which names may hold
            with suppress(*NOT_AS_WRITTEN):
                entry = Entry(**json.loads(line))
                for written in (entry.media, entry.digest or "", entry.error, entry.hint or ""):
                    str.encode(written, errors="surrogateescape")  # what is no text cannot be written again
                last[entry.media, entry.digest, entry.warning] = entry
        return [entry for entry in last.values() if entry.warning == warning]

    def digests(self) -> dict[str, Entry]:
        """Digest → error, for media that could be hashed."""
        return {entry.digest: entry for entry in self.entries() if entry.digest}
