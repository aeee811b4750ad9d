"""Feature sets as a data set that anybody can read: a folder of Parquet files for each, a card, and `epalm.json`.

To transfers it looks like a cache, so that blocks are verified, go on and are refused as between caches. A block is one
file, named by what it holds. `epalm.json` holds all else of the sets, sealed, and comes last: a block that it does not
name does not exist, and without it there is no set. Where: a folder (`parquet://FOLDER`), or a data set repository of
the Hugging Face Hub (`hf://datasets/OWNER/NAME`).
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from epalm.cache.blocks import CRC_BYTES, RECORDS, Record, read_record
from epalm.cache.exchange.claims import refusing
from epalm.cache.exchange.parquet import decode_block, encode_block
from epalm.cache.feature_set import FeatureSet
from epalm.cache.objects.base import MissingObjectError, Objects, Stored
from epalm.cache.objects.hub import HubRepository
from epalm.cache.objects.local import LocalObjects
from epalm.cache.store import SETS, set_figures
from epalm.console import warn
from epalm.errors import CacheError, UsageError
from epalm.fingerprint import digest_json

SCHEMES = ("hf://", "parquet://")
_ABOUT, _CARD = "epalm.json", "README.md"
_FORMAT = {"format": "epalm feature sets in Parquet", "version": 1}
_UNKNOWN = "unknown"
_BLOCK = re.compile(rf"{SETS}/[^/]+/blocks/([^/]+)-[^/]+/c[.0]+")


class PublishedSets(Objects):
    """What lies there, as the objects of a cache; only what a transfer asks for and writes."""

    def __init__(self, url: str, *, pushing: bool = False, licence: str | None = None) -> None:
        """Read what is there; `licence` is what the card is to say from now on [default: what it says].

        Raises:
            UsageError: the licence is no identifier.
            CacheError: no such place, it holds no whole set and nothing is `pushing` one there, or it is damaged.
        """
        if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
            raise UsageError(f"--licence {licence!r} is no identifier", hint="give one such as cc-by-4.0 or apache-2.0")
        self.where = url.rstrip("/")
        self._repository: HubRepository | LocalObjects = (
            HubRepository(url) if url.startswith(SCHEMES[0]) else LocalObjects(Path(url.removeprefix(SCHEMES[1])))
        )
        self._root = ""
        self._arriving: dict[str, memoryview] = {}  # chunks that have no record yet
        self._about: dict[str, Any] = {}
        self._files: dict[str, int] = {}
        try:
            self._files = {one.key: one.bytes for one in self._repository.walk()}
            with refusing(f"{self.where}/{_ABOUT}"):
                self._about = dict(json.loads(self._repository.read(_ABOUT)))
                seal = self._about.pop("seal", None)
                sealed = digest_json(self._about) == seal
        except MissingObjectError as error:
            if not pushing:
                hint = error.hint if not self._files else "epalm cache push puts one there; one may not have ended yet"
                raise CacheError(f"{self.where} holds no whole feature set: {error.message}", hint=hint) from error
        else:
            if not sealed or not _FORMAT.items() <= self._about.items():
                hint = "download it again; or another version of epalm has written it"
                raise CacheError(f"{self.where}/{_ABOUT} is damaged, or of no form that is known here", hint=hint)
        self._licence = licence or self._about.get("licence", _UNKNOWN)
        held = self._about.get("objects", {})
        with refusing(f"{self.where}/{_ABOUT}"):
            self._small = {str(key): str.encode(text, "utf-8", "surrogateescape") for key, text in held.items()}

    def finish(self) -> None:
        """Publish what was written: the card, and last what names the blocks. Raises CacheError."""
        texts = {key: data.decode("utf-8", "surrogateescape") for key, data in sorted(self._small.items())}
        if texts == self._about.get("objects") and self._licence == self._about.get("licence"):
            return
        card = self._card()
        about = {**_FORMAT, "licence": self._licence, "card": hashlib.sha256(card).hexdigest(), "objects": texts}
        there = hashlib.sha256(self._repository.read(_CARD)).hexdigest() if _CARD in self._files else None
        if there in (None, self._about.get("card")):
            self._repository.write(_CARD, card)
        elif there != about["card"]:
            warn(f"{self.where}/{_CARD} is not as epalm wrote it, and stays: see to its figures and licence")
        self._repository.write(_ABOUT, json.dumps(about | {"seal": digest_json(about)}).encode())
        if isinstance(self._repository, HubRepository):
            self._repository.commit()

    def below(self, folder: str) -> "PublishedSets":
        inside = copy.copy(self)  # which shares all else
        inside.where, inside._root = f"{self.where}/{folder}", f"{self._root}{folder}/"
        return inside

    def read(self, key: str) -> bytes:
        """See `Objects`: of a block the values alone, as its Parquet file has them."""
        if record := self._record(key):
            return decode_block(record, self._repository.read(self._file(record))).tobytes()
        try:
            return self._small[self._root + key]
        except KeyError as error:
            raise MissingObjectError(f"{self.where}/{key} is missing") from error

    def size(self, key: str) -> int | None:
        """See `Objects`: a block is as long as its chunk would be, where its file is there and long enough."""
        record = self._record(key)
        if record is None:
            data = self._small.get(self._root + key)
            return None if data is None else len(data)
        there = self._files.get(self._file(record))
        return there if there is None or there < record.bytes else record.bytes + CRC_BYTES

    def write(self, key: str, data: bytes | memoryview) -> None:
        path = self._root + key
        if _BLOCK.fullmatch(path):
            self._arriving[path] = memoryview(data)
        elif "/blocks/" not in path and not path.endswith("/used.json"):  # which only Zarr and this machine need
            self._small[path] = bytes(data)

    def write_new(self, key: str, data: bytes) -> bool:
        if self._root + key in self._small:
            return False
        self._small[self._root + key] = data
        if key.startswith(f"{RECORDS}/"):
            value = json.loads(data)  # of which machine made it the world need not know
            value["written"] = {name: it for name, it in value["written"].items() if name not in ("host", "pid")}
            self._small[self._root + key] = json.dumps(value).encode()
            record = read_record(self, value["block"])
            file, values = self._file(record), self._arriving.pop(self._root + record.chunk)
            if self._files.get(file, 0) < record.bytes:  # one that is there is whole, and holds what its name says
                array = np.frombuffer(values, record.dtype, int(np.prod(record.shape))).reshape(record.shape)
                self._repository.write(file, encode_block(record, array))
        return True

    def append(self, key: str, line: bytes) -> None:
        self._small[self._root + key] = self._small.get(self._root + key, b"") + line

    def names(self, folder: str) -> list[str]:
        start = f"{self._root}{folder}/"
        return sorted({key.removeprefix(start).split("/")[0] for key in [*self._small] if key.startswith(start)})

    def walk(self) -> Iterator[Stored]:
        for key, data in {**self._small, **self._arriving}.items():
            if key.startswith(self._root):
                yield Stored(key.removeprefix(self._root), len(data), 0.0)

    def delete(self, key: str) -> None:
        self._small.pop(self._root + key, None)
        self._arriving.pop(self._root + key, None)

    def _record(self, key: str) -> Record | None:
        """The record of a block's chunk, in the set that is this one's root; None where the key is of anything else."""
        match = _BLOCK.fullmatch(self._root + key)
        return read_record(self, match[1]) if match else None

    def _file(self, record: Record) -> str:
        """Where a block lies."""
        return f"{self._root.split('/')[1]}/{record.block}-{record.checksum[:16]}.parquet"

    def _card(self) -> bytes:
        from jinja2 import Template

        sets = [FeatureSet.load(self.below(f"{SETS}/{name}"), name) for name in self.names(SETS)]
        shown = [{**set_figures(one), "fingerprint": one.spec.fingerprint, "spec": one.spec.to_json()} for one in sets]
        template = Template(files(__package__).joinpath("card.md").read_text("utf-8"), keep_trailing_newline=True)
        return str(template.render(url=self.where, licence=self._licence, sets=shown)).encode()
