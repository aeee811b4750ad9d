"""The table that is made of a grid's trainings: what each row came to, over its seeds and samples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm import PLAYGROUND
from epalm.cli.bench.planning import Planned
from epalm.cli.bench.trainings import BenchRequest, Outcome, Training
from epalm.console import size_in_words
from epalm.datasets import short_name
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.grids import Grid, GridMeasure, Row

if TYPE_CHECKING:
    from epalm.evaluate.score_files import ScoreFile

_Record = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A grid as it came out: as a reader sees it, and one record for each row and modality."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    records: list[_Record]


def page_of(tables: Sequence[Table]) -> bytes:
    """The tables as one HTML file, with a graphic of each figure beside its row."""
    from epalm.evaluate.report.page import render, top_of_scale

    shown = []
    for table in tables:
        modalities = len({one["modality"] for one in table.records})  # each of a row's records is of another
        each: dict[int, list[dict[str, Any]]] = {}  # graphics by number of the row
        for number, one in enumerate(table.records):
            for name, figure in one["measured"].items():
                every = [other["measured"][name] for other in table.records if other["modality"] == one["modality"]]
                top = top_of_scale(name, max(other["high"] or other["value"] for other in every))
                chance, label = one["chance"].get(name), f"{one['modality']} {name}"
                graphic = {"figure": figure, "chance": chance, "top": top, "label": label}
                each.setdefault(number // modalities, []).append(graphic)
        shown.append({**vars(table), "scales": list(each.values())})
    return render("bench.html", {"title": " and ".join(table.name for table in tables), "tables": shown})


def make_table(grid: Grid, bench: BenchRequest, planned: Planned, outcomes: Mapping[Training, Outcome]) -> Table:
    """The table of a grid whose trainings are done. Raises UsageError: the scores of a run are damaged or gone."""
    modalities = list(dict.fromkeys(modality for _, modality in planned))
    rows = grid.every_row
    records = []
    for (number, modality), trainings in planned.items():
        base = [outcomes[one] for one in planned[0, modality]] if number else []
        records.append(_record(grid, rows[number], trainings, [outcomes[one] for one in trainings], base))
    each = [records[first : first + len(modalities)] for first in range(0, len(records), len(modalities))]
    names = [measure.heading or measure.name for measure in grid.measures]
    titles = [f"{modality} {name}" if len(modalities) > 1 else name for modality in modalities for name in names]
    cells = [_cells(grid, one, titles, _ranks(grid, each, one)) for one in each]
    columns = list(cells[0])
    if grid.chance:
        guessed = [hundred(value, ".1f") for one in each[0] for value in one["chance"].values()]
        cells.append({grid.first: "chance", **dict(zip(titles, guessed, strict=True))})
    return Table(
        grid.name,
        _caption(grid, bench, each, titles),
        columns,
        [[row.get(one, "") for one in columns] for row in cells],
        records,
    )


def _caption(grid: Grid, bench: BenchRequest, each: Sequence[Sequence[_Record]], titles: Sequence[str]) -> str:
    records = [record for row in each for record in row]
    # For each measured column its records, with the measure's name.
    columns = [[(row[place], one.name) for row in each] for place in range(len(each[0])) for one in grid.measures]
    samples = [samples_in_words(of[0][0]["measured"][of[0][1]]) for of in columns]
    steps = sorted({f"{record['steps']:,}" for record in records}, key=len)
    seeds = sorted({len(record["runs"]) for record in records})
    several = seeds[-1] > 1
    mean = f"mean of {' or '.join(map(str, seeds))} seeds " if several else ""
    over = f"with the 95 % interval over media{' and seeds' if several else ''}" if "intervals" in grid.columns else ""
    caption = (
        f"{grid.title}. Measured on {'the playground' if bench.data == PLAYGROUND else short_name(bench.data)} "
        f"({', '.join(dict.fromkeys(record['modality'] for record in records))}), split {bench.split}, "
        f"{' or '.join(steps)} steps each, {' '.join(filter(None, ['× 100', mean.strip(), over]))}; "
        f"samples: {', '.join(f'{title} {words}' for title, words in zip(titles, samples, strict=True))}."
    )
    shown = []
    for title, of in zip(titles, columns, strict=True):
        squares = [value**2 for record, name in of if (value := record["detectable"][name]) is not None]
        shown += [f"{title} {hundred(sqrt(sum(squares) / len(squares)), '.1f')}"] if squares else []
    if shown:
        caption += (
            " The smallest true difference from the first row that 80 of 100 such test sets would show (5 %, "
            f"two-sided): {', '.join(shown)}."
        )
    if grid.published:
        caption += f" Published for {grid.published}. Data and models differ: only the order of the rows compares."
    return caption


def _record(
    grid: Grid, row: Row, trainings: Sequence[Training], outcomes: Sequence[Outcome], base: Sequence[Outcome]
) -> _Record:
    """What a reader of the figures wants of a row's trainings, one of each seed; `base` has those of the first row."""
    first = outcomes[0]
    here = row.here or ""  # what the row comes to on the models at hand: as it says, or what it was carried over to
    if row.here is None and row.masks:
        here = trainings[0].extract.spec_augment
    elif row.here is None and row.inject:
        model = json.loads(trainings[0].decides)["model"]
        here = f"{model['tokens']}@{model['start']}:{model['end']}"
    measured, detectable = _measured(grid.measures, list(map(_scores, outcomes)), list(map(_scores, base)))
    return {
        "grid": grid.name,
        "row": row.label,
        "here": here,
        "modality": trainings[0].extract.modality.value,
        "runs": [one.trained["run"] for one in outcomes],
        **{key: first.trained[key] for key in ("steps", "trainable_parameters", "all_parameters")},
        "seconds": sum(one.trained["seconds"] for one in outcomes) / len(outcomes),
        "row_bytes": first.trained.get("row_bytes"),
        "measured": measured,
        "detectable": detectable,
        "published": {one.name: row.published.get(one.name) for one in grid.measures},
        "chance": {one.name: first.scores["tasks"][one.task]["chance"].get(one.name) for one in grid.measures},
    }


def _scores(outcome: Outcome) -> "ScoreFile":
    from epalm.evaluate.score_files import LAST, ScoreFile

    return ScoreFile(str(outcome.trained["run"]), Path(outcome.trained["run"]) / LAST, outcome.scores)


def _measured(
    measures: Sequence[GridMeasure], own: Sequence["ScoreFile"], base: Sequence["ScoreFile"]
) -> tuple[dict[str, Any], dict[str, float | None]]:
    """By the measure's name: its figure, over the seeds where there are several, and the detectable difference."""
    from epalm.evaluate.comparing import together
    from epalm.evaluate.metrics.bootstrap import detectable, figures
    from epalm.evaluate.metrics.metric import over_seeds

    measured: dict[str, Any] = {}
    shown: dict[str, float | None] = {}
    pairs = min(len(own), len(base))  # seeds of both rows
    for one in measures:
        measured[one.name] = own[0].figures["tasks"][one.task]["figures"][one.name]
        if len(own) > 1:
            runs, media = together(own, one.task)[1][one.name]
            # Another dictionary: rows may share the first training, and so its figures.
            measured[one.name] = measured[one.name] | figures({"": over_seeds(runs)}, media)[""]
        shown[one.name] = None
        if pairs:
            runs, media = together([*base[:pairs], *own[:pairs]], one.task)[1][one.name]
            shown[one.name] = detectable(over_seeds(runs[:pairs]), over_seeds(runs[pairs:]), media)
    return measured, shown


def _ranks(grid: Grid, each: Sequence[Sequence[_Record]], records: Sequence[_Record]) -> dict[str, str]:
    """A row's place by each measure among those with a published figure, here and as published, the best first."""
    ranks, own = {}, records[0]
    for measure in grid.measures:
        name = measure.name
        rated = [row[0] for row in each if row[0]["published"][name] is not None]
        if own in rated:
            here = sum(one["measured"][name]["value"] > own["measured"][name]["value"] for one in rated)
            there = sum(one["published"][name] > own["published"][name] for one in rated)
            ranks[measure.heading or name] = f"{here + 1} / {there + 1}"
    return ranks


def _cells(grid: Grid, records: Sequence[_Record], titles: Sequence[str], ranks: Mapping[str, str]) -> dict[str, str]:
    """A row by its headings, of its records in all modalities."""
    first, cells = records[0], {grid.first: str(records[0]["row"])}
    figures = [figure for one in records for figure in one["measured"].values()]
    values = [hundred(figure["value"], ".1f") for figure in figures]
    names = [measure.heading or measure.name for measure in grid.measures]
    for column in grid.columns:
        match column:
            case "here":
                cells["here"] = first["here"]
            case "parameters":
                cells["trained parameters"] = f"{first['trainable_parameters']:,}"
            case "share":
                cells["of all"] = f"{first['trainable_parameters'] / first['all_parameters']:.2%}"
            case "seconds":
                cells["training"] = f"{sum(one['seconds'] for one in records) / len(records):.0f} s"
            case "bytes":
                cells["features of a medium"] = " ".join(
                    "–" if one["row_bytes"] is None else size_in_words(one["row_bytes"]) for one in records
                )
            case "measures":
                cells |= zip(titles, values, strict=True)
            case "intervals":
                intervals = [interval_in_words(figure, ".1f").replace(" – ", "–") for figure in figures]
                cells |= {t: f"{v} ({i})" for t, v, i in zip(titles, values, intervals, strict=True)}
            case "published":
                shown = ["–" if value is None else f"{value:.2f}" for value in first["published"].values()]
                cells |= {f"{name}, published": value for name, value in zip(names, shown, strict=True)}
            case "ranks":
                cells |= {f"{name}, rank here / published": ranks.get(name, "–") for name in names}
    return cells
