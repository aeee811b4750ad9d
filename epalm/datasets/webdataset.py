"""Tar shards in the WebDataset form as a data set, read in place: headers and texts, never the media's bytes.

Members whose paths are equal up to the first dot of their last part are one sample. Of its members this reads:

- the medium, by the extensions that files have (`.jpg`, `.mp4`, `.wav`, …): one of each modality at most
- `.txt` and `.caption`: references, one a line
- `.json`: an object with keys of the generic form (id, task, split, prompt, answers, raw_answers, references,
  question_type, answer_type), or a list of such objects where one medium serves several samples; "caption", a text or
  a list of them, stands in where there are no references; other keys are not read

A sample with a prompt is "qa", any other "caption". Its split is what the JSON says, or else the first of "train",
"val" and "test" that the shard's name begins with, or that its folder is called, or else "train". A medium's name is
the shard's path below the data root, then the member's: `train-000.tar/cat.jpg`. Other extensions (`.cls`, `.npy`, …)
are ignored; what looks like a medium and is not used is counted in a warning.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from epalm.console import progress, warn
from epalm.datasets.extensions import MODALITIES
from epalm.datasets.generic import to_sample
from epalm.datasets.rows import parse_json
from epalm.datasets.sharing import UniqueIds
from epalm.datasets.splits import SPLITS, split_of_folder
from epalm.datasets.tar import Kind, Member, read_members
from epalm.errors import UsageError
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample

_SHOWN = 20  # shards from which a bar is worth its space
_READ = 8192  # bytes read at once: a header, and little of the medium behind it
_LONGEST_TEXT = 1 << 20  # bytes of a text or JSON
_LONGEST_NAME = 4096  # bytes
_ODD = re.compile(r"[\0-\x1f\x7f\\\ud800-\udfff]")  # also stands for bytes that are not UTF-8
_TEXTS = ("txt", "caption")
_READABLE = (*_TEXTS, "json")
_KEYS = ("id", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type", "answer_type")
_UNUSED = {Kind.LINK: "links", Kind.DEVICE: "devices or pipes", Kind.UNKNOWN: "members of no known type"}


@dataclass(slots=True)
class _Group:
    """The members of one sample by extension; of texts, what they say."""

    members: dict[str, Member] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class _Skipped(dict[str, tuple[int, str]]):
    """What was passed over: reason → how many, and the first of them."""

    def add(self, reason: str, name: str) -> None:
        count, first = self.get(reason, (0, name))
        self[reason] = count + 1, first

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {reason} ({first[:200]!r})" for reason, (count, first) in self.items())


def read_shards(spec: str, root: Path, shards: Sequence[Path]) -> Dataset:
    """The samples in `shards`, which lie below `root`, in their order.

    Raises:
        UsageError: a shard that cannot be read (see `read_members`), a text or JSON that makes no sample, a member or
            id that is there twice, two media of one modality in a sample, or no sample at all.
    """
    samples: list[Sample] = []
    media: dict[str, MediaFile] = {}
    ids = UniqueIds()
    skipped = _Skipped()
    for shard in _shown(shards):
        label = shard.absolute().relative_to(root.absolute()).as_posix()
        for sample, medium in _read_shard(shard, label, skipped):
            ids.add(sample, sample.media)
            samples.append(sample)
            media[sample.media] = medium
    if not samples:
        raise UsageError(
            f"data {spec!r} has no medium in {len(shards):,} shards{f'; not used: {skipped}' if skipped else ''}",
            hint="members that make a sample have one name and different extensions: 0001.jpg 0001.json",
        )
    if skipped:
        warn(f"data {spec!r}: not used: {skipped}")
    return Dataset(spec, root, tuple(samples), media)


def _shown(shards: Sequence[Path]) -> Iterator[Path]:
    if len(shards) < _SHOWN:
        yield from shards
        return
    with progress("read headers", len(shards), "shards") as advance:
        for shard in shards:
            yield shard
            advance()


def _read_shard(shard: Path, label: str, skipped: _Skipped) -> Iterator[tuple[Sample, MediaFile]]:
    split = _split_of(shard)
    path = shard.resolve()
    if not path.is_file():  # opening a pipe would wait for ever
        raise UsageError(f"shard {shard} is not a file")
    try:
        with path.open("rb", buffering=_READ) as file:
            groups = _groups(file, str(shard), skipped)
    except OSError as error:
        raise UsageError(f"cannot read {shard}: {error.strerror}") from error
    for key, group in groups.items():
        where = f"{shard}: {key}"
        found = _media_of(group, where)
        if not found:
            skipped.add("samples without a medium", f"{label}/{key}")
            continue
        rows = _rows(group, where, split)
        for modality, member in found.items():
            name = f"{label}/{member.name}"
            medium = MediaFile(path, member.offset, member.size)
            for number, row in enumerate(rows, 1):
                fallback = name if len(rows) == 1 else f"{name}:{number}"
                yield to_sample({**row, "modality": modality, "media": name}, where, fallback), medium


def _groups(file: BinaryIO, shard: str, skipped: _Skipped) -> dict[str, _Group]:
    """The shard's members by key, in order of first appearance."""
    groups: dict[str, _Group] = {}
    for member in read_members(file, shard):
        named = _name(member, skipped)
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


def _name(member: Member, skipped: _Skipped) -> tuple[str, str, str] | None:
    """A member's path without "./", its key and its extension in lower case; None for one that is not read."""
    name = member.name
    if member.kind is not Kind.FILE:
        if member.kind in _UNUSED:
            skipped.add(_UNUSED[member.kind], name)
        return None
    if len(name) > _LONGEST_NAME or _ODD.search(name):
        skipped.add("names that are no text", name)
        return None
    if name.startswith("/") or ".." in name.split("/"):
        skipped.add("names that lead out of the shard", name)
        return None
    if "./" in name or "//" in name:
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    extension = name[dot + 1 :].lower()
    if dot > base and (extension in _READABLE or f".{extension}" in MODALITIES):
        return name, name[:dot], extension
    if dot >= 0 and f".{extension.rpartition('.')[2]}" in MODALITIES:
        skipped.add("hidden media" if dot == base else "media with a second dot in their names", name)
    return None


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


def _rows(group: _Group, where: str, split: str) -> list[dict[str, Any]]:
    """What the sample's JSON and texts say, in the keys of the generic form; one row for each question."""
    told = parse_json(group.texts["json"], where) if "json" in group.texts else {}
    objects = told if isinstance(told, list) and told else [told]
    lines = [line.strip() for text in _TEXTS for line in group.texts.get(text, "").splitlines()]
    rows = []
    for one in objects:
        if not isinstance(one, dict):
            raise UsageError(f"{where}: expected an object, or a list of them", hint=f"the keys are {', '.join(_KEYS)}")
        row = {key: one[key] for key in _KEYS if one.get(key) is not None}
        caption = one.get("caption") or []
        captions = list(filter(None, lines)) or ([caption] if isinstance(caption, str) else caption)
        task = "qa" if "prompt" in row else "caption"
        rows.append({"task": task, "split": split, "references": captions, **row})
    return rows


def _split_of(shard: Path) -> str:
    begun = [split for split in SPLITS if shard.name.lower().startswith(split)]
    return begun[0] if begun else split_of_folder(shard.absolute().parent.name) or "train"
