"""`epalm compare`: runs, or predictions that were scored, side by side on the same samples."""

from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.options import DEFAULT_RUNS
from epalm.cli.tables import Format, Listing, Record, show_listing
from epalm.console import say
from epalm.errors import UsageError
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.request_fields import Option


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Two or more runs that were scored, by name or folder, or files that `epalm score --predictions` "
            "wrote. The first is what the others are compared with.",
        ),
    ],
    *,
    split: Annotated[str | None, Option("Scores of this split. [default: of the last scoring]")] = None,
    examples: Annotated[int, Option("Samples shown of those that changed most.", minimum=0)] = 3,
    runs: Path = DEFAULT_RUNS,
    listing: Listing,
) -> None:
    """Differences between scored runs, with 95 % intervals and p-values, and the samples that changed.

    Intervals: paired bootstrap over media, as samples of one are not independent. P-values: paired approximate
    randomisation over media, two-sided, for each comparison alone: several comparisons are not corrected for.
    Detectable: the smallest true difference that 80 of 100 such test sets would show (p < 0.05).

    Examples:

        epalm compare baseline my-run
        epalm compare baseline a b --split val --json
        epalm compare baseline a b --format csv > differences.csv
        epalm compare my-run theirs.scores.json
    """
    from epalm.evaluate.comparing import compare as compare_scores
    from epalm.evaluate.score_files import read_scores

    if len(names) < 2:
        raise UsageError("a comparison needs two runs", hint="epalm compare RUN RUN")
    first, *others = (read_scores(name, runs, split) for name in names)
    compared = compare_scores(first, others, examples=examples)
    parts = [(one["other"], task, part) for one in compared["comparisons"] for task, part in one["tasks"].items()]
    rows = [{"run": name, "task": task, **row} for name, task, part in parts for row in part["measures"].values()]
    title = f"{compared['data']}, split {compared['split']}, against {compared['first']}, values × 100"
    whole = compared if listing.as_json else None
    show_listing(rows, listing.form, title=title, cells=_cells, empty="no sample is scored in both", as_json=whole)
    for name, task, part in parts if listing.form is Format.TABLE else ():
        label, changed = f"{name}, {task}" if len(others) > 1 else task, part["changed"]
        if part["left_out"]:
            say(f"{label}: {part['left_out']} samples are not scored in both and are left out")
        if part["one_sided"]:
            say(f"{label}: only one of the two was scored by {', '.join(part['one_sided'])}: score both alike")
        text = f"{label}: {changed['texts']} of {part['samples']} predictions differ"
        if changed["by"]:
            text += f"; by {changed['by']}, {changed['better']} samples are better and {changed['worse']} worse"
        typer.echo(text)
        for one in changed["examples"]:
            texts = (f"{one[side]!r} ({100 * one[f'{side}_score']:.1f})" for side in ("first", "other"))
            question = f"{one['prompt']} " if one["prompt"] else ""
            typer.echo(f"  {one['id']} ({one['media']}): {question}{' → '.join(texts)}")


def _cells(row: Record) -> dict[str, str]:
    return {
        "metric": f"{row['task']}: {row['measure']}",
        "run": row["run"],
        "first": hundred(row["first"]),
        "other": hundred(row["other"]),
        "difference": hundred(row["difference"], "+.2f"),
        "95 % interval": interval_in_words(row, "+.2f"),
        "p": f"{row['p']:.4f}",
        "detectable": hundred(row["detectable"]),
        "samples": samples_in_words(row),
    }
