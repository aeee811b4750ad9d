"""Objects in a store behind a URL: S3, Google Cloud Storage, or whatever else fsspec reaches.

Credentials and endpoint come from where the store's own tools look: for S3 AWS_PROFILE, AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and `~/.aws`; for Google its application-default credentials; for any store
fsspec's settings: FSSPEC_S3_KEY, FSSPEC_S3_ENDPOINT_URL, ..., `~/.config/fsspec`. Needs the extra
`epalm[s3]` or `epalm[gcs]`.

Knows objects and names; what they hold is not known here.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epalm.cache.objects.base import MissingObjectError, Stored
from epalm.cache.objects.connection import PATIENCE, Connection, Patience, Result
from epalm.cache.objects.store_faults import NoBucketError, Verdict, judge, not_implemented, without_user

# scheme → how a put of its library takes metadata, for stores that put an object only if there is none yet
_CONDITIONAL = {"s3": "Metadata", "s3a": "Metadata", "gs": "metadata", "gcs": "metadata"}
_WHOLE_PUTS = {*_CONDITIONAL, "abfs", "abfss", "az", "oss", "oci", "memory"}  # there whole or not at all
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")  # as stores name it
_THREADS = 8  # for many small objects: a request is mostly waiting
_one_by_one = threading.Lock()  # for stores without conditional puts: at least this process has one writer at a time


class RemoteObjects:
    """See `Objects`; safe from several threads. A fault of the store or the network is borne for about a minute.

    S3 and Google Cloud Storage put an object whole, in one request or a multipart upload that is completed or
    aborted (of a killed one nothing is listed; a lifecycle rule of the bucket frees its parts). A store with folders
    instead (SFTP, WebDAV, ...) gets a draft that is then renamed.
    """

    def __init__(self, connection: Connection, root: str, where: str) -> None:
        self._connection, self._root, self.where = connection, root, where

    @staticmethod
    def open(url: str, patience: Patience = PATIENCE) -> "RemoteObjects":
        """What a URL names; nothing is connected or created. A user or password in it is left out of `where`.

        Raises:
            CacheError: a URL of a kind that nothing installed reads.
        """
        connection = Connection(url, patience)
        return RemoteObjects(connection, connection.root, without_user(url).rstrip("/"))

    def below(self, folder: str) -> "RemoteObjects":
        """See `Objects`."""
        return RemoteObjects(self._connection, self._path(folder), f"{self.where}/{folder}")

    def read(self, key: str) -> bytes:
        """See `Objects`. Its length is held against the size that the store announces."""

        def action(store: Any) -> bytes:
            size = _size(store, self._path(key))
            return _whole(store.cat_file(self._path(key)), size)

        return self._call(key, action)

    def read_into(self, key: str, target: memoryview) -> int:
        """See `Objects`. One request, held in memory once more until it is whole."""

        def action(store: Any) -> bytes:
            wanted = min(_size(store, self._path(key)), len(target))
            # A range of nothing is refused by some stores and means everything to others.
            return _whole(store.cat_file(self._path(key), start=0, end=wanted), wanted) if wanted else b""

        data = self._call(key, action)
        target[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int | None:
        """See `Objects`."""
        try:
            return self._call(key, lambda store: _size(store, self._path(key)))
        except MissingObjectError:
            return None

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Objects`."""
        self._call(key, lambda store: self._put(store, self._path(key), bytes(data)))

    def write_new(self, key: str, data: bytes) -> bool:
        """See `Objects`.

        On S3 and Google Cloud Storage the store decides (If-None-Match, ifGenerationMatch). When it says that an
        object is there, a mark in its metadata tells whether an earlier try of this very call put it, whose answer
        was lost. An S3-compatible store that ignores the condition lets the last writer win: use one that has it.

        Other stores, and those that say they cannot, are asked first and then written to: exact among the threads of
        a process, not among machines.
        """
        path, mark, tries = self._path(key), uuid.uuid4().hex, 0
        metadata = _CONDITIONAL.get(self._connection.scheme)

        def conditional(store: Any) -> bool:
            try:
                _pipe(store, path, data, mode="create", **{str(metadata): {"writer": mark}})
            except Exception as error:
                if not_implemented(error):
                    return ask_first(store)
                if judge(error) is not Verdict.EXISTS:
                    raise
                return _writer(store, path) == mark
            return True

        def ask_first(store: Any) -> bool:
            nonlocal tries
            tries += 1
            with _one_by_one:
                try:
                    _size(store, path)
                except FileNotFoundError:
                    self._put(store, path, data)
                    return True
            return tries > 1 and bytes(store.cat_file(path)) == data

        return self._call(key, conditional if metadata else ask_first)

    def append(self, key: str, line: bytes) -> None:
        """See `Objects`. Stores cannot add to an object: each line becomes one, in the folder `KEY.d`.

        Lines come back in the order of the writers' clocks.
        """
        self.write(f"{key}.d/{time.time_ns():020d}-{uuid.uuid4().hex}.jsonl", line)

    def lines(self, key: str) -> bytes:
        """See `Objects`. An object of the name itself, copied there from a disk, comes first."""
        segments = [f"{key}.d/{name}" for name in self.names(f"{key}.d")]
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = list(pool.map(self._read_or_nothing, [key, *segments]))
        return b"".join(part if not part or part.endswith(b"\n") else part + b"\n" for part in parts)

    def names(self, folder: str) -> list[str]:
        """See `Objects`."""
        path = self._path(folder)
        try:
            found = self._call(folder, lambda store: store.ls(path, detail=False))
        except MissingObjectError:
            return []
        inside = {self._relative(one, path).partition("/")[0] for one in found}
        return sorted(name for name in inside if name and not name.startswith("."))

    def walk(self) -> Iterator[Stored]:
        """See `Objects`. An object whose store tells no time counts as written now."""
        whole = self._connection.scheme in _WHOLE_PUTS
        options = {} if whole else {"on_error": _raise_unless_gone}
        try:
            found = self._call("", lambda store: store.find(self._root, detail=True, **options))
        except MissingObjectError:
            return
        for path, info in sorted(found.items()):
            key = self._relative(path, self._root)
            if key and not key.endswith("/") and info.get("type") != "directory":
                yield Stored(key, int(info["size"] or 0), _modified(info))

    def delete(self, key: str) -> None:
        """See `Objects`."""
        with contextlib.suppress(MissingObjectError):
            self._call(key, lambda store: store.rm_file(self._path(key)))

    def delete_below(self, folder: str) -> None:
        """See `Objects`. One object after the other: a reader may find some of them gone and others there."""
        inside = self.below(folder)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(inside.delete, [one.key for one in inside.walk()]))
        if self._connection.scheme not in _WHOLE_PUTS:
            with contextlib.suppress(MissingObjectError):
                self._call(folder, lambda store: store.rm(self._path(folder), recursive=True))

    def path(self, key: str) -> Path | None:
        """See `Objects`: None; `epalm.cache.objects.spool` makes local copies to map."""
        return None

    def free_bytes(self) -> int | None:
        """See `Objects`: None."""
        return None

    def lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Nothing: stores have no locks that end with their holder. What must be first takes `write_new`."""
        return contextlib.nullcontext()

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _relative(self, path: str, folder: str) -> str:
        # Some stores give paths with a leading slash, whatever they were asked with.
        path, folder = path.lstrip("/"), folder.lstrip("/")
        return path[len(folder) + 1 :] if folder and path.startswith(folder + "/") else "" if folder else path

    def _call(self, key: str, action: Callable[[Any], Result]) -> Result:
        return self._connection.call(f"{self.where}/{key}" if key else self.where, action)

    def _read_or_nothing(self, key: str) -> bytes:
        try:
            return self.read(key)
        except MissingObjectError:
            return b""

    def _put(self, store: Any, path: str, data: bytes) -> None:
        if self._connection.scheme in _WHOLE_PUTS:
            _pipe(store, path, data)
            return
        folder, _, name = path.rpartition("/")
        draft = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"
        store.makedirs(folder, exist_ok=True)
        store.pipe_file(draft, data)
        store.mv(draft, path)


def _pipe(store: Any, path: str, data: bytes, **options: Any) -> None:
    try:
        store.pipe_file(path, data, **options)
    except FileNotFoundError as error:
        raise NoBucketError(path) from error


def _size(store: Any, path: str) -> int:
    info = store.info(path)
    if info["type"] == "directory":
        raise FileNotFoundError(path)
    return int(info["size"])


def _writer(store: Any, path: str) -> str | None:
    """The mark that the `write_new` which put an object left on it, if one did."""
    try:
        return store.getxattr(path, "writer")  # type: ignore[no-any-return]
    except KeyError:  # gcsfs: no such mark
        return None
    except FileNotFoundError as error:
        raise ConnectionError("it was there and is not any more") from error  # so the next try may put it


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ConnectionError(f"{len(data):,} bytes came instead of {size:,}")
    return data


def _modified(info: dict[str, Any]) -> float:
    value = next((info[name] for name in _MODIFIED if info.get(name)), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return time.time() if value is None else float(value)


def _raise_unless_gone(error: Exception) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
