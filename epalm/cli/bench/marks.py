"""A Markdown file that takes a part between its lines `<!-- NAME -->` and `<!-- /NAME -->`."""

from collections.abc import Sequence
from pathlib import Path

from epalm.datasets.text_file import reading
from epalm.errors import UsageError
from epalm.train.runs.run_folder import writing


def require_marks(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the part, marks included.

    Raises:
        UsageError: the file cannot be read, or does not have the two marks once each, in their order.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    with reading(path):
        before, start, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (start and end) or first in after or last in before + after:
        raise UsageError(
            f"{path} does not have the lines {first} and {last} once each", hint="put them where the table belongs"
        )
    return before + first, last + after


def marked_among(path: Path, names: Sequence[str]) -> list[str]:
    """Those of the names whose part the file has. Raises UsageError: none, or as `require_marks`."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    marked = [name for name in names if f"<!-- {name} -->" in text or f"<!-- /{name} -->" in text]
    for name in marked or names[:1]:
        require_marks(path, name)
    return marked


def replace_marked(path: Path, name: str, part: str) -> None:
    """Put `part` between the marks. Raises UsageError as `require_marks`; EpalmError: it cannot be written."""
    before, after = require_marks(path, name)
    with writing(path.parent):
        path.write_text(f"{before}\n\n{part}\n\n{after}", encoding="utf-8")
