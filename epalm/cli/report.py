"""`epalm report`: scored runs as one HTML file that opens from disk."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epalm.cli.options import DEFAULT_RUNS, FollowLinksOption, JsonOption, RunsOption
from epalm.cli.outputs import ForceOption, data_files, is_report, require_output
from epalm.samples import with_links

if TYPE_CHECKING:
    from epalm.evaluate.report.rows import Rows
    from epalm.evaluate.report.scored_runs import ScoredRun

_NAME = "report.html"


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs that were scored, by name or folder, or files that `epalm score --predictions` wrote. With "
            "several, the first is what the others are compared with. [default: the latest run]",
            show_default=False,
        ),
    ] = None,
    *,
    split: Annotated[
        str | None, typer.Option(help="Scores of this split. [default: of the last scoring]", show_default=False)
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Samples shown with their media: worst, best, most changed and drawn ones.", min=0)
    ] = 200,
    data: Annotated[
        str | None,
        typer.Option(help="Where the media are now. [default: the data that were scored]", show_default=False),
    ] = None,
    follow_links: FollowLinksOption = False,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. [default: report.html beside the scores]", writable=True, show_default=False),
    ] = None,
    force: ForceOption = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """One HTML file: figures, curves, errors by type, and a gallery of what the model saw and said.

    It opens from disk and asks nothing of a network. Of two or more runs it shows the differences and the samples that
    changed as well. Media are small copies; up to 20,000 samples are listed, and the page's media take up to 64 MiB.
    The same scores and media give the same file.

    Examples:

        epalm report

        epalm report baseline my-run --out differences.html

        epalm report results.scores.json --samples 500 --open
    """
    from epalm.cache.objects.durable import write_atomically
    from epalm.console import say, size_in_words
    from epalm.evaluate.report.page import render_page
    from epalm.evaluate.report.rows import make_rows
    from epalm.evaluate.report.scored_runs import read_run
    from epalm.train.runs.run_folder import writing

    scored = [read_run(name, runs, split) for name in (names or (None,))]
    path = out or _place(scored[0])
    reads = [run.folder or run.files.path for run in scored] + [run.files.lines for run in scored]
    require_output(path, [*reads, *data_files(data or str(scored[0].told["data"]))], ours=is_report, force=force)
    rows = make_rows(scored, samples)
    media = _media(scored[0], rows, data, follow_links=follow_links)
    page = render_page(scored, rows, media)
    with writing(path.parent):
        write_atomically(path, page)
    told = {
        "report": str(path),
        "bytes": len(page),
        "samples": rows.of,
        "listed": len(rows.rows),
        "shown": sum(row["shown"] for row in rows.rows),
        "media_missing": sum("fault" in one for one in media.values()),
    }
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{path}: {size_in_words(len(page))}; {told['shown']} of {rows.of:,} samples with their media")
    if open_page:
        say("opening it in the browser")
        typer.launch(path.absolute().as_uri())


def _place(run: "ScoredRun") -> Path:
    """In the run's folder; beside scores of predictions from elsewhere, under their name."""
    return run.folder / _NAME if run.folder else run.files.path.with_name(f"{run.name}.{_NAME}")


def _media(first: "ScoredRun", rows: "Rows", data: str | None, *, follow_links: bool) -> dict[str, dict[str, Any]]:
    """What is shown of each medium; where the data cannot be read, why, but for `data` that was asked for."""
    from epalm.cli.media_previews import previews_of
    from epalm.console import warn
    from epalm.datasets import load_dataset
    from epalm.errors import EpalmError
    from epalm.extract.decoding.workers import default_workers
    from epalm.samples import Modality

    names = list(dict.fromkeys(row["media"] for row in rows.rows if row["shown"]))
    if not names:
        return {}
    told = str(first.told.get("modality", ""))
    modality = Modality(told) if told in list(Modality) else None
    try:
        spec = with_links(data or str(first.told["data"]), follow=follow_links)
        dataset = load_dataset(spec, modality, write=False)
    except EpalmError as error:
        if data is not None:
            raise
        warn(f"the media are not shown: {error.message}; --data says where they are")
        return {name: {"fault": error.message} for name in names}
    kinds = {sample.media: sample.modality for sample in dataset.samples}
    wanted = {name: kinds[name] for name in names if name in kinds}
    gone = {name: {"fault": "the data do not have it any more"} for name in names if name not in kinds}
    shown = {**gone, **previews_of(dataset, wanted, workers=default_workers())}
    faults = [one["fault"] for one in shown.values() if "fault" in one]
    if faults:
        warn(f"{len(faults)} of {len(names)} media are not shown, each with its reason; the first: {faults[0]}")
    return shown
