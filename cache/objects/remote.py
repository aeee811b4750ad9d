"""Objects in a store behind a URL: S3 and what speaks its language, or Google Cloud Storage, through obstore.

Credentials and endpoint come from where the stores' own tools look: for S3 `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `AWS_DEFAULT_REGION` and `~/.aws` (with the extra `epalm[s3]`); for Google its application-default
credentials. Knows objects and names; what they hold is not known here.
"""

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from epalm.cache.objects.base import MissingObjectError, Stored
from epalm.cache.objects.store_errors import AGAIN, SIGN_IN, codes_of, final_error, text_of, without_user
from epalm.errors import CacheError

Result = TypeVar("Result")

_S3, _GOOGLE = ("s3", "s3a"), ("gs", "gcs")
_THREADS = 8  # for many small objects: a request is mostly waiting
_TIMEOUT = timedelta(minutes=5)  # for one request; a block takes seconds


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store's faults are borne, in seconds: in all, before the second try, and at most between two tries."""

    total: float = 60.0
    first: float = 0.2
    longest: float = 10.0


class RemoteObjects:
    """See `Objects`; safe from several threads, and goes along into spawned processes.

    A store puts an object whole, in one request or a multipart upload that is completed or aborted (of a killed one
    nothing is listed; a lifecycle rule of the bucket frees its parts).
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        """What a URL names; nothing is connected or created. A user or password in it is left out of `where`.

        Raises:
            CacheError: a URL of a kind that is not known here, or without a bucket.
        """
        self._url, self._patience = url, patience or Patience()
        self.where = without_user(url).rstrip("/")
        scheme, _, rest = url.partition("://")
        self._scheme = "s3" if scheme in _S3 else "gs" if scheme in _GOOGLE else scheme
        self._bucket, _, self._root = rest.rpartition("@")[2].strip("/").partition("/")
        if self._scheme not in SIGN_IN:
            raise CacheError(
                f"{self.where} is of a kind that is not known here",
                hint="give a folder, s3://bucket/folder or gs://bucket/folder",
            )
        if not self._bucket:
            raise CacheError(f"{self.where}// names no bucket", hint=f"give {scheme}://bucket/folder")

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteObjects, (self._url, self._patience)

    def below(self, folder: str) -> "RemoteObjects":
        """See `Objects`."""
        inside = RemoteObjects(f"{self._url.rstrip('/')}/{folder}", self._patience)
        if "_store" in self.__dict__:
            inside._store = self._store  # one pool of connections
        return inside

    def read(self, key: str) -> bytes:
        """See `Objects`. Its length is held against the size that the store announces."""
        return self._get(key, {"offset": 0}, None)

    def read_into(self, key: str, target: memoryview) -> int:
        """See `Objects`. One request, held in memory once more until it is whole."""
        data = self._get(key, (0, len(target)), len(target))
        target[: len(data)] = data
        return len(data)

    def size(self, key: str) -> int | None:
        """See `Objects`."""
        try:
            return int(self._call(key, lambda store: store.head(self._path(key)))["size"])
        except MissingObjectError:
            next(self._list(key), None)  # which tells a bucket that is not there
            return None

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Objects`."""
        self._call(key, lambda store: store.put(self._path(key), data))

    def write_new(self, key: str, data: bytes) -> bool:
        """See `Objects`.

        The store decides (If-None-Match, ifGenerationMatch). When it says that an object is there, a mark in its
        metadata tells whether an earlier try of this very call put it, whose answer was lost. An S3-compatible store
        that ignores the condition lets the last writer win, one that refuses it is an error: use one that has it.
        """
        from obstore.exceptions import AlreadyExistsError

        path, mark = self._path(key), uuid.uuid4().hex

        def action(store: Any) -> bool:
            try:
                store.put(path, data, mode="create", use_multipart=False, attributes={"writer": mark})
            except AlreadyExistsError:
                return bool(store.get(path).attributes.get("writer") == mark)
            return True

        return self._call(key, action)

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
        here = self._call(folder, lambda store: store.list_with_delimiter(path or None))
        inside = [*here["common_prefixes"], *(one["path"] for one in here["objects"])]
        names = {one.rstrip("/").rpartition("/")[2] for one in inside if one != path}
        return sorted(name for name in names if name and not name.startswith("."))

    def walk(self) -> Iterator[Stored]:
        """See `Objects`."""
        yield from sorted(self._list(""), key=lambda one: one.key)

    def delete(self, key: str) -> None:
        """See `Objects`."""
        with contextlib.suppress(MissingObjectError):
            self._call(key, lambda store: store.delete(self._path(key)))

    def delete_below(self, folder: str) -> None:
        """See `Objects`. One object after the other: a reader may find some of them gone and others there."""
        inside = self.below(folder)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(inside.delete, [one.key for one in inside.walk()]))

    def path(self, key: str) -> Path | None:
        """See `Objects`: None; `epalm.cache.objects.spool` makes local copies to map."""
        return None

    def free_bytes(self) -> int | None:
        """See `Objects`: None."""
        return None

    def lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Nothing: stores have no locks that end with their holder; `write_new` tells who is first."""
        return contextlib.nullcontext()

    @cached_property
    def _store(self) -> Any:
        from obstore.store import GCSStore

        options: dict[str, Any] = {"client_options": {"timeout": _TIMEOUT}, "retry_config": {"max_retries": 0}}
        if self._scheme == "s3":
            return _s3_store(self._bucket, self.where, options)
        return _memory_store(self._bucket) if self._scheme == "memory" else GCSStore(self._bucket, **options)

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self._root, key) if part)

    def _list(self, folder: str) -> Iterator[Stored]:
        path = self._path(folder)
        start = len(f"{self._root}/") if self._root else 0
        pages = self._call(folder, lambda store: [one for page in store.list(path or None) for one in page])
        for one in pages:
            yield Stored(one["path"][start:], int(one["size"]), one["last_modified"].timestamp())

    def _get(self, key: str, span: Any, most: int | None) -> bytes:
        """An object's bytes in a range, no fewer than announced: answers to a range name the size of the whole."""

        def action(store: Any) -> bytes:
            path = self._path(key)
            try:
                answer = store.get(path, options={"range": span})
                data = bytes(answer.bytes())
            except FileNotFoundError:
                raise
            except Exception:
                if most == 0 or store.head(path)["size"] == 0:  # of nothing there is no range
                    return b""
                raise
            size = answer.meta["size"] if most is None else min(answer.meta["size"], most)
            if len(data) != size:
                raise ConnectionError(f"{len(data):,} bytes came instead of {size:,}")
            return data

        return self._call(key, action)

    def _read_or_nothing(self, key: str) -> bytes:
        try:
            return self.read(key)
        except MissingObjectError:
            return b""

    def _call(self, key: str, action: Callable[[Any], Result]) -> Result:
        """What `action` makes of the store, tried again while the store or the network has a bad moment.

        `action` must be safe to run again after a try whose outcome is not known.
        """
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where = f"{self.where}/{key}" if key else self.where
        began, pause = time.monotonic(), self._patience.first
        while True:
            try:
                return action(self._store)
            except (BaseError, OSError) as error:
                codes = codes_of(error)
                if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in codes:
                    hint = "epalm cache verify says what is whole"
                    raise MissingObjectError(f"{where} is missing", hint=hint) from error
                refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
                if refused or (codes and not codes & AGAIN):
                    raise final_error(where, self._scheme, codes, error) from error
                spent = time.monotonic() - began
                if spent + pause > self._patience.total:
                    hint = "see that the store and the way to it work; the same command again goes on from here"
                    text = f"{where}: the store has failed for {spent:.0f} s: {text_of(error)}"
                    raise CacheError(text, hint=hint) from error
            # Workers that failed together must not come back together.
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, self._patience.longest)


def _s3_store(bucket: str, where: str, options: dict[str, Any]) -> Any:
    """A bucket, reached as boto3 would: its profiles, environment, endpoints and credentials that expire."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise CacheError(f"{where} needs a package that is not installed", hint="pip install 'epalm[s3]'") from error
    from obstore.store import S3Store

    try:
        session = boto3.Session()
        client = session.client("s3")
        if session.get_credentials() is None:
            raise CacheError(f"{where}: Unable to locate credentials", hint=SIGN_IN["s3"])
    except BotoCoreError as error:
        raise CacheError(f"{where}: {text_of(error)}", hint=SIGN_IN["s3"]) from error
    endpoint, region = client.meta.endpoint_url, session.region_name or "us-east-1"
    options["client_options"]["allow_http"] = endpoint.startswith("http://")
    return S3Store(
        bucket, endpoint=endpoint, region=region, credential_provider=Boto3CredentialProvider(session), **options
    )


@cache
def _memory_store(name: str) -> Any:
    """A store that ends with this process, one of each name."""
    from obstore.store import MemoryStore

    return MemoryStore()
