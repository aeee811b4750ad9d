"""Objects in a store behind a URL: S3 and what speaks its language, or Google Cloud Storage, through obstore.

Credentials and endpoint come from where the stores' own tools look: for S3 `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `AWS_DEFAULT_REGION` and `~/.aws` (with the extra `epalm[s3]`); for Google its application-default
credentials. Knows objects and names; what they hold is not known here.
"""

import contextlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from epalm.cache.objects.base import THREADS, MissingObjectError, Objects, Stored
from epalm.errors import CacheError

Result = TypeVar("Result")

_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "memory": "memory"}
_TIMEOUT = timedelta(minutes=5)  # for one request; a block takes seconds
_PATIENCE = (60.0, 0.2, 10.0)  # seconds: of faults in all, before the second try, at most between two tries
_TRANSIENT = {  # codes that are worth another try
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("408", "409", "429", "500", "502", "503", "504"),
}
_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
_SIGN_IN = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "memory": "",
}


class RemoteObjects(Objects):
    """See `Objects`; safe from several threads, and goes along into spawned processes.

    A store puts an object whole, in one request or a multipart upload that is completed or aborted (of a killed one
    nothing is listed; a lifecycle rule of the bucket frees its parts).
    """

    def __init__(self, url: str, patience: tuple[float, float, float] = _PATIENCE) -> None:
        """Nothing is connected yet. Raises CacheError for a URL of an unknown kind, or without a bucket."""
        self._url, self._patience = url, patience
        self.where = _without_user(url).rstrip("/")
        scheme, _, rest = url.partition("://")
        self._bucket, _, self._root = rest.rpartition("@")[2].strip("/").partition("/")
        if scheme not in _SCHEMES:
            hint = (
                "give a folder, s3://bucket/folder or gs://bucket/folder; push and pull take hf://datasets/OWNER/NAME"
            )
            raise CacheError(f"{self.where} is of a kind that is not known here", hint=hint)
        if not self._bucket:
            raise CacheError(f"{self.where}// names no bucket", hint=f"give {scheme}://bucket/folder")
        self._scheme = _SCHEMES[scheme]

    def below(self, folder: str) -> "RemoteObjects":
        return RemoteObjects(f"{self._url.rstrip('/')}/{folder}", self._patience)

    def read(self, key: str) -> bytes:
        """See `Objects`. Its length is held against the object's size, which the answer to a range names."""
        path = self._path(key)

        def action(store: Any) -> bytes:
            try:
                answer = store.get(path, options={"range": {"offset": 0}})
                data = bytes(answer.bytes())
            except FileNotFoundError:
                raise
            except Exception:
                if store.head(path)["size"] == 0:  # of nothing there is no range
                    return b""
                raise
            if len(data) != answer.meta["size"]:
                raise ConnectionError(f"{len(data):,} bytes came instead of {answer.meta['size']:,}")
            return data

        return self._call(key, action)

    def size(self, key: str) -> int | None:
        try:
            return int(self._call(key, lambda store: store.head(self._path(key)))["size"])
        except MissingObjectError:
            self._list(key)  # which tells a bucket that is not there
            return None

    def write(self, key: str, data: bytes | memoryview) -> None:
        self._call(key, lambda store: store.put(self._path(key), data))

    def write_new(self, key: str, data: bytes) -> bool:
        """See `Objects`. The store decides (If-None-Match, ifGenerationMatch).

        Where an object is there, a mark in its metadata tells whether an earlier try of this very call put it, whose
        answer was lost. A store that ignores the condition lets the last writer win, one that refuses it is an error.
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
        """See `Objects`. Each line becomes an object in the folder `KEY.d`, in the order of the writers' clocks."""
        self.write(f"{key}.d/{time.time_ns():020d}-{uuid.uuid4().hex}.jsonl", line)

    def lines(self, key: str) -> bytes:
        """See `Objects`. An object of the name itself, copied there from a disk, comes first."""
        keys = [key, *(f"{key}.d/{name}" for name in self.names(f"{key}.d"))]
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(super().lines, keys))
        return b"".join(part + b"\n" if part and not part.endswith(b"\n") else part for part in parts)

    def names(self, folder: str) -> list[str]:
        path = self._path(folder)
        here = self._call(folder, lambda store: store.list_with_delimiter(path or None))
        inside = [*here["common_prefixes"], *(one["path"] for one in here["objects"])]
        names = {one.rstrip("/").rpartition("/")[2] for one in inside if one != path}
        return sorted(name for name in names if name and not name.startswith("."))

    def walk(self) -> Iterator[Stored]:
        yield from sorted(self._list(""), key=lambda one: one.key)

    def delete(self, key: str) -> None:
        with contextlib.suppress(MissingObjectError):
            self._call(key, lambda store: store.delete(self._path(key)))

    def _path(self, key: str) -> str:
        return "/".join(part for part in (self._root, key) if part)

    def _list(self, folder: str) -> list[Stored]:
        path, start = self._path(folder), len(f"{self._root}/") if self._root else 0
        objects = self._call(folder, lambda store: [one for page in store.list(path or None) for one in page])
        return [Stored(one["path"][start:], int(one["size"]), one["last_modified"].timestamp()) for one in objects]

    def _call(self, key: str, action: Callable[[Any], Result]) -> Result:
        """What `action` makes of the store, tried again while the store or the network has a bad moment.

        `action` must be safe to run again after a try whose outcome is not known.
        """
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where = f"{self.where}/{key}" if key else self.where
        began, (total, pause, longest) = time.monotonic(), self._patience
        while True:
            try:
                return action(_open_store(self._scheme, self._bucket))
            except (BaseError, OSError) as error:
                codes = set(re.findall(r"(?:<Code>|status code: )(\w+)", str(error)))
                if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in codes:
                    hint = "epalm cache verify says what is whole"
                    raise MissingObjectError(f"{where} is missing", hint=hint) from error
                refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
                if refused or (codes and not codes & _TRANSIENT):
                    raise _final_error(where, self._scheme, codes, error) from error
                spent = time.monotonic() - began
                if spent + pause > total:
                    hint = "see that the store and the way to it work; the same command again goes on from here"
                    text = f"{where}: the store has failed for {spent:.0f} s: {text_of(error)}"
                    raise CacheError(text, hint=hint) from error
            # Workers that failed together must not come back together.
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, longest)


@cache  # one pool of connections
def _open_store(scheme: str, bucket: str) -> Any:
    """A bucket; of S3 reached as boto3 would: its profiles, environment, endpoints and credentials that expire."""
    from obstore.store import GCSStore, MemoryStore, S3Store

    options: dict[str, Any] = {"client_options": {"timeout": _TIMEOUT}, "retry_config": {"max_retries": 0}}
    if scheme != "s3":
        return GCSStore(bucket, **options) if scheme == "gs" else MemoryStore()  # which ends with this process
    where = f"s3://{bucket}"
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise CacheError(f"{where} needs a package that is not installed", hint="pip install 'epalm[s3]'") from error
    try:
        session = boto3.Session()
        client = session.client("s3")
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise CacheError(f"{where}: {text_of(error)}", hint=_SIGN_IN["s3"]) from error
    if credentials is None:
        raise CacheError(f"{where}: Unable to locate credentials", hint=_SIGN_IN["s3"])
    endpoint, region = client.meta.endpoint_url, session.region_name or "us-east-1"
    options["client_options"]["allow_http"] = endpoint.startswith("http://")
    provider = Boto3CredentialProvider(session)
    return S3Store(bucket, endpoint=endpoint, region=region, credential_provider=provider, **options)


def _final_error(where: str, scheme: str, codes: set[str], error: Exception) -> CacheError:
    """The one error for a fault that no further try mends."""
    if "NoSuchBucket" in codes:
        return CacheError(f"{where}: there is no such bucket", hint="create the bucket, or correct the URL")
    if codes & _REGION:
        hint = "set AWS_DEFAULT_REGION to the bucket's region, and AWS_ENDPOINT_URL where the store is not Amazon's"
    elif codes & _CREDENTIALS or "401" in codes:
        hint = _SIGN_IN[scheme]
    elif "403" in codes:
        hint = f"ask for the right to list, read, write and delete there, or take other credentials: {_SIGN_IN[scheme]}"
    else:
        hint = "correct the URL or the settings of the store"
    return CacheError(f"{where}: {text_of(error)}", hint=hint)


def text_of(error: Exception) -> str:
    """The text of a fault, on one line, without what signs or authorises a request."""
    words = " ".join(str(error).partition("Debug source")[0].split()) or type(error).__name__
    return re.sub(r"\?[^\s\"']*=[^\s\"']*", "", _without_user(words))  # signatures travel in query strings


def _without_user(url: str) -> str:
    """A URL, or a text with URLs, without the user and password that may stand before the host."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", url)
