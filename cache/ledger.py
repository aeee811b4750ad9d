"""The ledger: media that could not be decoded, one JSON line each, with the reason and what to do."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from epalm.cache.durable import fsync_directory


@dataclass(frozen=True, slots=True)
class Entry:
    """One bad medium: as the data set writes it, its bytes' digest (None: it could not be hashed), and why."""

    media: str
    digest: str | None
    error: str
    hint: str | None


class Ledger:
    """A file of entries; the last one of a medium counts. Appending is safe from several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *, media: str, digest: str | None, error: str, hint: str | None) -> None:
        """Append one entry; it is on disk when this returns."""
        line = json.dumps(asdict(Entry(media, digest, error, hint)), ensure_ascii=False) + "\n"
        new = not self.path.exists()
        # The leading newline ends a line that a kill or a full disk may have left torn.
        torn = b"" if new or _ends_whole(self.path) else b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, torn + line.encode("utf-8", "surrogateescape"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            fsync_directory(self.path.parent)

    def entries(self) -> list[Entry]:
        """The last entry of each medium and content, in order; torn lines are passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return []
        last: dict[tuple[str, str | None], Entry] = {}
        for line in text.split("\n"):  # splitlines would also split at U+2028 and U+0085, which names may hold
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            last[entry.media, entry.digest] = entry
        return list(last.values())

    def digests(self) -> dict[str, Entry]:
        """Digest → entry, for media that could be hashed."""
        return {entry.digest: entry for entry in self.entries() if entry.digest}


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
