"""`epalm report`: scored runs as one HTML file that opens from disk."""

import json
from pathlib import Path
from typing import Annotated

import typer

from epalm.cache.objects.durable import write_atomically
from epalm.cli.options import DEFAULT_RUNS
from epalm.cli.outputs import data_files, is_own, require_output
from epalm.console import size_in_words
from epalm.request_fields import Option

_NAME = "report.html"


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs that were scored, by name or folder, or files that `epalm score --predictions` wrote. With "
            "several, the first is what the others are compared with. [default: the latest run]",
        ),
    ] = None,
    *,
    split: Annotated[str | None, Option("Scores of this split. [default: of the last scoring]")] = None,
    samples: Annotated[
        int, Option("Samples shown with their media: worst, best, most changed and drawn ones.", minimum=0)
    ] = 200,
    data: Annotated[str | None, Option("Where the media are now. [default: the data that were scored]")] = None,
    follow_links: bool = False,
    out: Annotated[
        Path | None, Option("File to write. [default: report.html beside the scores]", writable=True)
    ] = None,
    force: bool = False,
    runs: Path = DEFAULT_RUNS,
    as_json: bool = False,
) -> None:
    """One HTML file: figures, curves, errors by type, and a gallery of what the model saw and predicted.

    It opens from disk and asks nothing of a network. Of two or more runs it shows the differences and the samples that
    changed as well. Media are small copies; up to 20,000 samples are listed, and the page's media take up to 64 MiB.
    The same scores and media give the same file.

    Examples:

        epalm report
        epalm report baseline my-run --out differences.html
        epalm report results.scores.json --samples 500
    """
    from epalm.evaluate.report.media import shown_media
    from epalm.evaluate.report.page import render_page
    from epalm.evaluate.report.samples import count_with_media, make_samples
    from epalm.evaluate.score_files import read_scores
    from epalm.extract.decoding.workers import default_workers
    from epalm.train.runs.run_folder import writing

    scored = [read_scores(name, runs, split) for name in (names or (None,))]
    first = scored[0]
    path = out or (first.run.path / _NAME if first.run else first.path.with_name(f"{first.name}.{_NAME}"))
    reads = [one.run.path if one.run else one.path for one in scored] + [one.lines for one in scored]
    require_output(
        path, [*reads, *data_files(data or str(first.figures["data"]))], ours=is_own(path, "report"), force=force
    )
    listed = make_samples(scored, samples)
    media = shown_media(first, listed, data, follow_links=follow_links, workers=default_workers())
    page = render_page(scored, listed, media)
    with writing(path.parent):
        write_atomically(path, page)
    shown = count_with_media(listed, media)
    if as_json:
        missing = sum("fault" in one for one in media.values())
        counts = {"samples": len(first.frame), "listed": len(listed.rows), "shown": shown, "media_missing": missing}
        typer.echo(json.dumps({"report": str(path), "bytes": len(page), **counts}))
    else:
        typer.echo(f"{path}: {size_in_words(len(page))}; {shown} of {len(first.frame):,} samples with their media")
