"""Files of a data set repository on the Hugging Face Hub, `hf://datasets/OWNER/NAME[@REVISION]`.

They are read as of one commit. What is written goes up at once and becomes visible with the next commit, all or
nothing; where somebody else has committed meanwhile, it does not. The token is that of the Hub's own login
(`hf auth login`, HF_TOKEN), and is in no message.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

from epalm.cache.objects.base import MissingObjectError, Stored
from epalm.cache.objects.remote import Result, text_of
from epalm.errors import CacheError

_TOGETHER = 64  # files that one commit makes visible: the Hub counts commits, and a kill loses what has none
_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?", re.ASCII)


class HubRepository:
    """What a published set needs of storage; safe from several threads."""

    def __init__(self, url: str) -> None:
        """Nothing is connected yet. Raises CacheError for a URL of another form."""
        match = _URL.fullmatch(url)
        if match is None:
            raise CacheError(f"{url} names no data set of the Hub", hint="give hf://datasets/OWNER/NAME")
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # ours counts blocks
        self.where = url.rstrip("/")
        self._api, self._lock = HfApi(library_name="epalm"), RLock()
        self._branch = match[2] or "main"
        self._of: dict[str, Any] = {"repo_id": match[1], "repo_type": "dataset"}
        self._waiting: list[Any] = []

    @cached_property
    def _head(self) -> str:
        """The commit that is read, and on which the next one is made. Raises MissingObjectError: no such repository."""
        return str(self._call(lambda: self._api.repo_info(**self._of, revision=self._branch).sha))

    def walk(self) -> Iterator[Stored]:
        """Every file. Raises MissingObjectError: no such repository."""
        head = self._head
        listed = self._call(lambda: list(self._api.list_repo_tree(**self._of, revision=head, recursive=True)))
        yield from (Stored(one.path, one.size, 0.0) for one in listed if hasattr(one, "size"))

    def read(self, key: str) -> bytes:
        """A file's bytes. Raises MissingObjectError, or CacheError."""
        with tempfile.TemporaryDirectory() as folder:
            place: dict[str, Any] = {**self._of, "revision": self._head, "local_dir": folder}
            return Path(self._call(lambda: self._api.hf_hub_download(filename=key, **place))).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Put a file, visible from the next commit on, which comes by itself after some.

        A repository that is not there is made: a private one, for to publish is its owner's decision.
        """
        from huggingface_hub import CommitOperationAdd

        with self._lock:
            try:
                _ = self._head
            except MissingObjectError:
                self._call(lambda: self._api.create_repo(**self._of, private=True, exist_ok=True))
        file = CommitOperationAdd(path_in_repo=key, path_or_fileobj=data)
        self._call(lambda: self._api.preupload_lfs_files(**self._of, additions=[file], revision=self._branch))
        with self._lock:
            self._waiting.append(file)
            if len(self._waiting) >= _TOGETHER:
                self.commit()

    def commit(self) -> None:
        """Make all visible that was written. Raises CacheError: also where somebody else has committed meanwhile."""
        with self._lock:
            files, self._waiting = self._waiting, []
            if not files:
                return
            on: dict[str, Any] = {**self._of, "revision": self._branch, "parent_commit": self._head}
            message = f"epalm cache push: {len(files)} files"
            done = self._call(lambda: self._api.create_commit(operations=files, commit_message=message, **on))
            self.__dict__["_head"] = done.oid

    def _call(self, action: Callable[[], Result]) -> Result:
        """What `action` gives; the library itself tries again. Raises MissingObjectError, CacheError."""
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            return action()
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            hint = "correct the name; where it is private, log in with hf auth login, or set HF_TOKEN"
            raise MissingObjectError(f"{self.where} is not there, or not for you to see", hint=hint) from error
        except EntryNotFoundError as error:
            raise MissingObjectError(f"{self.where}: {text_of(error)}") from error
        except Exception as error:  # HTTP, the network, offline mode, no token, Xet: they have no error in common
            hint = "see to the network and your login (hf auth whoami); the same command again goes on from here"
            raise CacheError(f"{self.where}: {text_of(error)}", hint=hint) from error
