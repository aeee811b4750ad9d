"""A Markdown page that takes a part between its lines `<!-- NAME -->` and `<!-- /NAME -->`."""

from pathlib import Path

from epalm.cli.bench.table import Table
from epalm.datasets.text_file import reading
from epalm.errors import UsageError


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


def replace_marked(path: Path, name: str, part: str) -> None:
    """Put `part` between the marks. Raises UsageError as `require_marks`."""
    before, after = require_marks(path, name)
    path.write_text(f"{before}\n\n{part}\n\n{after}", encoding="utf-8")


def markdown(table: Table) -> str:
    """The caption and the table."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    code = [[f"`{cells[0]}`" if cells[0].startswith("epalm") else cells[0], *cells[1:]] for cells in table.rows]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in [table.columns, rule, *code])
    return f"{table.caption}\n\n{lines}"
