"""Tar shards in the WebDataset form as a data set, read in place: headers and texts, never the media's bytes.

Members whose paths are equal up to the first dot of their last part are one sample. Of its members this reads:

- the medium, by the extensions that files have (`.jpg`, `.mp4`, `.wav`, …): one of each modality at most
- `.txt` and `.caption`: references, one a line
- `.json`: an object with keys of the generic form (id, task, split, prompt, answers, raw_answers, references,
  question_type, answer_type), or a list of such objects where one medium serves several samples; "caption", a text or
  a list of them, stands in where there are no references; other keys are not read, nor are values of these that are
  of another form, such as a "task" of the packer's own, which one warning counts

A sample with a prompt is "qa", any other "caption". Its split is the JSON's, or else the first of "train",
"val" and "test" that the shard's name begins with, or that its folder is called, or else "train". A medium's name is
the shard's path below the data root, then the member's: `train-000.tar/cat.jpg`. Members that are not read are counted
by reason. Where no extension stands for the modality asked for, media that may be of it count: sounds in .webm.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from pathlib import Path, PurePosixPath
from tarfile import TarInfo
from typing import Any, BinaryIO

from epalm.console import progress, warn
from epalm.datasets.generic import UniqueIds, to_sample
from epalm.datasets.listing import (
    HIDDEN,
    LINK,
    MODALITIES,
    SPLITS,
    UNKNOWN,
    in_words,
    is_hidden,
    is_shard,
    may_be,
    split_of_folder,
)
from epalm.datasets.tar import read_members
from epalm.datasets.text_file import parse_json
from epalm.errors import UsageError
from epalm.media import MediaFile
from epalm.samples import Dataset, Modality, Sample, Task

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000  # shards: more is a mistyped range
_NAMED = 3  # missing shards named in a message; the rest is counted
_SHOWN = 20  # shards from which a bar is worth its space
_READ = 8192  # bytes read at once: a header, and little of the medium after it
_LONGEST_TEXT = 1 << 20  # bytes of a text or JSON
_LONGEST_NAME = 4096  # bytes
_ODD = re.compile(r"[\0-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")  # what is between them are bytes that are not UTF-8
_TEXTS = ("txt", "caption")
_READABLE = (*_TEXTS, "json")
_KEYS = ("id", "task", "split", "prompt", "answers", "raw_answers", "references", "question_type", "answer_type")
_FORMS: dict[str, Any] = {"id": str | int, "answers": dict, "raw_answers": list, "references": list}  # others: texts
_NO_MEDIUM = "of samples without a medium"

_Group = dict[str, tuple[TarInfo, str]]  # the members of one sample by extension; of texts, what they say


def find_shards(spec: str) -> tuple[Path, list[Path]] | None:
    """The folder that all shards lie in, and the shards in order; None where `spec` names no shards.

    `spec` is a .tar file, such a name with braces (`train-{000..009}.tar`, `{train,val}.tar`), or a pattern
    (`shards/*.tar`, `**` for folders of any depth). A file of exactly that name goes before a pattern.

    Raises:
        UsageError: nothing is there, or only a part of the range.
    """
    if not is_shard(spec) or Path(spec).is_dir():
        return None
    names = [spec] if Path(spec).exists() else list(_expand(spec))
    shards: dict[Path, None] = {}
    missing = []
    for name in names:
        # Unlike Path.glob this takes a pattern from the root on.
        found = [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        missing += [] if found else [name]
        shards |= dict.fromkeys(map(Path, found))
    if missing:
        rest = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise UsageError(
            f"data {spec!r}: there is no {', '.join(missing[:_NAMED])}{rest}",
            hint="quote patterns and ranges, so that the shell leaves them alone",
        )
    return Path(os.path.commonpath([shard.absolute().parent for shard in shards])), list(shards)


def _expand(spec: str) -> Iterator[str]:
    """The names that braces stand for, the first brace's changing slowest."""
    parts = [_choices(part, spec) if n % 2 else [part] for n, part in enumerate(_BRACES.split(spec))]
    if prod(map(len, parts)) > _MOST:
        raise UsageError(f"data {spec!r} names more than {_MOST:,} shards", hint="check the range in braces")
    return map("".join, product(*parts))


def _choices(text: str, spec: str) -> list[str]:
    """`000..009` counts, with leading zeros as in its first number; `a,b` lists; other braces stay as they are."""
    numbers = _RANGE.fullmatch(text)
    if not numbers:
        return text.split(",") if "," in text else [f"{{{text}}}"]
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < _MOST:
        raise UsageError(f"data {spec!r}: {{{text}}} is no range of up to {_MOST:,} shards", hint="{000..009}")
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]


def read_shards(spec: str, root: Path, shards: Sequence[Path], modality: Modality | None = None) -> Dataset:
    """The samples in `shards`, which lie below `root`, in their order.

    Raises:
        UsageError: a shard that cannot be read (see `read_members`), a text or JSON that makes no sample, a member or
            id that is there twice, two media of one modality in a sample, or no sample at all.
    """
    own, other = list[tuple[Sample, MediaFile]](), list[tuple[Sample, MediaFile]]()
    passed_over, foreign = Counter[str](), Counter[str]()
    for shard in _shown(shards):
        label = shard.absolute().relative_to(root.absolute()).as_posix()
        for sample, medium, stands in _read_shard(shard, label, modality, passed_over, foreign):
            (own if stands else other).append((sample, medium))
    if modality is not None and not any(sample.modality is modality for sample, _ in own):
        names = {sample.media for sample, _ in other}
        own = [*(pair for pair in own if pair[0].media not in names), *other]
    if not own:
        counts = f"; {in_words(passed_over)}" if passed_over else ""
        raise UsageError(
            f"data {spec!r} has no medium in {len(shards):,} shards{counts}",
            hint="members that make a sample have one name and different extensions: 0001.jpg 0001.json",
        )
    ids = UniqueIds()
    for sample, _ in own:
        try:
            ids.add(sample)
        except UsageError as error:
            raise error.at(sample.media) from None
    if foreign:
        keys = ", ".join(f"{key!r} of {count:,}" for key, count in foreign.items())
        warn(f"data {spec!r}: not read in the JSON of samples, as the values are of another form: {keys}")
    media = {sample.media: medium for sample, medium in own}
    return Dataset(spec, root, tuple(sample for sample, _ in own), media, passed_over=dict(passed_over))


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
    path = shard.resolve()
    if not path.is_file():  # opening a pipe would wait for ever
        raise UsageError(f"shard {shard} is not a file")
    try:
        with path.open("rb", buffering=_READ) as file:
            groups = _groups(file, str(shard), passed_over)
    except OSError as error:
        raise UsageError(f"cannot read {shard}: {error.strerror}") from error
    begun = next((split for split in SPLITS if shard.name.lower().startswith(split)), None)
    split = begun or split_of_folder(shard.absolute().parent.name) or "train"
    for key, group in groups.items():
        where = f"{shard}: {key}"
        media = _media_of(group, where)
        if not media:
            passed_over[_NO_MEDIUM] += len(group)
            continue
        rows = list(_rows(group, where, split, foreign))
        uses = [(kind, member, True) for kind, member in media.items()]
        if modality is not None and modality not in media:
            maybe = (member for member in media.values() if may_be(PurePosixPath(member.name), modality))
            uses += [(modality, member, False) for member in list(maybe)[:1]]
        for kind, member, stands in uses:
            name = f"{label}/{member.name}"
            medium = MediaFile(path, member.offset_data, member.size)
            for number, row in enumerate(rows, 1):
                fallback = name if len(rows) == 1 else f"{name}:{number}"
                try:
                    sample = to_sample({**row, "modality": kind, "media": name}, fallback)
                except UsageError as error:
                    raise error.at(where) from None
                yield sample, medium, stands


def _groups(file: BinaryIO, shard: str, passed_over: Counter[str]) -> dict[str, _Group]:
    """The shard's members by key, in order of first appearance; their names are without "./"."""
    groups: dict[str, _Group] = {}
    for member in read_members(file, shard):
        if member.isdir():
            continue
        name = member.name
        if "./" in name or "//" in name:
            name = "/".join(part for part in name.split("/") if part not in ("", ".")) if name[0] != "/" else name
            member.name = name
        dot = name.find(".", name.rfind("/") + 1)
        extension = name[dot + 1 :].lower()
        if (reason := _reason(member, dot, extension)) is not None:
            passed_over[reason] += 1
            continue
        text = _text(file, member, f"{shard}: {name}") if extension in _READABLE else ""
        twin, _ = groups.setdefault(name[:dot], {}).setdefault(extension, (member, text))
        if twin is not member:
            places = f"{twin.offset_data:,} and {member.offset_data:,}"
            raise UsageError(
                f"{shard}: {twin.name} and {name} are one name, at bytes {places}",
                hint="pack the shard again, with each name once",
            )
    return groups


def _reason(member: TarInfo, dot: int, extension: str) -> str | None:
    """Why a member is not read; `dot` is where its extension begins."""
    parts = member.name.split("/")
    if not member.isreg():
        return LINK if member.issym() or member.islnk() else "of devices or pipes" if member.isdev() else UNKNOWN
    if len(member.name) > _LONGEST_NAME or _ODD.search(member.name):
        return "of names that are no text"
    if not parts[0] or ".." in parts:
        return "of names that lead out of the shard"
    if any(map(is_hidden, parts)):
        return HIDDEN
    if dot >= 0 and (extension in _READABLE or f".{extension}" in MODALITIES):
        return None
    return "with a second dot in their names" if f".{extension.rpartition('.')[2]}" in MODALITIES else UNKNOWN


def _text(file: BinaryIO, member: TarInfo, where: str) -> str:
    if member.size > _LONGEST_TEXT:
        raise UsageError(
            f"{where}: {member.size:,} bytes are no text of one sample, which has {_LONGEST_TEXT:,} at most"
        )
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text", hint="save it as UTF-8") from error


def _media_of(group: _Group, where: str) -> dict[Modality, TarInfo]:
    media: dict[Modality, TarInfo] = {}
    for extension, (member, _) in group.items():
        modality = MODALITIES.get(f".{extension}")
        if modality is not None and media.setdefault(modality, member) is not member:
            raise UsageError(
                f"{where} has two {modality} media, {media[modality].name} and {member.name}",
                hint="give each medium a name of its own",
            )
    return media


def _rows(group: _Group, where: str, split: str, foreign: Counter[str]) -> Iterator[dict[str, Any]]:
    """What the sample's JSON and texts say, in the keys of the generic form; one row for each question.

    Values of another form are a packer's own, and counted.
    """
    given = parse_json(group["json"][1], where) if "json" in group else {}
    lines = [line.strip() for key in _TEXTS if key in group for line in group[key][1].splitlines()]
    for one in given if isinstance(given, list) and given else [given]:
        if not isinstance(one, dict):
            raise UsageError(f"{where}: expected an object, or a list of them", hint=f"the keys are {', '.join(_KEYS)}")
        values = {key: one[key] for key in _KEYS if one.get(key) is not None}
        if isinstance(values.get("split"), str) and values["split"].lower() in SPLITS:
            values["split"] = values["split"].lower()
        strange = [key for key, value in values.items() if not isinstance(value, _FORMS.get(key, str))]
        if values.get("task", Task.QA) not in list(Task) and "task" not in strange:
            strange.append("task")
        foreign.update(strange)
        row = {key: value for key, value in values.items() if key not in strange}
        caption = one.get("caption") or []
        captions = list(filter(None, lines)) or ([caption] if isinstance(caption, str) else caption)
        yield {"task": "qa" if "prompt" in row else "caption", "split": split, "references": captions, **row}
