"""What a benchmark is: the forms in which its authors publish it, and how the files of each become samples."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from epalm.console import warn
from epalm.datasets.entries import Entry, json_entries, read_rows
from epalm.datasets.generic import SampleList, build_sample
from epalm.datasets.listing import list_files, media_of, modality_of
from epalm.errors import UsageError
from epalm.samples import Dataset, Modality, Sample, Task

if TYPE_CHECKING:
    import pandas as pd

_ABOVE = ("", "annotations/", "annotation/", "questions/")  # below the root, where annotation files may lie
_Names = str | Sequence[str]  # the authors' own, and others; "{}" stands for a split
_Parts = Mapping[str, _Names | Mapping[str, _Names]]  # what it is → its names, or by split, "" for all
_Read = Callable[["Files"], None]


@dataclass(frozen=True, slots=True)
class Part:
    """An annotation file or a folder of media, of a split or "" for all. Of `names`, the first is the authors' own."""

    split: str
    what: str
    names: Sequence[str]
    folder: bool
    optional: bool  # may be missing beside others of its split

    def below(self, root: Path) -> list[str]:
        """Those of its names that are below a root, with the folder above them."""
        if self.folder:
            return [name for name in self.names if (root / name).is_dir()]
        return [above + name for name in self.names for above in _ABOVE if (root / above / name).is_file()]


@dataclass(frozen=True, slots=True)
class Form:
    """One of the ways in which a benchmark's annotations are published. `read` adds its samples to the `Files`."""

    name: str
    description: str
    parts: Sequence[Part]
    read: _Read

    def splits_below(self, root: Path) -> set[str]:
        """The splits whose annotation file of the first kind is there: without any, the form is not."""
        return {part.split for part in self.parts if part.what == self.parts[0].what and part.below(root)}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A published data set; `--data NAME:/root` reads the first of its forms that is there.

    `results` is what its evaluation takes predictions as: the keys of an id and of its text, and what an id is there.
    """

    name: str
    title: str
    source: str
    modality: Modality
    task: Task
    results: tuple[str, str, type[int | str]] | None = None
    forms: list[Form] = field(default_factory=list)

    def form(
        self,
        heading: str,
        files: _Parts,
        media: _Parts,
        splits: Sequence[str] | Mapping[str, str] = ("train", "val", "test"),
        optional: Collection[str] = (),
    ) -> Callable[[_Read], _Read]:
        """Adds a form, read by the function below it, with its annotation files and folders of media.

        `heading` is its name, and after a colon what it is. `splits` may say what the authors call each. What is
        `optional` may be missing beside others of its split.
        """
        name, _, description = heading.partition(": ")
        parts = [
            Part(split, what, [own] if isinstance(own, str) else own, kinds is media, what in optional)
            for kinds in (files, media)
            for what, names in kinds.items()
            for split, own in (names if isinstance(names, Mapping) else _by_split(names, splits)).items()
        ]

        def add(read: _Read) -> _Read:
            self.forms.append(Form(name, description, parts, read))
            return read

        return add

    def forms_named(self, form: str | None) -> list[Form]:
        """The form of that name, or all without one. Raises UsageError."""
        forms = [one for one in self.forms if form in (None, one.name)]
        if not forms:
            known = ", ".join(f"{self.name}/{one.name}" for one in self.forms)
            raise UsageError(f"{self.name} has no form {form!r}", hint=f"use {known}")
        return forms

    def read(self, root: Path, form: str | None, *, media_here: bool = True, follow_links: bool = False) -> Dataset:
        """The samples of the form of that name, or else of the first that has a file below `root`; all splits.

        Clips that are not there are counted in one line, unless `media_here` is false; they stay samples.

        Raises:
            UsageError: no such form or folder, no file of it, or one that is missing or cannot be used.
        """
        forms, hint = self.forms_named(form), f"epalm datasets {self.name} --root {root}"
        if not root.is_dir():
            raise UsageError(f"{root}, the data root of {self.name}, is not a folder", hint=hint)
        present = [one for one in forms if one.splits_below(root)]
        if not present:
            such = f"such as {forms[0].parts[0].names[0]}"
            raise UsageError(f"{root} holds no annotation file of {self.name}, {such}", hint=f"{hint} lists them")
        chosen, *rest = present
        if rest:
            others = " or ".join(f"{self.name}/{one.name}" for one in rest)
            warn(f"{root} has several forms of {self.name}; {chosen.name} is read. Others: --data {others}:{root}")
        splits = chosen.splits_below(root)
        for part in chosen.parts:
            if part.split in splits and not (part.folder or part.optional or part.below(root)):
                what = f"the {part.what} of split {part.split!r}"
                raise UsageError(f"{part.names[0]} is missing below {root}: {what}", hint=hint)
        files = Files(chosen, root, self.modality, follow_links)
        chosen.read(files)
        samples, absent = files.samples(), len(files.absent)
        if media_here and absent:
            media = len({sample.media for sample in samples})
            warn(
                f"data {self.name}:{root}: {absent:,} of {media:,} media are not there, such as {min(files.absent)}; "
                f"training goes on without them with --allow-missing {absent}"
            )
        return Dataset(f"{self.name}:{root}", root, samples, passed_over=dict(files.passed_over))

    def layout(self, root: Path | None = None, *, follow_links: bool = False) -> "pd.DataFrame":
        """The annotation files and folders of media of each form, and with a root what of them is there.

        Columns: form, split, what, expected (a path below the root), folder, needed; found (another such path), size
        (bytes of a file, media of a folder) and passed_over (other files in that folder, by reason).
        """
        import pandas as pd

        rows = []
        for name, part in ((form.name, part) for form in self.forms for part in form.parts):
            row: dict[str, Any] = {"form": name, "split": part.split, "what": part.what}
            row |= {"expected": part.names[0], "folder": part.folder, "needed": not part.optional}
            names = part.below(root) if root else []
            row |= {"found": names[0] if names else None, "size": 0, "passed_over": {}}
            if root and names and part.folder:
                files, passed_over = list_files(root, names[:1], follow_links=follow_links)
                media = media_of(files, self.modality, passed_over, either=True)
                row |= {"size": len(media), "passed_over": dict(passed_over)}
            elif root and names:
                row["size"] = (root / names[0]).stat().st_size
            rows.append(row)
        return pd.DataFrame(rows)


class Files:
    """The files of one form below a root, and the samples that are made of them."""

    def __init__(self, form: Form, root: Path, modality: Modality, follow_links: bool) -> None:
        self.form, self.root, self.modality, self.follow_links = form, root, modality, follow_links
        self.absent: set[str] = set()  # media that have been looked for by name
        self.passed_over = Counter[str]()  # files beside them
        self._by_stem: dict[str, list[str]] | None = None
        self._questions = SampleList()
        self._captions: dict[tuple[str, str], tuple[str, list[str]]] = {}
        self._folders = {part.split: (*part.below(root), part.names[0])[0] for part in form.parts if part.folder}

    def paths(self, what: str) -> Iterator[tuple[str, Path]]:
        """(split, file) of each split that has such an annotation file, under the first of its names that is there."""
        for part in self.form.parts:
            if part.what == what and (names := part.below(self.root)):
                yield part.split, self.root / names[0]

    def json(self, what: str, *sections: str) -> Iterator[Entry]:
        """The entries of all such JSON files; see `json_entries`."""
        for split, path in self.paths(what):
            yield from json_entries(path, split, *sections)

    def csv(self, what: str) -> Iterator[Entry]:
        """The rows of all such CSV files; see `read_rows`."""
        for split, path in self.paths(what):
            yield from read_rows(path, split)

    def folder(self, split: str = "") -> str:
        """Where the media of a split lie: the first of the folders that is there, else the authors' own."""
        return self._folders.get(split) or self._folders[""]

    def locate(self, stems: Sequence[str], expected: str) -> str:
        """The path below the root of the media file that has the first of these stems, else the expected one.

        Of several files, one in the expected folder goes first, then one whose extension stands for the modality.
        """
        if self._by_stem is None:
            folders = [name for part in self.form.parts if part.folder for name in part.below(self.root)]
            files, self.passed_over = list_files(self.root, folders, follow_links=self.follow_links)
            media = media_of(files, self.modality, self.passed_over, either=True)
            self._by_stem = {}
            for file in sorted(media, key=lambda file: modality_of(PurePosixPath(file)) is not self.modality):
                self._by_stem.setdefault(PurePosixPath(file).stem, []).append(file)
        folder = f"{expected.rpartition('/')[0]}/"
        for stem in stems:
            if named := self._by_stem.get(stem):
                return next((file for file in named if file.startswith(folder)), named[0])
        self.absent.add(expected)
        return expected

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
        if answers:
            answers = {answer.strip(): score for answer, score in answers.items() if answer.strip()}
        sample = build_sample(
            name, self.modality, media, Task.QA, entry.split, prompt.strip(), answers, raw, types=types
        )
        self._questions.add(sample, entry)

    def add_labelled(self, entry: Entry, media: str, raw: Sequence[str] = ()) -> None:
        """A question in the form of LXMERT, VL-T5, VL-Adapter and the paper's authors: {"sent", "label", …}.

        The label is an answer, or answers with their soft scores, of which there may be none: then any prediction is
        wrong. Without a label, a question is not scored; without an id, it is called by its place in the file.
        """
        name = entry.name("question_id") if "question_id" in entry else f"{entry.file.stem}:{entry.number}"
        types = (entry.text_or_none("question_type"), entry.text_or_none("answer_type"))
        self.add_question(entry, name, media, entry.text("sent"), entry.scores("label"), raw, types)

    def add_captions(
        self, entry: Entry, name: str, media: str, captions: Sequence[str] = (), split: str | None = None
    ) -> None:
        """Captions of the medium called `name`: one sample with all that are added of it, equal ones too."""
        _, references = self._captions.setdefault((split or entry.split, name), (media, []))
        references.extend(filter(None, map(str.strip, captions)))

    def samples(self) -> tuple[Sample, ...]:
        """What was added: questions, then captions, each in the order of the files."""
        captions = (
            build_sample(name, self.modality, media, Task.CAPTION, split, references=references)
            for (split, name), (media, references) in self._captions.items()
        )
        return (*self._questions.samples, *captions)


def _by_split(names: _Names, splits: Sequence[str] | Mapping[str, str]) -> dict[str, list[str]]:
    patterns = [names] if isinstance(names, str) else names
    if not any("{}" in pattern for pattern in patterns):
        return {"": list(patterns)}
    own = splits if isinstance(splits, Mapping) else {split: split for split in splits}
    return {split: [pattern.replace("{}", name) for pattern in patterns] for split, name in own.items()}
