"""Digests of media files, remembered by path, size and modification time so that no file is hashed twice.

Only saves time: losing this file changes no result.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from epalm.console import progress
from epalm.fingerprint import digest_file

_FRESH = 2_000_000_000  # ns: a file changed this shortly before it was hashed may change again unnoticed
_SHOWN = 2_000  # files to hash from which a bar is worth its space
_TABLE = "CREATE TABLE IF NOT EXISTS media (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)"
Hashed = tuple[str | None, tuple[int, int] | None, int]  # digest, status, when hashing began (ns)
_PUT = "INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?)"


class MediaIndex:
    """SHA-256 of files' bytes, looked up before it is computed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def digest(self, path: Path) -> str | None:
        """One file's digest; None when it cannot be read."""
        return self.digests([path])[0]

    def digests(self, paths: Sequence[Path]) -> list[str | None]:
        """Each file's digest in order; None for one that cannot be read."""
        connection = self._connect()
        try:
            return self._digests(connection, [path.absolute() for path in paths])
        finally:
            connection.close()

    def _digests(self, connection: sqlite3.Connection, paths: list[Path]) -> list[str | None]:
        statuses = [file_status(path) for path in paths]
        found: dict[Path, str | None] = {}
        missing: list[Path] = []
        for path, status in zip(paths, statuses, strict=True):
            row = connection.execute("SELECT size, mtime, digest FROM media WHERE path = ?", [_key(path)]).fetchone()
            if status is not None and row is not None and (row[0], row[1]) == status:
                found[path] = row[2]
            else:
                missing.append(path)
        rows = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for path, (digest, status, hashed) in zip(
                missing, _shown(pool.map(_hash, missing), len(missing)), strict=True
            ):
                found[path] = digest
                if digest is not None and status is not None and hashed - status[1] > _FRESH:
                    rows.append((_key(path), *status, digest))
        try:
            with connection:
                connection.executemany(_PUT, rows)
        except sqlite3.Error:
            pass  # a full disk or a lock held too long: hashed again next time
        return [found[path] for path in paths]

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=30)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_TABLE)
            connection.execute("SELECT size, mtime, digest FROM media LIMIT 1")
        except (OSError, sqlite3.Error):  # damaged, read-only or locked: go without
            connection = sqlite3.connect(":memory:")
            connection.execute(_TABLE)
        return connection


def _shown(hashes: Iterable[Hashed], count: int) -> Iterator[Hashed]:
    if count < _SHOWN:
        yield from hashes
        return
    with progress("hash media", count, "files") as advance:
        for value in hashes:
            yield value
            advance()


def _hash(path: Path) -> Hashed:
    """A file's digest; no status when the file changed meanwhile."""
    before, began = file_status(path), time.time_ns()
    try:
        digest = digest_file(path)
    except OSError:
        return None, None, began
    return digest, before if file_status(path) == before else None, began


def file_status(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns; None when there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _key(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
