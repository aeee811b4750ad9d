"""What `epalm score` prints: each figure with its interval, and what was skipped and why."""

import json
from pathlib import Path
from typing import Any

import typer

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
    from epalm.console import print_table, say
    from epalm.figures import hundred, interval_in_words, samples_in_words

    rows = []
    for task, told in scores["tasks"].items():
        named = [(f"{task}: {name}", figure, told["chance"].get(name)) for name, figure in told["figures"].items()]
        # Question types are many: the file has them.
        named += [(f"  {part['metric']}, {kind}", part, None) for kind, part in told.get("by_answer_type", {}).items()]
        rows += [
            (name, hundred(one["value"]), interval_in_words(one), hundred(guess), samples_in_words(one))
            for name, one, guess in named
        ]
    title = f"{scores['modality']}, split {scores['split']} of {scores['data']}, values × 100"
    print_table(title, ("measure", scores["run"], "95 % interval", "chance", "samples"), rows)
    for interval in dict.fromkeys(told["interval"] for told in scores["tasks"].values()):
        say(f"95 % intervals: {interval}")
