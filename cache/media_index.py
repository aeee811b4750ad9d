"""Digests of media, remembered by place, size and modification time so that nothing is hashed twice.

Only saves time: losing its file changes no result.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from epalm.cache.hashing import hash_media
from epalm.cache.index_file import IndexFile, Row
from epalm.console import progress, silent, warn
from epalm.media import MediaFile, Status

_SHOWN = 2_000  # media to hash from which a bar is worth its space
_KEEP_ROWS, _KEEP_SECONDS = 5_000, 2.0  # digests are committed after so many or so long: all that a kill can lose


class MediaIndex:
    """SHA-256 of media's bytes, looked up before it is computed.

    `statuses`, where a method takes them, are what `MediaFile.status` gave for each medium, None for one that is not
    there; they are asked for where they are not given. Several processes may use one file.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """`path` is the SQLite file, which need not exist; with `read_only`, nothing is created or written."""
        self._path, self._read_only = path, read_only

    def digest(self, medium: MediaFile) -> str | None:
        """One medium's digest (hex); None when it cannot be read."""
        return self.digests([medium])[0]

    def digests(self, media: Sequence[MediaFile], statuses: Sequence[Status | None] | None = None) -> list[str | None]:
        """Each medium's digest (hex) in order, hashed where it is not known; None for one that cannot be read."""
        statuses = _statuses(media) if statuses is None else statuses
        with IndexFile(self._path, read_only=self._read_only) as file:
            found, old = _look_up(file, media, statuses)
            if file.begun_anew:  # what was still readable of a damaged file
                file.put(list(_rows(media, statuses, found)))
            missing: dict[MediaFile, list[int]] = {}
            for position, (digest, status) in enumerate(zip(found, statuses, strict=True)):
                if digest is None and status is not None:
                    missing.setdefault(media[position], []).append(position)
            if missing:
                self._hash(file, missing, found, old)
        return found

    def known(self, media: Sequence[MediaFile], statuses: Sequence[Status | None] | None = None) -> list[str | None]:
        """Each medium's digest (hex) in order; None for one that would have to be hashed first."""
        with IndexFile(self._path, read_only=True) as file:
            return _look_up(file, media, _statuses(media) if statuses is None else statuses)[0]

    def previous(
        self, media: Sequence[MediaFile], statuses: Sequence[Status | None] | None = None
    ) -> dict[MediaFile, str]:
        """The digests (hex) that media had before their files changed, of those of which one is remembered."""
        statuses = _statuses(media) if statuses is None else statuses
        before = {}
        with IndexFile(self._path, read_only=True) as file:
            for position, row in file.read([_key(medium) for medium in media]):
                status = statuses[position]
                digest = row.before if status == row[:3] else row.digest
                if digest and status is not None:
                    before[media[position]] = digest
        return before

    def _hash(
        self, file: IndexFile, missing: dict[MediaFile, list[int]], found: list[str | None], old: dict[int, Row]
    ) -> None:
        """Put the digests of `missing` (medium → its positions) into `found`, and keep them in `file`."""
        media = list(missing)
        rows: list[tuple[str, Row]] = []
        lost, kept_at = 0, time.monotonic()

        def keep() -> None:
            nonlocal lost, kept_at
            if rows and not file.put(rows):
                lost += len(rows)
            rows.clear()
            kept_at = time.monotonic()

        shown = progress("hash media", len(media), "files") if len(media) >= _SHOWN else nullcontext(silent)
        try:
            with shown as advance, closing(hash_media(media)) as hashes:
                for done in hashes:
                    for position, digest, status in done:
                        medium = media[position]
                        for place in missing[medium]:
                            found[place] = digest
                        if digest is not None and status is not None:
                            rows.append((_key(medium), _row(digest, status, old.get(missing[medium][0]))))
                    if len(rows) >= _KEEP_ROWS or time.monotonic() - kept_at > _KEEP_SECONDS:
                        keep()
                    advance(len(done))
        finally:
            keep()
        if lost >= _SHOWN and not self._read_only:
            warn(f"{lost:,} digests could not be kept in {self._path}; the next command hashes these media again")


def _statuses(media: Iterable[MediaFile]) -> list[Status | None]:
    return [medium.status() for medium in media]


def _look_up(
    file: IndexFile, media: Sequence[MediaFile], statuses: Sequence[Status | None]
) -> tuple[list[str | None], dict[int, Row]]:
    """Each medium's digest, None where it is not known, and the rows of files that have changed, by position."""
    found: list[str | None] = [None] * len(media)
    old = {}
    for position, row in file.read([_key(medium) for medium in media]):
        if statuses[position] == row[:3]:
            found[position] = row.digest
        else:
            old[position] = row
    return found, old


def _rows(
    media: Sequence[MediaFile], statuses: Sequence[Status | None], digests: Sequence[str | None]
) -> Iterator[tuple[str, Row]]:
    for medium, status, digest in zip(media, statuses, digests, strict=True):
        if digest is not None and status is not None:
            yield _key(medium), Row(*status, digest, "")


def _row(digest: str, status: Status, old: Row | None) -> Row:
    before = "" if old is None else old.before if old.digest == digest else old.digest
    return Row(*status, digest, before)


def _key(medium: MediaFile) -> str:
    """Where the medium's bytes lie, as text; absolute paths hold no "//" behind their first character."""
    path = str(medium.path.absolute())
    if not path.isascii():
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
    return path if medium.size is None else f"{path}//{medium.offset}+{medium.size}"
