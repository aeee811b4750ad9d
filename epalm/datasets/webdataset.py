"""Tar shards in the WebDataset form as a data set, read in place: headers and texts, never the media's bytes.

Members whose paths are equal up to the first dot of their last part are one sample. Of its members this reads:

- the medium, by the extensions that files have (`.jpg`, `.mp4`, `.wav`, …): one of each modality at most
- `.txt` and `.caption`: references, one a line
- `.json`: an object with keys of the generic form (id, task, split, prompt, answers, raw_answers, references,
  question_type, answer_type), or a list of such objects where one medium serves several samples; "caption", a text or
  a list of them, stands in where there are no references; other keys are not read, nor are values of these that are
  of another form, such as a "task" of the packer's own, which one warning counts

A sample with a prompt is "qa", any other "caption". Its split is what the JSON says, or else the first of "train",
"val" and "test" that the shard's name begins with, or that its folder is called, or else "train". A medium's name is
the shard's path below the data root, then the member's: `train-000.tar/cat.jpg`. Members that are not read are counted
by reason. Where no extension stands for the modality asked for, media that may be of it count: sounds in .webm.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from epalm.console import progress, warn
from epalm.datasets.extensions import MODALITIES, is_hidden, may_be
from epalm.datasets.generic import to_sample
from epalm.datasets.listing import HIDDEN, LINK, UNKNOWN, in_words
from epalm.datasets.rows import parse_json
from epalm.datasets.sharing import UniqueIds
from epalm.datasets.splits import SPLITS, split_of_folder
from epalm.datasets.tar import Kind, Member, read_members
from epalm.errors import UsageError
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task

_SHOWN = 20  # shards from which a bar is worth its space
_READ = 8192  # bytes read at once: a header, and little of the medium behind it
_LONGEST_TEXT = 1 << 20  # bytes of a text or JSON
_LONGEST_NAME = 4096  # bytes
_ODD = re.compile(r"[\0-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")  # what is between them are bytes that are not UTF-8
_TEXTS = ("txt", "caption")
_READABLE = (*_TEXTS, "json")
_KEYS = ("id", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type", "answer_type")
_FORMS: dict[str, Any] = {"id": str | int, "answers": dict, "raw_answers": list, "references": list}  # others: texts
_NOT_FILES = {Kind.LINK: LINK, Kind.DEVICE: "of devices or pipes", Kind.UNKNOWN: "of no known type"}
_NO_MEDIUM = "of samples without a medium"


@dataclass(slots=True)
class _Group:
    """The members of one sample by extension; of texts, what they say."""

    members: dict[str, Member] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_shards(spec: str, root: Path, shards: Sequence[Path], modality: Modality | None = None) -> Dataset:
    """The samples in `shards`, which lie below `root`, in their order.

    Raises:
        UsageError: a shard that cannot be read (see `read_members`), a text or JSON that makes no sample, a member or
            id that is there twice, two media of one modality in a sample, or no sample at all.
    """
    own, other = _Samples(), _Samples()  # by what extensions stand for, and by what they may be
    passed_over, foreign = Counter[str](), Counter[str]()
    for shard in _shown(shards):
        label = shard.absolute().relative_to(root.absolute()).as_posix()
        for sample, medium, is_own in _read_shard(shard, label, modality, passed_over, foreign):
            (own if is_own else other).add(sample, medium)
    if modality is not None and not any(sample.modality is modality for sample in own.samples):
        own.replace(other)
    if not own.samples:
        said = f"; {in_words(passed_over)}" if passed_over else ""
        raise UsageError(
            f"data {spec!r} has no medium in {len(shards):,} shards{said}",
            hint="members that make a sample have one name and different extensions: 0001.jpg 0001.json",
        )
    if foreign:
        keys = ", ".join(f"{key!r} of {count:,}" for key, count in foreign.items())
        warn(f"data {spec!r}: not read in the JSON of samples, as the values are of another form: {keys}")
    return Dataset(spec, root, tuple(own.samples), own.media, passed_over=dict(passed_over))


class _Samples:
    """Samples with their media. Of one medium, those of another modality give way."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.media: dict[str, MediaFile] = {}
        self._ids = UniqueIds()

    def add(self, sample: Sample, medium: MediaFile) -> None:
        self._ids.add(sample, sample.media)
        self.samples.append(sample)
        self.media[sample.media] = medium

    def replace(self, others: "_Samples") -> None:
        self.samples = [sample for sample in self.samples if sample.media not in others.media] + others.samples
        self.media |= others.media


def _shown(shards: Sequence[Path]) -> Iterator[Path]:
    if len(shards) < _SHOWN:
        yield from shards
        return
    with progress("read headers", len(shards), "shards") as advance:
        for shard in shards:
            yield shard
            advance()


def _read_shard(
    shard: Path, label: str, modality: Modality | None, passed_over: Counter[str], foreign: Counter[str]
) -> Iterator[tuple[Sample, MediaFile, bool]]:
    """Samples with their media, and whether the medium's extension stands for the modality or only may."""
    split = _split_of(shard)
    path = shard.resolve()
    if not path.is_file():  # opening a pipe would wait for ever
        raise UsageError(f"shard {shard} is not a file")
    try:
        with path.open("rb", buffering=_READ) as file:
            groups = _groups(file, str(shard), passed_over)
    except OSError as error:
        raise UsageError(f"cannot read {shard}: {error.strerror}") from error
    for key, group in groups.items():
        where = f"{shard}: {key}"
        media = _media_of(group, where)
        if not media:
            passed_over[_NO_MEDIUM] += len(group.members)
            continue
        rows = _rows(group, where, split, foreign)
        found = [(kind, member, True) for kind, member in media.items()]
        if modality is not None and modality not in media:
            others = (member for member in media.values() if may_be(PurePosixPath(member.name), modality))
            found += [(modality, member, False) for member in list(others)[:1]]
        for kind, member, is_own in found:
            name = f"{label}/{member.name}"
            medium = MediaFile(path, member.offset, member.size)
            for number, row in enumerate(rows, 1):
                fallback = name if len(rows) == 1 else f"{name}:{number}"
                yield to_sample({**row, "modality": kind, "media": name}, where, fallback), medium, is_own


def _groups(file: BinaryIO, shard: str, passed_over: Counter[str]) -> dict[str, _Group]:
    """The shard's members by key, in order of first appearance."""
    groups: dict[str, _Group] = {}
    for member in read_members(file, shard):
        named = _name(member, passed_over)
        if named is None:
            continue
        name, key, extension = named
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group()
        twin = group.members.setdefault(extension, Member(name, member.kind, member.offset, member.size))
        if twin.offset != member.offset:
            raise UsageError(
                f"{shard}: {twin.name} and {name} are one name, at bytes {twin.offset:,} and {member.offset:,}",
                hint="pack the shard again, with each name once",
            )
        if extension in _READABLE:
            group.texts[extension] = _text(file, member, f"{shard}: {name}")
    return groups


def _name(member: Member, passed_over: Counter[str]) -> tuple[str, str, str] | None:
    """A member's path without "./", its key and its extension in lower case; None for one that is not read."""
    if member.kind is Kind.FOLDER:
        return None
    name = member.name
    if "./" in name or "//" in name:
        name = "/".join(part for part in name.split("/") if part not in ("", ".")) if name[0] != "/" else name
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    extension = name[dot + 1 :].lower()
    reason = None
    if member.kind is not Kind.FILE:
        reason = _NOT_FILES[member.kind]
    elif len(name) > _LONGEST_NAME or _ODD.search(name):
        reason = "of names that are no text"
    elif name.startswith("/") or ".." in name.split("/"):
        reason = "of names that lead out of the shard"
    elif any(map(is_hidden, name.split("/"))):
        reason = HIDDEN
    elif dot < base or (extension not in _READABLE and f".{extension}" not in MODALITIES):
        last = f".{extension.rpartition('.')[2]}"
        reason = "with a second dot in their names" if last in MODALITIES and dot >= base else UNKNOWN
    if reason is not None:
        passed_over[reason] += 1
        return None
    return name, name[:dot], extension


def _text(file: BinaryIO, member: Member, where: str) -> str:
    if member.size > _LONGEST_TEXT:
        raise UsageError(
            f"{where}: {member.size:,} bytes are no text of one sample, which has {_LONGEST_TEXT:,} at most"
        )
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text", hint="save it as UTF-8") from error


def _media_of(group: _Group, where: str) -> dict[Modality, Member]:
    media: dict[Modality, Member] = {}
    for extension, member in group.members.items():
        modality = MODALITIES.get(f".{extension}")
        if modality is not None and media.setdefault(modality, member) is not member:
            raise UsageError(
                f"{where} has two {modality} media, {media[modality].name} and {member.name}",
                hint="give each medium a name of its own",
            )
    return media


def _rows(group: _Group, where: str, split: str, foreign: Counter[str]) -> list[dict[str, Any]]:
    """What the sample's JSON and texts say, in the keys of the generic form; one row for each question."""
    told = parse_json(group.texts["json"], where) if "json" in group.texts else {}
    objects = told if isinstance(told, list) and told else [told]
    lines = [line.strip() for text in _TEXTS for line in group.texts.get(text, "").splitlines()]
    rows = []
    for one in objects:
        if not isinstance(one, dict):
            raise UsageError(f"{where}: expected an object, or a list of them", hint=f"the keys are {', '.join(_KEYS)}")
        row = dict(_own(one, foreign))
        caption = one.get("caption") or []
        captions = list(filter(None, lines)) or ([caption] if isinstance(caption, str) else caption)
        task = "qa" if "prompt" in row else "caption"
        rows.append({"task": task, "split": split, "references": captions, **row})
    return rows


def _own(values: dict[str, Any], foreign: Counter[str]) -> Iterator[tuple[str, Any]]:
    """The keys of the generic form whose values have its form; others are a packer's own, and counted."""
    for key in _KEYS:
        value = values.get(key)
        if value is None:
            continue
        if key == "split" and isinstance(value, str) and value.lower() in SPLITS:
            value = value.lower()
        if value in set(Task) if key == "task" and isinstance(value, str) else isinstance(value, _FORMS.get(key, str)):
            yield key, value
        else:
            foreign[key] += 1


def _split_of(shard: Path) -> str:
    begun = [split for split in SPLITS if shard.name.lower().startswith(split)]
    return begun[0] if begun else split_of_folder(shard.absolute().parent.name) or "train"
