"""The ledger: media that could not be decoded or have a warning, a JSON line each: the reason, and what to do."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from epalm.cache.objects.base import Objects

LEDGER = "ledger.jsonl"


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
        """The last error or warning of each medium and content, in order; torn lines are passed over."""
        text = self._objects.lines(LEDGER).decode("utf-8", "surrogateescape")
        last: dict[tuple[str, str | None, bool], Entry] = {}
        for line in text.split("\n"):  # splitlines would split at U+2028 and U+0085, which names may hold
            with suppress(ValueError, TypeError):
                entry = Entry(**json.loads(line))
                last[entry.media, entry.digest, entry.warning] = entry
        return [entry for entry in last.values() if entry.warning == warning]

    def digests(self) -> dict[str, Entry]:
        """Digest → error, for media that could be hashed."""
        return {entry.digest: entry for entry in self.entries() if entry.digest}
