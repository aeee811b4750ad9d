"""The table of the method's variants on the playground: what each trains, how long, and what it reaches."""

from collections.abc import Mapping, Sequence
from typing import Any

from epalm.cli.ablation import Ablation, Made, make_cell
from epalm.cli.grid import Cell, Features, Outcome
from epalm.cli.recipe_options import PLAYGROUND
from epalm.samples import Modality, Task

BLIND, CHANCE = "blind", "chance"
_TASKS = {Task.QA: "QA", Task.CAPTION: "CIDEr"}


def variants(modalities: Sequence[Modality], overrides: Sequence[str]) -> Ablation:
    """Every variant and the blind one in each modality; those that the playground trains alike are one cell.

    Raises:
        UsageError: settings that cannot be.
    """
    from epalm.settings import FORMS, OPT_BLOCKS

    chosen = {name: f"model.variant={name}" for name in FORMS} | {BLIND: "model.blind=true"}
    cells = {
        (name, modality): make_cell(
            Features(modality), [choice, *overrides], recipe=PLAYGROUND, blocks=OPT_BLOCKS[PLAYGROUND]
        )
        for modality in modalities
        for name, choice in chosen.items()
    }

    def make(outcomes: Mapping[Cell, Outcome]) -> Made:
        done = {name: [outcomes[cells[name, modality]] for modality in modalities] for name in chosen}
        told = [_row(name, each) for name, each in done.items()] + [_chance(done[BLIND])]
        of = ", ".join(
            f"{modality} {title} {outcome.samples(task)}"
            for modality, outcome in zip(modalities, done[BLIND], strict=True)
            for task, title in _TASKS.items()
        )
        caption = f"Playground, test split; exact match and CIDEr × 100; samples: {of}."
        return Made(caption, _columns(modalities), [_words(row) for row in told], told)

    return Ablation("variants", list(cells.values()), make)


def _row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """One line of the table, over the modalities: seconds are their mean."""
    first = outcomes[0].trained
    return {
        "variant": name,
        "trainable_parameters": first["trainable_parameters"],
        "share": first["trainable_parameters"] / first["all_parameters"],
        "seconds": sum(outcome.trained["seconds"] for outcome in outcomes) / len(outcomes),
        "figures": {task: [outcome.figure(task) for outcome in outcomes] for task in _TASKS},
        "samples": {task: [outcome.samples(task) for outcome in outcomes] for task in _TASKS},
    }


def _chance(outcomes: list[Outcome]) -> dict[str, Any]:
    guessed = {task: [outcome.figure(task, "chance") for outcome in outcomes] for task in _TASKS}
    return {"variant": CHANCE, "figures": guessed}


def _columns(modalities: Sequence[Modality]) -> list[str]:
    measured = [f"{modality} {title}" for modality in modalities for title in _TASKS.values()]
    return ["variant", "trained parameters", "of all", "training", *measured]


def _words(row: dict[str, Any]) -> list[str]:
    cost = ["", "", ""]
    if "share" in row:
        cost = [f"{row['trainable_parameters']:,}", f"{row['share']:.2%}", f"{row['seconds']:.0f} s"]
    figures = [f"{100 * value:.1f}" for values in zip(*row["figures"].values(), strict=True) for value in values]
    return [row["variant"], *cost, *figures]
