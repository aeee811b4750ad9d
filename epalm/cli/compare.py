"""`epalm compare`: runs, or predictions that were scored, side by side on the same samples."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from epalm.cli.options import DEFAULT_RUNS, JsonOption, RunsOption
from epalm.cli.tables import Format, FormatOption, Record, show_listing


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Two or more runs that were scored, by name or folder, or files that `epalm score --predictions` "
            "wrote. The first is what the others are compared with.",
            show_default=False,
        ),
    ],
    *,
    split: Annotated[
        str | None, typer.Option(help="Scores of this split. [default: of the last scoring]", show_default=False)
    ] = None,
    examples: Annotated[int, typer.Option(help="Samples shown of those that changed most.", min=0)] = 3,
    runs: RunsOption = DEFAULT_RUNS,
    form: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Differences between scored runs, with 95 % intervals and p-values, and the samples that changed.

    Intervals: paired bootstrap over media, as samples of one are not independent. P-values: paired approximate
    randomisation over media, two-sided, for each comparison alone: several comparisons are not corrected for.

    Examples:

        epalm compare baseline my-run

        epalm compare baseline a b --split val --json

        epalm compare baseline a b --format csv > differences.csv

        epalm compare my-run theirs.scores.json
    """
    import pandas as pd

    from epalm.errors import UsageError
    from epalm.evaluate.comparing import compare as compare_scores
    from epalm.evaluate.score_files import read_scores

    if len(names) < 2:
        raise UsageError("a comparison needs two runs", hint="epalm compare RUN RUN")
    first, *others = (read_scores(name, runs, split) for name in names)
    compared = compare_scores(first, others, examples=examples)
    if as_json:
        typer.echo(json.dumps(compared))
        return
    rows = [
        {"run": one["other"], "task": task, **measure}
        for one in compared["comparisons"]
        for task, part in one["tasks"].items()
        for measure in part["measures"].values()
    ]
    title, empty = f"{compared['data']}, split {compared['split']}, values × 100", "no sample is scored in both"
    if form is not Format.TABLE:
        show_listing(pd.DataFrame(rows), form, title=title, cells=dict, empty=empty)
        return
    for one in compared["comparisons"]:
        frame = pd.DataFrame([row for row in rows if row["run"] == one["other"]])
        show_listing(frame, form, title=title, cells=lambda row: _cells(first.name, row), empty=empty)
        for task, part in one["tasks"].items():
            _show_changes(task, part)


def _cells(first: str, row: Record) -> dict[str, str]:
    from epalm.figures import hundred, interval_in_words, samples_in_words

    return {
        "metric": f"{row['task']}: {row['measure']}",
        first: hundred(row["first"]),
        # A run is compared with itself as well, and then there are two columns of that name.
        row["run"] + (" " if row["run"] == first else ""): hundred(row["other"]),
        "difference": hundred(row["difference"], "+.2f"),
        "95 % interval": interval_in_words(row, "+.2f"),
        "p": f"{row['p']:.4f}",
        "samples": samples_in_words(row),
    }


def _show_changes(task: str, part: Mapping[str, Any]) -> None:
    from epalm.console import say

    changed = part["changed"]
    if part["left_out"]:
        say(f"{task}: {part['left_out']} samples are not scored in both and are left out")
    if part["one_sided"]:
        say(f"{task}: only one of the two was scored by {', '.join(part['one_sided'])}: score both by the same metrics")
    text = f"{task}: {changed['texts']} of {part['samples']} predictions differ"
    if changed["by"]:
        text += f"; by {changed['by']}, {changed['better']} samples are better and {changed['worse']} worse"
    typer.echo(text)
    for one in changed["examples"]:
        question = f"{one['prompt']} " if one["prompt"] else ""
        typer.echo(
            f"  {one['id']} ({one['media']}): {question}{one['first']!r} ({100 * one['first_score']:.1f}) → "
            f"{one['other']!r} ({100 * one['other_score']:.1f})"
        )
