"""Digests of media, remembered in an SQLite file by place, size and times so that nothing is hashed twice.

The file only saves time, so no fault of it is an error: a damaged one is begun anew, one that cannot be written is only
read, and a row that is not as it was written, by its own checksum, counts as damage. It keeps a rollback journal, as
write-ahead logs need memory shared by all who read, and folders on a network have none.
"""

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import xxhash

from epalm.console import progress, silent, warn
from epalm.fingerprint import digest_file
from epalm.media import MediaFile, Status

_TABLE = (
    "CREATE TABLE IF NOT EXISTS digests "
    "(key TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, digest TEXT, sum INT) WITHOUT ROWID"
)
_GET = (
    "SELECT wanted.key, size, mtime, ctime, digest, sum "
    "FROM json_each(?) AS wanted CROSS JOIN digests ON digests.key = wanted.value"
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: another table than ours
_FAULTS = (OSError, sqlite3.Error, UnicodeError)  # UnicodeError: SQLite quotes a damaged file
_PATIENCE = 30  # seconds to wait for another process's commit
_KEYS_AT_ONCE = 10_000  # keys of one query
_SHOWN = 2_000  # media to hash from which a bar is worth its space
_COMMIT_EVERY = 1.0  # seconds: all that a kill can lose
_FRESH = 2_000_000_000  # ns: a file changed this shortly before it was hashed may change again unnoticed
_MOST_THREADS = 8


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
        statuses = [medium.status() for medium in media] if statuses is None else statuses
        keys = [_key(medium) for medium in media]
        digests: list[str | None] = [None] * len(media)
        for position, status, digest in self._rows(keys):
            if statuses[position] == status:
                digests[position] = digest
        missing = {
            keys[position]: media[position]
            for position, digest in enumerate(digests)
            if digest is None and statuses[position] is not None
        }
        if missing:
            hashed = self._hash(missing)
            digests = [digest or hashed.get(key) for digest, key in zip(digests, keys, strict=True)]
        return digests

    def _rows(self, keys: Sequence[str]) -> Iterator[tuple[int, Status, str]]:
        """Of the rows that the file has under these keys, position, status and digest; damage ends them early."""
        order = sorted(range(len(keys)), key=keys.__getitem__)  # as the file has them: each page is read once
        try:
            with closing(self._connect()) as connection:
                for first in range(0, len(order), _KEYS_AT_ONCE):
                    some = order[first : first + _KEYS_AT_ONCE]
                    for number, *row, total in connection.execute(_GET, [json.dumps([keys[p] for p in some])]):
                        if _sum(keys[some[number]], *row) != total:
                            raise sqlite3.DatabaseError("a row that is not as it was written")
                        yield some[number], Status(*row[:3]), row[3]
        except _FAULTS as error:
            self._drop_if_damaged(error)

    def _keep(self, rows: Iterable[tuple[str, Status, str]]) -> None:
        """Commit key, status and digest of media, replacing rows that are there."""
        ordered = sorted((key, *status, digest) for key, status, digest in rows)  # so that pages are written once
        values = [(*row, _sum(*row)) for row in ordered]
        if not values or self._read_only:
            return
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", values)
        except _FAULTS as error:  # damaged, a full disk, or a lock held too long
            self._drop_if_damaged(error)

    def _connect(self) -> sqlite3.Connection:
        if self._read_only:
            return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", timeout=_PATIENCE, uri=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_PATIENCE)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_TABLE)
        return connection

    def _drop_if_damaged(self, error: Exception) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if self._read_only or isinstance(error, OSError) or code not in _DAMAGE:
            return
        warn(f"{self._path} cannot be used and is begun anew; media are hashed again")
        with suppress(OSError):
            # The journals go first: one that is left would be played into the file that comes next.
            for suffix in ("-journal", "-wal", "-shm", ""):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _hash(self, missing: Mapping[str, MediaFile]) -> dict[str, str]:
        """Digests of the media that can be read, by key, kept as they become known."""
        digests: dict[str, str] = {}
        shown = progress("hash media", len(missing), "files") if len(missing) >= _SHOWN else nullcontext(silent)
        with shown as advance, closing(_hashed(missing)) as batches:
            for batch in batches:
                digests |= {key: digest for key, _, digest, _ in batch}
                self._keep((key, status, digest) for key, status, digest, settled in batch if settled)
                advance(len(batch))
        return digests


def _hashed(media: Mapping[str, MediaFile]) -> Generator[list[tuple[str, Status, str, bool]], None, None]:
    """Key, status and digest of the media that can be read, some at a time; closing the iterator ends the reading.

    Last comes whether that file has that digest: not where it changed meanwhile, or so shortly before that it may do
    so again within one tick of its clock.
    """
    left, done = iter(media.items()), deque[tuple[str, Status, str, bool]]()
    stopped = threading.Event()

    def pulse() -> None:
        if stopped.is_set():
            raise CancelledError

    def work() -> None:
        for key, medium in left:  # a step of this iterator is one step: threads share it without a lock
            status, began = medium.status(), time.time_ns()
            if status is not None:
                with suppress(OSError):
                    digest = digest_file(medium.path, medium.offset, medium.size, pulse=pulse)
                    settled = began - status.mtime > _FRESH and medium.status() == status
                    done.append((key, status, digest, settled))

    threads = min(_MOST_THREADS, os.cpu_count() or 1, len(media))
    with ThreadPoolExecutor(threads, "hash") as pool:
        try:
            running = {pool.submit(work) for _ in range(threads)}
            while running:
                finished, running = wait(running, timeout=_COMMIT_EVERY)
                yield [done.popleft() for _ in range(len(done))]
                for thread in finished:
                    thread.result()
        finally:
            stopped.set()


def _key(medium: MediaFile) -> str:
    """Where the medium's bytes lie, as text; absolute paths hold no "//" behind their first character."""
    path = str(medium.path.absolute())
    if not path.isascii():
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
    return path if medium.size is None else f"{path}//{medium.offset}+{medium.size}"


def _sum(*row: object) -> int:
    """Of everything that the row says. SQLite has no checksums: a flipped bit would be another medium's digest."""
    return xxhash.xxh3_64_intdigest("\0".join(map(str, row)).encode()) >> 1  # SQLite's integers have a sign
