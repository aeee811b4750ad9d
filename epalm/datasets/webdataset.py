"""Tar shards in the WebDataset form as a data set, read in place: headers and texts, never the media's bytes.

Members whose paths are equal up to the first dot of their last part are one sample. Of its members this reads:

- the medium, by the extensions that files have (`.jpg`, `.mp4`, `.wav`, …): one of each modality at most
- `.txt` and `.caption`: references, one a line
- `.json`: an object with keys of the generic form, or a list of such objects where one medium serves several samples;
  "caption", a text or a list of them, stands in where there are no references; other keys are not read, nor are values
  of these that are of another form, such as a "task" of the packer's own, which one warning counts

A sample with a prompt is "qa", any other "caption". Its split is the JSON's, or else the first of "train",
"val" and "test" that the shard's name begins with, or that its folder is called, or else "train". A medium's name is
the shard's path below the data root, then the member's: `train-000.tar/cat.jpg`. Members that are not read are counted
by reason. Where no extension stands for the modality asked for, media that may be of it count: sounds in .webm.
"""

import glob
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self

from epalm.console import first_in_words, progress, silent, warn
from epalm.datasets.entries import Entry
from epalm.datasets.generic import SampleList, to_sample
from epalm.datasets.listing import HIDDEN, LINK, MODALITIES, UNKNOWN, is_hidden, is_shard, may_be, split_of
from epalm.datasets.text_file import reading
from epalm.errors import UsageError
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Task

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST = 100_000  # shards: more is a mistyped range
_SHOWN = 20  # shards from which a bar is worth its space
_READ = 8192  # bytes read at once: a header, and little of the medium after it
_LONGEST_TEXT = 1 << 20  # bytes of a text or JSON, or of an extended header
_ODD = re.compile(r"^/|(^|/)\.\.(/|$)|[\0-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")  # between: bytes that are not UTF-8
_TEXTS = ("txt", "caption", "json")
_TASKS = frozenset(Task)
_FORMS: dict[str, Any] = dict.fromkeys(("id", "task", "split", "prompt", "question_type", "answer_type"), str)
_FORMS |= {"id": str | int, "answers": dict, "raw_answers": list, "references": list}
_EXTENDED = (b"x", b"X", b"g", b"L", b"K")  # headers that say more about the next member, or (g) all that follow
_NO_HEADER = "no tar header there: cut off, damaged or compressed"
_AGAIN = "download the shard again; media are read in place: unpack what is compressed, as with gzip -d SHARD.tar.gz"
_FAULTS = (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError)  # what forged headers raise

_Group = dict[str, Any]  # of one sample: by modality the media's members, by extension what the texts say


def find_shards(spec: str) -> tuple[Path, list[Path]] | None:
    """The folder that all shards lie in, and the shards in order; None where `spec` names no shards.

    `spec` is a .tar file, such a name with braces (`train-{000..009}.tar`, `{train,val}.tar`), or a pattern
    (`shards/*.tar`, `**` for folders of any depth). A file of exactly that name goes before a pattern.

    Raises:
        UsageError: nothing is there, or only a part of the range.
    """
    if not is_shard(spec) or Path(spec).is_dir():
        return None
    names = [spec] if Path(spec).exists() else _expand(spec)
    # Unlike Path.glob this takes a pattern from the root on.
    paths = {name: [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True)) for name in names}  # noqa: PTH207
    if missing := [name for name in names if not paths[name]]:
        hint = "quote patterns and ranges, so that the shell leaves them alone"
        raise UsageError(f"data {spec!r}: there is no {first_in_words(missing, 1)}", hint=hint)
    shards = list(dict.fromkeys(Path(path) for name in names for path in paths[name]))
    return Path(os.path.commonpath([shard.absolute().parent for shard in shards])), shards


def _expand(spec: str) -> list[str]:
    """The names that braces stand for: `{000..009}` counts, with the zeros of its first number; `{a,b}` lists."""
    match = _BRACES.search(spec)
    if match is None:
        return [spec]
    if match[1]:
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < _MOST:
            raise UsageError(f"data {spec!r} names no range of up to {_MOST:,} shards", hint="a range: {000..009}")
        choices = [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    else:
        choices = match[3].split(",")
    rest = _expand(spec[match.end() :])
    return [spec[: match.start()] + choice + end for choice in choices for end in rest]


def read_shards(spec: str, root: Path, shards: Sequence[Path], modality: Modality | None = None) -> Dataset:
    """The samples in `shards`, which lie below `root`, in their order.

    Raises:
        UsageError: a shard that cannot be read, a text or JSON that makes no sample, or a member or id used twice.
    """
    certain, possible = SampleList(), SampleList()  # whose extensions stand for the modality, or may
    media = dict[str, MediaFile]()
    passed_over, foreign = Counter[str](), Counter[str]()
    shown = len(shards) >= _SHOWN
    with progress("read headers", len(shards), "shards") if shown else nullcontext(silent) as advance:
        for shard in shards:
            label, path = shard.absolute().relative_to(root.absolute()).as_posix(), shard.resolve()
            begun = re.match("train|val|test", shard.name.lower())
            split = begun[0] if begun else split_of([shard.absolute().parent.name])
            for key, group in _groups(shard, passed_over).items():
                if group.keys().isdisjoint(Modality):
                    passed_over["of samples without a medium"] += len(group)
                    continue
                rows = list(_rows(group, Entry(shard, key, 0, {}, split), foreign))
                for kind in filter(group.get, Modality):
                    member, samples = group[kind], certain if modality in (None, kind) else possible
                    name = f"{label}/{member.name}"
                    if samples is possible and not may_be(PurePosixPath(name), modality):
                        passed_over[kind] += 1
                        continue
                    media[name] = MediaFile(path, member.offset_data, member.size)
                    for number, row in enumerate(rows, 1):
                        entry = Entry(shard, key, 0, {**row, "modality": modality or kind, "media": name})
                        samples.add(to_sample(entry, name if len(rows) == 1 else f"{name}:{number}"), entry)
            advance()
    if certain.samples:
        others = {sample.media for sample in possible.samples}
        passed_over.update(MODALITIES[PurePosixPath(name).suffix.lower()] for name in others)
    if foreign:
        keys = ", ".join(f"{key!r} of {count:,}" for key, count in foreign.items())
        warn(f"data {spec!r}: not read in the JSON of samples, as the values are of another form: {keys}")
    return Dataset(spec, root, tuple(certain.samples or possible.samples), media, passed_over=dict(passed_over))


def _groups(shard: Path, passed_over: Counter[str]) -> dict[str, _Group]:
    """The shard's members by key, in order of first appearance; their names are without "./"."""
    groups: dict[str, _Group] = {}
    with reading(shard), shard.open("rb", buffering=_READ) as file:
        for member in read_members(file, str(shard)):
            if member.isdir():
                continue
            if "./" in member.name or "//" in member.name:
                member.name = str(PurePosixPath(member.name))
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            kind = MODALITIES.get(f".{extension.lower()}", extension.lower())
            if reason := _reason(member, kind):
                passed_over[reason] += 1
                continue
            group = groups.setdefault(f"{folder}/{stem}".lstrip("/"), {})
            if kind in group:
                raise UsageError(
                    f"{shard}: {member.name} is the second {kind} of its sample",
                    hint="pack the shard again, with each name and one medium of a modality once",
                )
            group[kind] = _text(file, member, shard) if kind in _TEXTS else member
    return groups


def _text(file: BinaryIO, member: tarfile.TarInfo, shard: Path) -> str:
    """A member's bytes as UTF-8. Raises UsageError."""
    if member.size > _LONGEST_TEXT:
        raise UsageError(f"{shard}: {member.name} has {member.size:,} bytes, no text of one sample")
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{shard}: {member.name} is not UTF-8 text", hint="save it as UTF-8") from error


def _reason(member: tarfile.TarInfo, kind: str) -> str | None:
    """Why a member is not read."""
    if not member.isreg():
        return LINK if member.issym() or member.islnk() else UNKNOWN
    if _ODD.search(member.name):
        return "of names that are no path"
    if any(map(is_hidden, member.name.split("/"))):
        return HIDDEN
    return None if kind in _TEXTS or isinstance(kind, Modality) else UNKNOWN


def _rows(group: _Group, entry: Entry, foreign: Counter[str]) -> Iterator[dict[str, Any]]:
    """What the sample's JSON and texts say, one row for each question; values of another form are counted."""
    parsed = entry.parsed(group["json"]) if "json" in group else {}
    lines = [line.strip() for key in ("txt", "caption") for line in group.get(key, "").splitlines()]
    for each in parsed if isinstance(parsed, list) and parsed else [parsed]:
        one = entry.object(each)
        row = {key: one[key] for key, form in _FORMS.items() if isinstance(one.get(key), form)}
        if row.get("task", Task.QA) not in _TASKS:
            del row["task"]
        foreign.update(key for key in _FORMS if one.get(key) is not None and key not in row)
        caption = one.get("caption") or []
        captions = list(filter(None, lines)) or ([caption] if isinstance(caption, str) else caption)
        yield {"task": "qa" if "prompt" in row else "caption", "split": entry.split, "references": captions, **row}


class _Member(tarfile.TarInfo):
    """A member whose size is one: the standard library takes any, and reads extended headers of any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED and member.size > _LONGEST_TEXT):
            raise tarfile.ReadError(f"a size of {member.size:,} bytes")
        return member


def read_members(file: BinaryIO, shard: str) -> Iterator[tarfile.TarInfo]:
    """All members of the tar `file`, in its order; between two of them the file may be read from anywhere.

    `shard` is its name in messages. A member's bytes are `size` from `offset_data` on; bytes of names that are not
    UTF-8 are surrogates. What follows the last member is checked: the standard library takes a damaged header for the
    end, and tars that were appended to each other go on after the first one's.

    Raises:
        UsageError: no tar, cut off, damaged, with a sparse member, or with bytes after its end.
        OSError: from reading.
    """
    length, at = file.seek(0, os.SEEK_END), 0
    file.seek(0)

    def fault(what: str, hint: str = _AGAIN) -> UsageError:
        return UsageError(f"{shard}, byte {at:,}: {what}", hint=hint)

    try:
        tar = tarfile.TarFile(fileobj=file, tarinfo=_Member, encoding="utf-8", errors="surrogateescape")
        for member in tar:
            if member.size < 0:
                raise fault(f"a size of {member.size:,} bytes")
            if member.issparse():
                raise fault("a sparse member, whose bytes are not all in the shard")
            if tar.offset > length:
                raise fault(f"cut off, {member.size:,} bytes should follow this header")
            at = tar.offset
            yield member
    except _FAULTS as error:
        raise fault(f"{_NO_HEADER} ({error})") from error
    file.seek(at)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise fault(_NO_HEADER)
    if file.read(_LONGEST_TEXT).strip(b"\0") or file.tell() < length:
        hint = "if shards were appended to each other with cat, keep them apart, or join them with tar -A"
        raise fault(f"the tar ends, the shard goes on for {length - at:,} bytes", hint)
