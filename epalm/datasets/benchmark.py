"""What a benchmark is: its files as their authors publish them, where they may lie, and how they become samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from epalm.console import warn
from epalm.datasets.entries import Entry
from epalm.datasets.extensions import may_be, modality_of
from epalm.datasets.listing import UNKNOWN, Listing
from epalm.datasets.sharing import Shared
from epalm.errors import UsageError
from epalm.samples import Modality, Sample, Task

FOLDERS = ("", "annotations", "annotation", "questions")  # below the root, where annotation files may lie


@dataclass(frozen=True, slots=True)
class Part:
    """One annotation file or one folder of media. Of `names`, the first is the authors' own.

    `split` is what samples call it; empty where the part serves all. An `optional` file may be lacking beside others
    of its split.
    """

    split: str
    what: str
    names: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """One of the ways in which a benchmark's annotations are published. `read` gives each sample with its entry."""

    name: str
    description: str
    files: tuple[Part, ...]
    media: tuple[Part, ...]
    read: "Callable[[Files], Iterator[tuple[Entry, Sample]]]"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published data set; `--data NAME:/root` reads the first of its forms that is there."""

    name: str
    title: str
    source: str
    modality: Modality
    task: Task
    splits: str  # which of the authors' splits is which, in words
    forms: tuple[Form, ...]

    def form(self, name: str) -> Form:
        """The form of that name. Raises UsageError."""
        for form in self.forms:
            if form.name == name:
                return form
        known = ", ".join(f"{self.name}/{form.name}" for form in self.forms)
        raise UsageError(f"{self.name} has no form {name!r}", hint=f"use {known}")


@dataclass
class Files:
    """The files of one form below one root."""

    benchmark: Benchmark
    form: Form
    root: Path
    follow_links: bool = False
    shared: Shared = field(default_factory=Shared)
    notes: list[str] = field(default_factory=list)
    media: "MediaFolder | None" = None
    _folders: dict[str, str] = field(default_factory=dict)

    def find(self, part: Part) -> Path | None:
        """The annotation file, under the first of its names that is there."""
        there = [path for path in candidates(self.root, part) if path.is_file()]
        if len(there) > 1:
            names = ", ".join(path.relative_to(self.root).as_posix() for path in there)
            self.notes.append(f"of {names} the first is read")
        return there[0] if there else None

    def read(self, what: str) -> Iterator[tuple[str, Path]]:
        """(split, file) of each split that has such a file."""
        for part in self.form.files:
            if part.what == what and (path := self.find(part)):
                yield part.split, path

    def beside(self, what: str, split: str) -> Path | None:
        """The file that goes with one of the same split; None where it need not be there.

        Raises:
            UsageError: it is missing.
        """
        for part in self.form.files:
            if part.what == what and part.split == split:
                path = self.find(part)
                if path is None and not part.optional:
                    raise UsageError(
                        f"{part.names[0]} is missing below {self.root}: the {what} of split {split!r}",
                        hint=f"epalm datasets {self.benchmark.name} --root {self.root}",
                    )
                return path
        return None

    def folder(self, split: str = "") -> str:
        """Where the media of a split lie: the first of the folders that is there, else the authors' own."""
        if split not in self._folders:
            part = next(part for part in self.form.media if part.split in (split, ""))
            there = [name for name in part.names if (self.root / name).is_dir()]
            self._folders[split] = there[0] if there else part.names[0]
        return self._folders[split]

    def in_folders(self) -> "MediaFolder":
        """The media files that are there, to be found by their stems."""
        if self.media is None:
            names = [name for part in self.form.media for name in part.names]
            self.media = MediaFolder(self.root, names, self.benchmark.modality, self.follow_links)
        return self.media


class MediaFolder:
    """Media that are found by their stems, as what is published names clips and not files. Counts those not found.

    Of files with one stem, one whose extension stands for the modality goes before one that may be of it.
    """

    def __init__(self, root: Path, folders: Sequence[str], modality: Modality, follow_links: bool = False) -> None:
        self.absent: set[str] = set()
        self.count = 0  # files of the modality
        listing = Listing(root, [name for name in folders if (root / name).is_dir()], follow_links=follow_links)
        self.passed_over = listing.passed_over
        self._files: dict[str, list[str]] = {}
        own = {file: modality_of(PurePosixPath(file)) is modality for file in listing.files}
        for file in sorted(listing.files, key=lambda file: not own[file]):  # stable
            if own[file] or may_be(PurePosixPath(file), modality):
                self._files.setdefault(PurePosixPath(file).stem, []).append(file)
                self.count += 1
            else:
                self.passed_over[modality_of(PurePosixPath(file)) or UNKNOWN] += 1

    def place(self, stems: Sequence[str], expected: str) -> str:
        """The path below the root of the first of the stems that has a file, else the expected one.

        Of several files, one in the expected folder goes first.
        """
        folder = f"{expected.rpartition('/')[0]}/"
        for stem in stems:
            if files := self._files.get(stem):
                return next((file for file in files if file.startswith(folder)), files[0])
        self.absent.add(expected)
        return expected


def candidates(root: Path, part: Part) -> list[Path]:
    """Where a file may lie, in order."""
    return [root / folder / name for name in part.names for folder in FOLDERS]


def choose_form(benchmark: Benchmark, root: Path, name: str | None) -> Form:
    """The form of that name, or else the first that has a file below `root`.

    Raises:
        UsageError: no such form, no such folder, or no file of it.
    """
    hint = f"epalm datasets {benchmark.name} --root {root}"
    if not root.is_dir():
        raise UsageError(f"{root}, the data root of {benchmark.name}, is not a folder", hint=hint)
    asked = [benchmark.form(name)] if name else list(benchmark.forms)
    there = [form for form in asked if _is_there(form, root)]
    if not there:
        first = asked[0].files[0].names[0]
        raise UsageError(
            f"{root} holds no annotation file of {benchmark.name}, such as {first}", hint=f"{hint} lists them"
        )
    if len(there) > 1:
        others = " or ".join(f"{benchmark.name}/{form.name}" for form in there[1:])
        warn(f"{root} has several forms of {benchmark.name}; {there[0].name} is read. Others: --data {others}:{root}")
    return there[0]


def _is_there(form: Form, root: Path) -> bool:
    """Whether one of the files is there that tell the form: those that are not optional, if there are such."""
    telling = [part for part in form.files if not part.optional] or form.files
    return any(path.is_file() for part in telling for path in candidates(root, part))
