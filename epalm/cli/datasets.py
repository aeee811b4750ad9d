"""`epalm datasets`: the benchmarks that are known, the files that one expects, what is there and what is missing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from epalm.cli.options import FollowLinksOption, JsonOption
from epalm.cli.tables import Format, FormatOption, Record, records_of, show_listing
from epalm.samples import with_links

_ALL = "[default: list all]"


class DatasetsCommand(TyperCommand):
    """The command, whose help names the benchmarks: those of installed packages too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it."""
        from epalm.datasets.benchmarks import benchmark_names

        argument: Any = self.params[0]
        argument.help = argument.help.replace(_ALL, f"There are {', '.join(benchmark_names())}. {_ALL}")
        super().format_help(ctx, formatter)


def datasets(
    name: Annotated[
        str | None, typer.Argument(help=f"A benchmark, or one of its forms. {_ALL}", show_default=False)
    ] = None,
    *,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of its files: shows what is there and what is missing.", show_default=False),
    ] = None,
    follow_links: FollowLinksOption = False,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """List the benchmarks that --data NAME:/root reads, or the files that one expects below its root.

    With --root, also which of them are there, and how many samples and media each split has. --format lists the
    benchmarks, or the files of one; --json has all in one object.

    Examples:

        epalm datasets

        epalm datasets vqa-v2

        epalm datasets audiocaps --root /data/audiocaps
    """
    from epalm.datasets import count_splits, load_dataset
    from epalm.datasets.benchmarks import benchmark
    from epalm.errors import UsageError

    if name is None:
        if root is not None:
            raise UsageError(
                "--root is the folder of one benchmark", hint="name it: epalm datasets vqa-v2 --root /data"
            )
        _show_all(form, as_json)
        return
    title, _, asked = name.partition("/")
    one = benchmark(title)
    if asked:
        one.form(asked)
    if root is not None and not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint=f"epalm datasets {name} lists what has to be in it")
    files = one.layout(root, follow_links=follow_links)
    files = files[files["form"] == asked] if asked else files
    facts = {"name": title, "title": one.title, "source": one.source, "splits_are": one.splits}
    facts |= {"modality": one.modality.value, "task": one.task.value}
    if not as_json and form is Format.TABLE:
        typer.echo(f"{one.title}\nfrom {one.source}\nsplits: {one.splits}")
        typer.echo(f"epalm extract -m {one.modality} --data {title}:{root or '/root'}")
        for each in one.forms:
            shown = files[files["form"] == each.name]
            if len(shown):
                heading = f"form {title}/{each.name}: {each.description}"
                show_listing(shown, form, title=heading, cells=lambda file: _file_cells(file, root), empty="")
    elif not as_json:
        show_listing(files, form, title="", cells=dict, empty="")
        return
    splits = []
    if root is not None:
        spec = f"{name}:{root}"
        counts = count_splits(load_dataset(with_links(spec, follow=follow_links), media_here=False))
        splits = records_of(counts)
        if not as_json:
            show_listing(counts, form, title=f"splits of --data {spec}", cells=_split_cells, empty="no samples")
    if as_json:
        typer.echo(json.dumps({**facts, "files": records_of(files), "splits": splits}))


def _show_all(form: Format, as_json: bool) -> None:
    import pandas as pd

    from epalm.datasets.benchmarks import benchmarks

    frame = pd.DataFrame(
        {
            "name": one.name,
            "title": one.title,
            "modality": one.modality.value,
            "task": one.task.value,
            "forms": ", ".join(each.name for each in one.forms),
            "source": one.source,
        }
        for one in benchmarks().values()
    )
    if as_json:
        typer.echo(json.dumps({one["name"]: one for one in records_of(frame)}))
        return
    show_listing(
        frame,
        form,
        title="benchmarks: --data NAME:/root",
        cells=lambda one: {"name": one["name"], "what": one["title"], "forms": one["forms"]},
        empty="none",
    )


def _file_cells(file: Record, root: Path | None) -> dict[str, str]:
    cells = {
        "below the root": f"{file['expected']}{'/' if file['folder'] else ''}",
        "split": "all" if file["split"] in ("", file["expected"]) else file["split"],
        "what": file["what"],
    }
    return cells if root is None else {**cells, "there": _there(file)}


def _there(file: Record) -> str:
    from epalm.console import size_in_words
    from epalm.datasets.listing import in_words

    if file["found"] is None:
        return "missing" if file["needed"] else "missing, not always needed"
    size = size_in_words(file["size"])
    if file["folder"]:
        size = f"{file['size']:,} file{'' if file['size'] == 1 else 's'}"
        size += f"; {in_words(file['passed_over'])}" if file["passed_over"] else ""
    return size if file["found"] == file["expected"] else f"{size}, as {file['found']}"


def _split_cells(split: Record) -> dict[str, str]:
    return {
        "split": split["name"],
        "samples": f"{split['samples']:,}",
        "with answers or captions": f"{split['with_answers']:,}",
        "media": f"{split['media']:,}",
        "missing": f"{split['media'] - split['media_there']:,}",
    }
