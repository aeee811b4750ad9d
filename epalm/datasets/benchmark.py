"""What a benchmark is: the forms in which its authors publish it, and how each becomes samples."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.console import warn
from epalm.datasets.published import Files, MediaFolder, Part
from epalm.errors import UsageError
from epalm.samples import Modality, Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Form:
    """One of the ways in which a benchmark's annotations are published. `read` adds its samples to the `Files`."""

    name: str
    description: str
    files: tuple[Part, ...]
    media: tuple[Part, ...]
    read: Callable[[Files], None]

    def is_below(self, root: Path) -> bool:
        """Whether a file is there that tells the form: one that is not optional, if there are such."""
        telling = [part for part in self.files if not part.optional] or self.files
        return any(part.files(root) for part in telling)


def form(
    name: str,
    description: str,
    files: Mapping[str, Mapping[str, str | Sequence[str]]],
    media: Mapping[str, Mapping[str, str | Sequence[str]]],
    optional: Collection[str] = (),
) -> Callable[[Callable[[Files], None]], Form]:
    """Makes a form of the function that reads it. `files` and `media`: what it is → split → its name, or several."""

    def parts(of: Mapping[str, Mapping[str, str | Sequence[str]]]) -> tuple[Part, ...]:
        return tuple(
            Part(split, what, (names,) if isinstance(names, str) else tuple(names), what in optional)
            for what, by_split in of.items()
            for split, names in by_split.items()
        )

    return lambda read: Form(name, description, parts(files), parts(media), read)


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

    def read(self, root: Path, form: str | None, *, follow_links: bool = False) -> Files:
        """The files and samples of the form of that name, or else of the first that has a file below `root`.

        Raises:
            UsageError: no such form, no such folder, no file of it, or one that cannot be used.
        """
        hint = f"epalm datasets {self.name} --root {root}"
        if not root.is_dir():
            raise UsageError(f"{root}, the data root of {self.name}, is not a folder", hint=hint)
        asked = [self.form(form)] if form else self.forms
        there = [one for one in asked if one.is_below(root)]
        if not there:
            first = asked[0].files[0].names[0]
            raise UsageError(
                f"{root} holds no annotation file of {self.name}, such as {first}", hint=f"{hint} lists them"
            )
        if len(there) > 1:
            others = " or ".join(f"{self.name}/{one.name}" for one in there[1:])
            warn(f"{root} has several forms of {self.name}; {there[0].name} is read. Others: --data {others}:{root}")
        files = Files(self.name, self.modality, there[0].files, there[0].media, root, follow_links)
        there[0].read(files)
        return files

    def layout(self, root: Path | None = None, *, follow_links: bool = False) -> "pd.DataFrame":
        """The annotation files and folders of media of each form, and with a root what of them is there.

        Columns: form, split, what, expected (a path below the root), folder, needed; found (another such path), size
        (bytes of a file, media of a folder) and passed_over (other files in that folder, by reason).
        """
        import pandas as pd

        rows = []
        for form in self.forms:
            for part in (*form.files, *form.media):
                row: dict[str, Any] = {
                    "form": form.name,
                    "split": part.split,
                    "what": part.what,
                    "expected": part.names[0],
                }
                row |= {"folder": part in form.media, "needed": not part.optional}
                row |= {"found": None, "size": 0, "passed_over": {}}
                if root and part in form.media and (folders := part.folders(root)):
                    media = MediaFolder(root, folders[:1], self.modality, follow_links)
                    row |= {"found": folders[0], "size": media.count, "passed_over": dict(media.passed_over)}
                elif root and part in form.files and (files := part.files(root)):
                    row |= {"found": files[0].relative_to(root).as_posix(), "size": files[0].stat().st_size}
                rows.append(row)
        return pd.DataFrame(rows)
