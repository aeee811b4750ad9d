"""A way to a store through fsspec: one file system a process, no listing cache, and faults tried again for a while.

Knows how stores are reached and when to give up; what the objects are is not known here.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from epalm.cache.objects.base import MissingObjectError
from epalm.cache.objects.store_faults import Verdict, final_error, judge, said, without_user
from epalm.errors import CacheError

Result = TypeVar("Result")

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # scheme → what `pip install epalm[...]` calls it


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store's faults are borne, in seconds: in all, before the second try, and at most between two tries."""

    total: float = 60.0
    first: float = 0.2
    longest: float = 10.0


PATIENCE = Patience()


class Connection:
    """What `fsspec` makes of a URL. May be shared by threads, and goes along into forked and spawned processes."""

    def __init__(self, url: str, patience: Patience) -> None:
        """Nothing is connected yet.

        Raises:
            CacheError: a URL of a kind that nothing installed reads.
        """
        self.scheme = url.partition("://")[0]
        self._url, self._patience = url, patience
        # By process: after a fork the child must leave its parent's connections, and the loop behind them, alone.
        self._filesystems: dict[int, Any] = {}
        self.root = self._root()

    def __reduce__(self) -> tuple[object, ...]:
        return Connection, (self._url, self._patience)

    def call(self, what: str, action: Callable[[Any], Result]) -> Result:
        """What `action` makes of the file system, tried again while the store has a bad moment.

        `action` must be safe to run again after a try whose outcome is not known.

        Raises:
            MissingObjectError: there is no such object.
            CacheError: a fault that stays; `what` is in the message.
        """
        began, pause = time.monotonic(), self._patience.first
        while True:
            try:
                return action(self._filesystem())
            except Exception as error:  # libraries of stores have no common error: judge knows theirs
                verdict = judge(error)
                if verdict is None:
                    raise
                if verdict is Verdict.MISSING:
                    raise MissingObjectError(
                        f"{what} is missing", hint="epalm cache verify says what is whole"
                    ) from error
                if verdict is not Verdict.AGAIN:
                    raise final_error(error, self.scheme, what) from error
                spent = time.monotonic() - began
                if spent + pause > self._patience.total:
                    raise CacheError(
                        f"{what}: the store has failed for {spent:.0f} s: {said(error)}",
                        hint="see that the store and the way to it work, then run the same command again: "
                        "what is committed stays",
                    ) from error
            # Workers that failed together must not come back together.
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, self._patience.longest)

    def _root(self) -> str:
        from fsspec.core import strip_protocol

        shown = without_user(self._url)
        if "::" in self._url:  # a cache or an archive between us and the store would break what we promise
            raise CacheError(f"{shown} is a chain of file systems", hint="give the URL of the store itself")
        try:
            root = str(strip_protocol(self._url)).rstrip("/")
        except ImportError as error:
            extra = _EXTRAS.get(self.scheme)
            hint = f"pip install 'epalm[{extra}]'" if extra else f"install what fsspec needs for it: {said(error)}"
            raise CacheError(f"{shown} needs a package that is not installed", hint=hint) from error
        except ValueError as error:
            raise CacheError(
                f"{shown} is of a kind that is not known here",
                hint="give a folder, s3://bucket/folder, gs://bucket/folder, or another URL that fsspec reads",
            ) from error
        if self.scheme in _EXTRAS and not root:
            raise CacheError(f"{shown} names no bucket", hint=f"give {self.scheme}://bucket/folder")
        return root

    def _filesystem(self) -> Any:
        mine = os.getpid()
        if mine not in self._filesystems:
            self._filesystems.setdefault(mine, self._new_filesystem())
        return self._filesystems[mine]

    def _new_filesystem(self) -> Any:
        from fsspec.core import url_to_fs

        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if _EXTRAS.get(self.scheme) == "s3":
            options |= _s3_options()
        filesystem, _ = url_to_fs(self._url, **options)
        if _EXTRAS.get(self.scheme) == "s3":
            filesystem.retries = 1
        return filesystem


def _s3_options() -> dict[str, Any]:
    """Leave trying again to `call`: botocore's retries times s3fs's would go on for several minutes."""
    from fsspec.config import conf

    configured = {**conf.get("s3", {}), **conf.get("s3a", {})}.get("config_kwargs", {})
    # One request at a time for an object: parallel ranges could come from two versions of it.
    return {"config_kwargs": {"retries": {"total_max_attempts": 1}, **configured}, "max_concurrency": 1}
