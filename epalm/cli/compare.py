"""`epalm compare`: runs, or predictions that were scored, side by side on the same samples."""

import json
from typing import Annotated, Any

import typer

from epalm.cli.options import DEFAULT_RUNS, JsonOption, RunsOption


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
    as_json: JsonOption = False,
) -> None:
    """Differences between scored runs, with 95 % intervals and p-values, and the samples that changed.

    Intervals: paired bootstrap over media, as samples of one are not independent. P-values: paired approximate
    randomisation over media, two-sided, for each comparison alone: several comparisons are not corrected for.

    Examples:

        epalm compare baseline my-run

        epalm compare baseline a b --split val --json

        epalm compare my-run theirs.scores.json
    """
    from epalm.errors import UsageError
    from epalm.evaluate.comparing import compare as compare_scores
    from epalm.evaluate.score_files import read_scores

    if len(names) < 2:
        raise UsageError("a comparison needs two runs", hint="epalm compare RUN RUN")
    first, *others = (read_scores(name, runs, split) for name in names)
    told = compare_scores(first, others, examples=examples)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for comparison in told["comparisons"]:
        _show(told, comparison)


def _show(told: dict[str, Any], comparison: dict[str, Any]) -> None:
    from epalm.console import print_table, say
    from epalm.figures import hundred, interval_in_words, samples_in_words

    rows = []
    for task, figures in comparison["tasks"].items():
        for name, one in figures["measures"].items():
            rows.append(
                (
                    f"{task}: {name}",
                    hundred(one["first"]),
                    hundred(one["other"]),
                    hundred(one["difference"], "+.2f"),
                    interval_in_words(one, "+.2f"),
                    f"{one['p']:.4f}",
                    samples_in_words(one),
                )
            )
    title = f"{told['data']}, split {told['split']}, values × 100"
    columns = ("measure", told["first"], comparison["other"], "difference", "95 % interval", "p", "samples")
    print_table(title, columns, rows)
    for task, figures in comparison["tasks"].items():
        if figures["left_out"]:
            say(f"{task}: {figures['left_out']} samples are not scored in both and are left out")
        if figures["one_sided"]:
            say(f"{task}: not both were scored by {', '.join(figures['one_sided'])}: epalm score does it anew")
        _show_changed(task, figures["changed"], figures["samples"])


def _show_changed(task: str, changed: dict[str, Any], samples: int) -> None:
    said = f"{task}: {changed['texts']} of {samples} predictions are other texts"
    if changed["by"]:
        said += f"; by {changed['by']}, {changed['better']} samples are better and {changed['worse']} worse"
    typer.echo(said)
    for one in changed["examples"]:
        asked = f"{one['prompt']} " if one["prompt"] else ""
        typer.echo(
            f"  {one['id']} ({one['media']}): {asked}{one['first']!r} ({100 * one['first_score']:.1f}) → "
            f"{one['other']!r} ({100 * one['other_score']:.1f})"
        )
