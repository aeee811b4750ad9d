"""What `epalm score` prints: each figure with its interval, and what was skipped and why."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from epalm.cli.tables import Record

SKIPPED = 3  # exit code: a metric that was asked for by name could not run


def show_scores(scores: dict[str, Any], path: Path, as_json: bool, *, asked_for: bool) -> None:
    """Print the scores. Raises typer.Exit where a metric that was asked for was skipped."""
    from epalm.console import say, warn

    if as_json:
        typer.echo(json.dumps(scores))
    elif not scores["tasks"]:
        say("no sample has answers or references: there are predictions, and nothing to score them against")
    else:
        _print(scores)
    if scores.get("samples_without_features"):
        warn(f"{scores['samples_without_features']} samples have no features and are not scored")
    for note in (note for figures in scores["tasks"].values() for note in figures["notes"]):
        say(note)
    skipped = [one for figures in scores["tasks"].values() for one in figures["skipped"]]
    for reason, hint in dict.fromkeys((one["reason"], one["hint"]) for one in skipped):
        names = ", ".join(one["metric"] for one in skipped if one["reason"] == reason)
        say(f"skipped: {names}: {reason}" + (f"\n  → {hint}" if hint else ""))
    say(f"scores {path}; predictions {scores['predictions']}")
    if skipped and asked_for:
        raise typer.Exit(SKIPPED)


def _print(scores: dict[str, Any]) -> None:
    import pandas as pd

    from epalm.cli.tables import Format, show_listing

    rows = []
    for task, part in scores["tasks"].items():
        for name, figure in part["figures"].items():
            rows.append({"metric": f"{task}: {name}", "figure": figure, "chance": part["chance"].get(name)})
        for kind, figure in part.get("by_answer_type", {}).items():  # question types are many: the file has them
            rows.append({"metric": f"  {figure['metric']}, {kind}", "figure": figure, "chance": None})
    show_listing(
        pd.DataFrame(rows, dtype=object),
        Format.TABLE,
        title=f"{scores['modality']}, split {scores['split']} of {scores['data']}, values × 100",
        cells=lambda row: _cells(scores["run"], row),
        empty="no metric was computed",
        notes=[
            f"95 % intervals: {words}" for words in dict.fromkeys(one["interval"] for one in scores["tasks"].values())
        ],
    )


def _cells(run: str, row: "Record") -> dict[str, str]:
    from epalm.figures import hundred, interval_in_words, samples_in_words

    figure = row["figure"]
    return {
        "metric": row["metric"],
        run: hundred(figure["value"]),
        "95 % interval": interval_in_words(figure),
        "chance": hundred(row["chance"]),
        "samples": samples_in_words(figure),
    }
