"""`epalm datasets`: the benchmarks that are known, the files that one expects, what is there and what is missing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epalm.cli.tables import Format, Listing, Record, records_of, show_listing, write_listing
from epalm.console import size_in_words
from epalm.errors import UsageError
from epalm.request_fields import Option
from epalm.samples import with_links

if TYPE_CHECKING:
    from epalm.datasets.benchmark import Benchmark


def datasets(
    name: Annotated[
        str | None, typer.Argument(help="A benchmark, or one of its forms. [default: list all]", show_default=False)
    ] = None,
    *,
    root: Annotated[Path | None, Option("Folder of its files: shows what is there and what is missing.")] = None,
    follow_links: bool = False,
    listing: Listing,
) -> None:
    """List the benchmarks that --data NAME:/root reads, or the files that one expects below its root.

    With --root, also which of them are there, and how many samples and media each split has; exit code 1 where they
    cannot be read. --format lists the benchmarks, or the files of one; --json has all in one object.

    Examples:

        epalm datasets
        epalm datasets vqa-v2
        epalm datasets audiocaps --root /data/audiocaps
    """
    from epalm.datasets import count_splits, load_dataset
    from epalm.datasets.benchmarks import benchmark, benchmarks

    if name is None:
        if root is not None:
            hint = "name it: epalm datasets vqa-v2 --root /data"
            raise UsageError("--root is the folder of one benchmark", hint=hint)
        facts = {one.name: _facts(one) for one in benchmarks().values()}
        columns = ["name", "title", "modality", "task", "forms"] if listing.form is Format.TABLE else None
        whole, title = facts if listing.as_json else None, "benchmarks: --data NAME:/root"
        show_listing([*facts.values()], listing.form, title=title, empty="none", columns=columns, as_json=whole)
        return
    title, _, form = name.partition("/")
    one = benchmark(title)
    forms = one.forms_named(form or None)
    if root is not None and not root.is_dir():
        raise UsageError(f"{root} is not a folder", hint=f"epalm datasets {name} lists what has to be in it")
    files = one.layout(root, follow_links=follow_links)
    files = files[files["form"].isin([each.name for each in forms])]
    if listing.form is not Format.TABLE and not listing.as_json:
        write_listing(files, listing.form)
        return
    if not listing.as_json:
        typer.echo(f"{one.title}\nfrom {one.source}")
        typer.echo(f"epalm extract -m {one.modality} --data {title}:{root or '/root'}")
        for each in forms:
            shown, heading = files[files["form"] == each.name], f"form {title}/{each.name}: {each.description}"
            show_listing(shown, listing.form, title=heading, cells=lambda file: _file_cells(file, root), empty="")
    spec, splits, fault = f"{name}:{root}", list[Record](), None
    if root is not None:
        try:
            counts = count_splits(load_dataset(with_links(spec, follow=follow_links), media_here=False))
            splits = records_of(counts)
            if not listing.as_json:
                heading = f"splits of --data {spec}"
                show_listing(counts, listing.form, title=heading, cells=_split_cells, empty="no samples")
        except UsageError as error:
            fault = error
    if listing.as_json:
        typer.echo(json.dumps({**_facts(one), "files": records_of(files), "splits": splits}))
    if fault:  # its hint may be this command, which has shown the files
        raise UsageError(fault.message, hint=None if "epalm datasets" in (fault.hint or "") else fault.hint) from fault


def _facts(one: "Benchmark") -> Record:
    facts = {"name": one.name, "title": one.title, "modality": one.modality.value, "task": one.task.value}
    return facts | {"forms": ", ".join(form.name for form in one.forms), "source": one.source}


def _file_cells(file: Record, root: Path | None) -> dict[str, str]:
    from epalm.datasets.listing import passed_over_in_words

    cells = {
        "below the root": f"{file['expected']}{'/' if file['folder'] else ''}",
        "split": "all" if file["split"] in ("", file["expected"]) else file["split"],
        "what": file["what"],
    }
    if root is None:
        return cells
    there = f"{file['size']:,} file{'s' * (file['size'] != 1)}" if file["folder"] else size_in_words(file["size"])
    if file["passed_over"]:
        there += f"; {passed_over_in_words(file['passed_over'])}"
    if file["found"] is None:
        there = "missing" if file["needed"] else "missing, not always needed"
    elif file["found"] != file["expected"]:
        there += f", as {file['found']}"
    return {**cells, "there": there}


def _split_cells(split: Record) -> dict[str, str]:
    counts = {"samples": split["samples"], "with answers or captions": split["with_answers"], "media": split["media"]}
    counts["missing"] = split["media"] - split["media_there"]
    return {"split": split["name"]} | {heading: f"{count:,}" for heading, count in counts.items()}
