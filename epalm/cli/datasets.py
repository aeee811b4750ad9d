"""`epalm datasets`: the benchmarks that are known, the files that one expects, what is there and what is missing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.options import FollowLinksOption, JsonOption
from epalm.samples import with_links

if TYPE_CHECKING:
    from epalm.datasets.benchmark import Benchmark
    from epalm.datasets.layout import Place, Split


def datasets(
    name: Annotated[
        str | None, typer.Argument(help="A benchmark, or one of its forms. [default: list all]", show_default=False)
    ] = None,
    *,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of its files: says what is there and what is missing.", show_default=False),
    ] = None,
    follow_links: FollowLinksOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the benchmarks that --data NAME:/root reads, or say which files one expects below its root.

    With --root, also which of them are there, and how many samples and media each split has.

    Examples:

        epalm datasets

        epalm datasets vqa-v2

        epalm datasets audiocaps --root /data/audiocaps
    """
    from epalm.datasets import load_dataset
    from epalm.datasets.benchmarks import BENCHMARKS
    from epalm.datasets.layout import places, splits
    from epalm.errors import UsageError

    if name is None:
        if root is not None:
            raise UsageError(
                "--root is the folder of one benchmark", hint="name it: epalm datasets vqa-v2 --root /data"
            )
        _show_all(BENCHMARKS.values(), as_json)
        return
    title, _, form = name.partition("/")
    if title not in BENCHMARKS:
        raise UsageError(f"there is no benchmark {title!r}", hint=f"use one of: {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[title]
    if form:
        benchmark.form(form)
    layout = [place for place in places(benchmark, root, follow_links=follow_links) if form in ("", place.form)]
    if root is not None and not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint=f"epalm datasets {name} says what has to be in it")
    if not as_json:
        _show_layout(benchmark, layout, root)
    counted = []
    if root is not None:
        counted = splits(load_dataset(with_links(f"{name}:{root}", follow=follow_links), media_here=False))
    if as_json:
        told = {"name": title, "title": benchmark.title, "source": benchmark.source, "splits_are": benchmark.splits}
        told |= {"modality": benchmark.modality.value, "task": benchmark.task.value}
        files = [place.to_json() for place in layout]
        typer.echo(json.dumps({**told, "files": files, "splits": [split.to_json() for split in counted]}))
    elif root is not None:
        _show_splits(name, root, counted)


def _show_all(benchmarks: "Iterable[Benchmark]", as_json: bool) -> None:
    from epalm.console import print_table

    if as_json:
        typer.echo(json.dumps({one.name: {"title": one.title, "source": one.source} for one in benchmarks}))
        return
    rows = [(one.name, one.title, ", ".join(form.name for form in one.forms)) for one in benchmarks]
    print_table("benchmarks: --data NAME:/root", ("name", "what", "forms"), rows)


def _show_layout(benchmark: "Benchmark", layout: "list[Place]", root: Path | None) -> None:
    from epalm.console import print_table

    typer.echo(f"{benchmark.title}\nfrom {benchmark.source}\nsplits: {benchmark.splits}")
    typer.echo(f"epalm extract -m {benchmark.modality} --data {benchmark.name}:{root or '/root'}")
    columns = ("below the root", "split", "what") if root is None else ("below the root", "split", "what", "there")
    for form in benchmark.forms:
        rows = [
            (f"{place.expected}{'/' if place.folder else ''}", _of(place), place.what, *_there(place, root))
            for place in layout
            if place.form == form.name
        ]
        if rows:
            print_table(f"form {benchmark.name}/{form.name}: {form.description}", columns, rows)


def _of(place: "Place") -> str:
    return "all" if place.split in ("", place.expected) else place.split


def _there(place: "Place", root: Path | None) -> tuple[str, ...]:
    from epalm.console import size_in_words
    from epalm.datasets.listing import in_words

    if root is None:
        return ()
    if place.found is None:
        return ("missing" if place.needed else "missing, not always needed",)
    files = f"{place.size:,} file{'' if place.size == 1 else 's'}"
    if place.passed_over:
        files += f"; {in_words(place.passed_over)}"
    size = files if place.folder else size_in_words(place.size)
    return (f"{size}{'' if place.found == place.expected else f', as {place.found}'}",)


def _show_splits(name: str, root: Path, counted: "list[Split]") -> None:
    from epalm.console import print_table

    rows = [
        (one.name, f"{one.samples:,}", f"{one.with_answers:,}", f"{one.media:,}", f"{one.media - one.media_there:,}")
        for one in counted
    ]
    print_table(
        f"splits of --data {name}:{root}", ("split", "samples", "with answers or captions", "media", "missing"), rows
    )
