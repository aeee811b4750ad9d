"""The SQLite file behind the media index: rows by key, read and written many at a time. Knows no media.

Nothing in it is needed, so no fault of it is an error: a damaged file is begun anew, one that cannot be written is
only read, and a row that is not as it was written, by its own checksum, counts as missing. It keeps a rollback
journal, as write-ahead logs need memory shared by all who read, and folders on a network have none.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import xxhash

_FORMAT = 3  # raised when the table changes: files of another format are begun anew
_PATIENCE = 30  # seconds to wait for another process's commit
_ASKED = 10_000  # keys of one query
_TABLE = "media (key TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, digest BLOB, before BLOB, sum INT) WITHOUT ROWID"
_GET = (
    "SELECT asked.key, media.size, media.mtime, media.ctime, hex(media.digest), hex(media.before), media.sum "
    "FROM json_each(?) AS asked CROSS JOIN media ON media.key = asked.value"
)
_PUT = "INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?, ?, ?)"
_MAGIC, _VERSIONS, _USER_VERSION = b"SQLite format 3\0", slice(18, 20), slice(60, 64)  # SQLite's header
_ROLLBACK_JOURNAL = b"\1\1"


class _DamagedError(Exception):
    """The file is an SQLite file, and not what was written."""


_FAULTS = (sqlite3.Error, UnicodeError, _DamagedError)  # UnicodeError: the texts of a damaged file


class Row(NamedTuple):
    """What is known under a key: the file's `Status`, its digest (hex) then and the one before that, "" for none."""

    size: int
    mtime: int
    ctime: int
    digest: str
    before: str


class IndexFile:
    """An open file of rows; `read_only` creates and writes nothing."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path, self.read_only, self.begun_anew = path, read_only, False
        self._connection = self._open()

    def __enter__(self) -> "IndexFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._connection is not None:
            self._connection.close()

    def read(self, keys: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The rows that are there, each with the position of its key in `keys`, in the order of the keys' texts.

        Where damage is met, the rows end early or are not all there; `begun_anew` says so when they have ended.
        """
        order = sorted(range(len(keys)), key=keys.__getitem__)  # as the file has them: each page is read once
        whole = True
        try:
            for first in range(0, len(order), _ASKED):
                if self._connection is None:
                    return
                asked = order[first : first + _ASKED]
                for number, *values, total in self._connection.execute(_GET, [json.dumps([keys[p] for p in asked])]):
                    position, row = asked[number], Row(*values)
                    if _sum(keys[position], row) == total:
                        yield position, row._replace(digest=row.digest.lower(), before=row.before.lower())
                    else:
                        whole = False
            if not whole:
                raise _DamagedError("a row that is not as it was written")
        except _FAULTS as error:
            self._give_up(error)

    def put(self, rows: Sequence[tuple[str, Row]]) -> bool:
        """Commit rows, replacing those of the same keys; whether they are kept."""
        if self._connection is None or self.read_only:
            return False
        try:
            with self._connection:
                self._connection.executemany(_PUT, (_values(key, row) for key, row in rows))
        except _FAULTS as error:  # damaged, a full disk, or a lock held too long
            self._give_up(error)
            return False
        return True

    def _open(self) -> sqlite3.Connection | None:
        if not self.read_only:
            try:
                return self._open_to_write()
            except (OSError, *_FAULTS):
                self.read_only = True
        try:
            if not self._path.exists() or not _is_ours(self._path):
                return None
            return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", timeout=_PATIENCE, uri=True)
        except (OSError, *_FAULTS):
            return None

    def _open_to_write(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_ours(self._path):
            self._remove()
        try:
            return _connect(self._path)
        except _FAULTS as error:
            if not _is_damage(error):
                raise
            self._remove()
            return _connect(self._path)

    def _give_up(self, error: Exception) -> None:
        """Go without the file from now on, or with a new one where it is damaged."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if _is_damage(error) and not self.read_only:
            with suppress(OSError):
                self._remove()
                self._connection, self.begun_anew = self._open(), True

    def _remove(self) -> None:
        # The journals go first: one that is left would be played into the file that comes next.
        for suffix in ("-journal", "-wal", "-shm", ""):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file with the table, made where there is none. Raises OSError or one of `_FAULTS`."""
    connection = sqlite3.connect(path, timeout=_PATIENCE)
    try:
        connection.execute("PRAGMA synchronous=NORMAL")
        if not path.stat().st_size:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA user_version={_FORMAT}")
                connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")
        if connection.execute("SELECT sql FROM sqlite_schema").fetchall() != [(f"CREATE TABLE {_TABLE}",)]:
            raise _DamagedError("another table than was made")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # 1: another table than ours
        return kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
    return isinstance(error, _FAULTS)


def _is_ours(path: Path) -> bool:
    """Whether a file is of this format; one that is empty or not there yet will be."""
    try:
        with path.open("rb") as file:
            header = file.read(_USER_VERSION.stop)
    except FileNotFoundError:
        return True
    if not header:
        return True
    ours = int.from_bytes(header[_USER_VERSION], "big") == _FORMAT and header[_VERSIONS] == _ROLLBACK_JOURNAL
    return ours and header.startswith(_MAGIC)


def _values(key: str, row: Row) -> tuple[str, int, int, int, bytes, bytes, int]:
    return key, row.size, row.mtime, row.ctime, bytes.fromhex(row.digest), bytes.fromhex(row.before), _sum(key, row)


def _sum(key: str, row: Row) -> int:
    """Of everything that the row says. SQLite has no checksums: a flipped bit would be another medium's digest."""
    text = f"{key}\0{row.size}\0{row.mtime}\0{row.ctime}\0{row.digest.upper()}\0{row.before.upper()}"
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> 1  # SQLite's integers have a sign
