"""The files of a benchmark below one root, and the samples that are made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from epalm.datasets.entries import Entry, csv_entries, json_entries
from epalm.datasets.generic import UniqueIds, build_sample
from epalm.datasets.listing import UNKNOWN, Listing, may_be, modality_of
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

_FOLDERS = ("", "annotations", "annotation", "questions")  # below the root, where annotation files may lie


@dataclass(frozen=True, slots=True)
class Part:
    """One annotation file or one folder of media. Of `names`, the first is the authors' own.

    `split` is what samples call it; empty where the part serves all. An `optional` file may be missing beside others
    of its split.
    """

    split: str
    what: str
    names: tuple[str, ...]
    optional: bool = False

    def files(self, root: Path) -> list[Path]:
        """The annotation files of any of the names that are below a root."""
        paths = (root / folder / name for name in self.names for folder in _FOLDERS)
        return [path for path in paths if path.is_file()]

    def folders(self, root: Path) -> list[str]:
        """The folders of any of the names that are below a root."""
        return [name for name in self.names if (root / name).is_dir()]


@dataclass
class Files:
    """The annotation files and folders of media of one form, and the samples that are made of them."""

    name: str  # of the benchmark
    modality: Modality
    annotations: tuple[Part, ...]
    folders: tuple[Part, ...]
    root: Path
    follow_links: bool = False
    notes: list[str] = field(default_factory=list)
    media: "MediaFolder | None" = None  # where media have been looked for by name
    _samples: list[Sample] = field(default_factory=list)
    _captions: dict[tuple[str, str], tuple[str, list[str]]] = field(default_factory=dict)
    _ids: UniqueIds = field(default_factory=UniqueIds)
    _folders: dict[str, str] = field(default_factory=dict)

    # ---- what is there

    def find(self, part: Part) -> Path | None:
        """The annotation file, under the first of its names that is there."""
        there = part.files(self.root)
        if len(there) > 1:
            names = ", ".join(path.relative_to(self.root).as_posix() for path in there)
            self.notes.append(f"of {names} the first is read")
        return there[0] if there else None

    def paths(self, what: str) -> Iterator[tuple[str, Path]]:
        """(split, file) of each split that has such a file."""
        for part in self.annotations:
            if part.what == what and (path := self.find(part)):
                yield part.split, path

    def json(self, what: str, *sections: str) -> Iterator[Entry]:
        """The entries of all such JSON files; see `json_entries`."""
        for split, path in self.paths(what):
            yield from json_entries(path, split, *sections)

    def csv(self, what: str, *columns: str) -> Iterator[Entry]:
        """The lines of all such CSV files; see `csv_entries`."""
        for split, path in self.paths(what):
            yield from csv_entries(path, split, *columns)

    def beside(self, what: str, split: str) -> Path | None:
        """The file that goes with one of the same split; None where the split has no such part.

        Raises:
            UsageError: it is missing.
        """
        for part in self.annotations:
            if part.what == what and part.split == split:
                if path := self.find(part):
                    return path
                raise UsageError(
                    f"{part.names[0]} is missing below {self.root}: the {what} of split {split!r}",
                    hint=f"epalm datasets {self.name} --root {self.root}",
                )
        return None

    def folder(self, split: str = "") -> str:
        """Where the media of a split lie: the first of the folders that is there, else the authors' own."""
        if split not in self._folders:
            part = next(part for part in self.folders if part.split in (split, ""))
            self._folders[split] = (*part.folders(self.root), part.names[0])[0]
        return self._folders[split]

    def locate(self, stems: Sequence[str], expected: str) -> str:
        """The path below the root of the media file that has the first of these stems, else the expected one."""
        if self.media is None:
            folders = [name for part in self.folders for name in part.folders(self.root)]
            self.media = MediaFolder(self.root, folders, self.modality, self.follow_links)
        return self.media.locate(stems, expected)

    # ---- samples

    def add_question(
        self,
        entry: Entry,
        name: str,
        media: str,
        prompt: str,
        answers: Mapping[str, float] | None,
        raw: Sequence[str] = (),
        types: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """A question called `name`; without `answers`, they are scored by how many of the `raw` ones agree."""
        sample = build_sample(name, self.modality, media, Task.QA, entry.split, prompt, answers, raw, types=types)
        try:
            self._ids.add(sample)
        except UsageError as error:
            raise entry.fault(error.message, error.hint) from None
        self._samples.append(sample)

    def add_labelled(self, entry: Entry, media: str, raw: Sequence[str] = ()) -> None:
        """A question in the form of LXMERT, VL-T5, VL-Adapter and the paper's authors: {"sent", "label", …}.

        The label is an answer, or answers with their soft scores, of which there may be none: then any prediction is
        wrong. Without a label, a question is not scored; without an id, it is called by its place in the file.
        """
        name = entry.name("question_id") if "question_id" in entry else f"{entry.file.stem}:{entry.number}"
        types = (entry.text_or_none("question_type"), entry.text_or_none("answer_type"))
        self.add_question(entry, name, media, entry.text("sent"), entry.label("label"), raw, types)

    def add_captions(
        self,
        entry: Entry,
        name: str,
        media: str,
        captions: Sequence[str] = (),
        *,
        split: str | None = None,
        whole: bool = False,
    ) -> None:
        """Captions of the medium called `name`: one sample with all that are added of it, or `whole` with these alone.

        Equal ones stay: what is published is scored against all of them.
        """
        split = split or entry.split
        if whole and (split, name) in self._captions:
            raise entry.fault(f"id {name!r} is used twice in split {split!r}")
        _, references = self._captions.setdefault((split, name), (media, []))
        references.extend(filter(None, captions))

    def samples(self) -> tuple[Sample, ...]:
        """What was added: questions, then captions, each in the order of the files."""
        captions = (
            build_sample(name, self.modality, media, Task.CAPTION, split, references=references)
            for (split, name), (media, references) in self._captions.items()
        )
        return (*self._samples, *captions)


class MediaFolder:
    """Media that are found by their stems, as what is published names clips and not files. Counts those not found.

    Of files with one stem, one whose extension stands for the modality goes before one that may be of it.
    """

    def __init__(self, root: Path, folders: Sequence[str], modality: Modality, follow_links: bool = False) -> None:
        self.absent: set[str] = set()
        self.count = 0  # files of the modality
        listing = Listing(root, folders, follow_links=follow_links)
        self.passed_over = listing.passed_over
        self._files: dict[str, list[str]] = {}
        own = {file: modality_of(PurePosixPath(file)) is modality for file in listing.files}
        for file in sorted(listing.files, key=lambda file: not own[file]):  # stable
            if own[file] or may_be(PurePosixPath(file), modality):
                self._files.setdefault(PurePosixPath(file).stem, []).append(file)
                self.count += 1
            else:
                self.passed_over[modality_of(PurePosixPath(file)) or UNKNOWN] += 1

    def locate(self, stems: Sequence[str], expected: str) -> str:
        """The path below the root of the first of the stems that has a file, else the expected one.

        Of several files, one in the expected folder goes first.
        """
        folder = f"{expected.rpartition('/')[0]}/"
        for stem in stems:
            if files := self._files.get(stem):
                return next((file for file in files if file.startswith(folder)), files[0])
        self.absent.add(expected)
        return expected
