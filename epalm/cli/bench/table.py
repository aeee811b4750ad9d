"""The trainings that a grid asks for on the data at hand, the table that is made of them, and where it is written.

A Markdown file takes a table between its lines `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epalm.cli.bench.trainings import BenchRequest, Outcome, Training
from epalm.errors import EpalmError, UsageError
from epalm.extract.encoders.registry import default_kind, encoder_names
from epalm.extract.request import ExtractRequest
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.grids import PAPER_BANK, Grid, Row, carried_over, masks_of
from epalm.playground import weights_folder
from epalm.recipes.config import load_config
from epalm.recipes.settings import OPT_BLOCKS
from epalm.samples import Modality
from epalm.train.request import PLAYGROUND, RecipeChanges, TrainRequest

Planned = dict[tuple[int, Modality], Training]  # by number of the row
_Record = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A grid as it came out: as a reader sees it, and one record for each row and modality."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    records: list[_Record]

    def markdown(self) -> str:
        """The caption and the table."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        code = [[f"`{cells[0]}`" if cells[0].startswith("epalm") else cells[0], *cells[1:]] for cells in self.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in [self.columns, rule, *code])
        return f"{self.caption}\n\n{table}"


def plan_grid(grid: Grid, bench: BenchRequest) -> Planned:
    """The trainings of a grid, in those of its modalities that are asked for; equal rows share one.

    Raises:
        UsageError: settings that cannot be, or that the rows vary; a model or samples that cannot be found.
    """
    recipe, overrides = bench.recipe or PLAYGROUND, bench.settings or []
    modalities = [one for one in grid.modalities if one in (bench.modalities or Modality)]
    if not modalities:
        raise UsageError(f"{grid.name} is of {', '.join(grid.modalities)}", hint="leave --modality out")
    config = load_config(recipe, overrides)
    if other := [one.task for one in grid.measures if one.task not in config.data.tasks]:
        trains = " and ".join(config.data.tasks)
        raise UsageError(
            f"{grid.name} is of {other[0]}, and the recipe {recipe} trains {trains}", hint="choose another --recipe"
        )
    varied = [setting for row in grid.rows for setting in row.set]
    varied += ["model.tokens", "model.start", "model.end"] if any(row.inject for row in grid.rows) else []
    if fixed := _keys(varied) & _keys(overrides):
        raise UsageError(
            f"--set {', '.join(sorted(fixed))} is what {grid.name} varies", hint="leave it out, the rows choose it"
        )
    if bench.data != PLAYGROUND:
        _require_samples(grid, bench, modalities)
    weights, name = _weights_by_kind(bench.weights or []), config.lm.name
    blocks = OPT_BLOCKS.get(name) or _blocks(name)
    return {
        (number, modality): _training(grid, row, modality, bench, weights, blocks)
        for number, row in enumerate(grid.rows)
        for modality in modalities
    }


def make_table(grid: Grid, bench: BenchRequest, planned: Planned, outcomes: Mapping[Training, Outcome]) -> Table:
    """The table of a grid whose trainings are done."""
    modalities = list(dict.fromkeys(modality for _, modality in planned))
    records = [
        _record(grid, grid.rows[number], training, outcomes[training]) for (number, _), training in planned.items()
    ]
    each = [records[first : first + len(modalities)] for first in range(0, len(records), len(modalities))]
    names = [measure.heading or measure.name for measure in grid.measures]
    titles = [f"{modality} {name}" if len(modalities) > 1 else name for modality in modalities for name in names]
    rows = [_cells(grid, one, titles) for one in each]
    columns = list(rows[0])
    if grid.chance:
        guessed = [hundred(value, ".1f") for one in each[0] for value in one["chance"].values()]
        rows.append({grid.first: "chance", **dict(zip(titles, guessed, strict=True))})
    figures = [figure for one in each[0] for figure in one["measured"].values()]
    samples = [f"{title} {samples_in_words(figure)}" for title, figure in zip(titles, figures, strict=True)]
    steps = sorted({f"{record['steps']:,}" for record in records}, key=len)
    caption = (
        f"{grid.title}. Measured on {'the playground' if bench.data == PLAYGROUND else bench.data} "
        f"({', '.join(modalities)}), split {bench.split}, {' or '.join(steps)} steps each, × 100"
        f"{' with the 95 % interval over media' if 'intervals' in grid.columns else ''}; "
        f"samples: {', '.join(samples)}."
    )
    if grid.published:
        caption += f" Published for {grid.published}. Data and models differ: only the order of the rows compares."
    return Table(grid.name, caption, columns, [[row.get(one, "") for one in columns] for row in rows], records)


def _record(grid: Grid, row: Row, training: Training, outcome: Outcome) -> _Record:
    """What a reader of the figures wants of one training."""
    tasks = outcome.scores["tasks"]
    here = row.here or ""  # what the row comes to on the models at hand: as it says, or what it was carried over to
    if row.here is None and row.masks:
        here = training.extract.spec_augment
    elif row.here is None and row.inject:
        model = json.loads(training.decides)["model"]
        here = f"{model['tokens']}@{model['start']}:{model['end']}"
    kept = ("run", "steps", "seconds", "trainable_parameters", "all_parameters")
    return {
        "grid": grid.name,
        "row": row.label,
        "here": here,
        "modality": training.extract.modality.value,
        **{key: outcome.trained[key] for key in kept},
        "measured": {one.name: tasks[one.task]["figures"][one.name] for one in grid.measures},
        "published": {one.name: row.published.get(one.name) for one in grid.measures},
        "chance": {one.name: tasks[one.task]["chance"].get(one.name) for one in grid.measures},
    }


def _cells(grid: Grid, records: Sequence[_Record], titles: Sequence[str]) -> dict[str, str]:
    """A row by its headings, of its records in all modalities."""
    first, cells = records[0], {grid.first: str(records[0]["row"])}
    figures = [figure for one in records for figure in one["measured"].values()]
    values = [hundred(figure["value"], ".1f") for figure in figures]
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
            case "measures":
                cells |= zip(titles, values, strict=True)
            case "intervals":
                intervals = [interval_in_words(figure, ".1f").replace(" – ", "–") for figure in figures]
                cells |= {t: f"{v} ({i})" for t, v, i in zip(titles, values, intervals, strict=True)}
            case "published":
                shown = ["–" if value is None else f"{value:.2f}" for value in first["published"].values()]
                names = [measure.heading or measure.name for measure in grid.measures]
                cells |= {f"{name}, published": value for name, value in zip(names, shown, strict=True)}
    return cells


def _training(
    grid: Grid, row: Row, modality: Modality, bench: BenchRequest, weights: Mapping[str, str], blocks: int
) -> Training:
    kind, recipe = row.encoder or default_kind(modality), bench.recipe or PLAYGROUND
    extract = ExtractRequest(
        modality,
        bench.data,
        encoder=row.encoder,
        weights=weights.get(kind),
        frames=row.frames,
        views=row.views or 0,
        cache=bench.cache,
    )
    if row.masks:
        widths = masks_of(row.masks, _bank(bench, weights))
        extract = replace(extract, spec_augment="/".join(map(str, widths)))
    settings = []
    if bench.data != PLAYGROUND:  # whose recipe counts on no encoder
        settings = [f"encoder.kind={kind}"]
        settings += [f"encoder.frames={row.frames or 8}"] if modality is Modality.VIDEO else []
    elif grid.playground_steps:
        settings = [f"optim.max_steps={grid.playground_steps}"]
    settings += [f"encoder.weights={json.dumps(weights[kind])}"] if kind in weights else []
    settings += row.set
    if row.inject:
        placed = zip(("tokens", "start", "end"), carried_over(row.inject, blocks), strict=True)
        settings += [f"model.{key}={value}" for key, value in placed]
    settings += bench.settings or []
    from epalm.train.bridge.registry import with_bridge

    config = with_bridge(load_config(recipe, settings), blocks).resolved(blocks)
    decides = config.model_dump_json(exclude={"description": True, "checkpoint": True, "model": {"variant"}})
    request = TrainRequest(modality=modality, data=bench.data, recipe=recipe, changes=RecipeChanges(settings=settings))
    return Training(extract, request, decides, row.in_loop)


def _keys(settings: Sequence[str]) -> set[str]:
    return {setting.partition("=")[0].strip() for setting in settings}


def _weights_by_kind(words: Sequence[str]) -> dict[str, str]:
    weights = {}
    for word in words:
        kind, _, name = word.partition("=")
        if kind not in encoder_names() or not name:
            raise UsageError(
                f"--weights {word!r} is not of the form ENCODER=WEIGHTS",
                hint=f"--weights vit=models/vit; encoders are {', '.join(encoder_names())}",
            )
        weights[kind] = name
    return weights


def _require_samples(grid: Grid, bench: BenchRequest, modalities: Sequence[Modality]) -> None:
    from epalm.datasets import load_dataset
    from epalm.evaluate.scoring import is_expected

    for modality in modalities:
        dataset = load_dataset(bench.data, modality, write=False)
        for task in dict.fromkeys(measure.task for measure in grid.measures):
            splits = {sample.split for sample in dataset.samples if sample.task is task and is_expected(sample)}
            if bench.split not in splits:
                raise UsageError(
                    f"{grid.name} scores {modality} {task}, and data {bench.data!r} have none with answers or "
                    f"references in split {bench.split!r}; splits that have: {', '.join(sorted(splits)) or 'none'}",
                    hint="--split chooses another",
                )


def _bank(bench: BenchRequest, weights: Mapping[str, str]) -> tuple[int, int]:
    """Mel bins and time frames of the audio encoder."""
    from transformers import AutoConfig

    from epalm.weights import Source, load

    name = str(weights_folder("audio")) if bench.data == PLAYGROUND else weights.get(default_kind(Modality.AUDIO))
    if name is None:
        return PAPER_BANK

    def read() -> tuple[int, int]:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        return int(config.num_mel_bins), int(config.max_length)

    return load(Source(name, option="--weights"), "audio encoder", read)


def _blocks(name: str) -> int:
    """Of a language model. Raises UsageError."""
    from epalm.train.lm.load import lm_config, lm_source

    return int(lm_config(lm_source(name)).num_hidden_layers)


def require_marks(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the part, marks included.

    Raises:
        UsageError: the file cannot be read, or does not have the two marks once each, in their order.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        before, start, rest = path.read_text(encoding="utf-8").partition(first)
    except (OSError, ValueError) as error:
        hint = "--write takes a Markdown file that is there"
        raise UsageError(f"{path} cannot be read: {error}", hint=hint) from error
    _, end, after = rest.partition(last)
    if not (start and end) or first in after or last in before + after:
        raise UsageError(
            f"{path} does not have the lines {first} and {last} once each", hint="put them where the table belongs"
        )
    return before + first, last + after


def marked_among(path: Path, names: Sequence[str]) -> list[str]:
    """Those of the names whose part the file has. Raises UsageError: none, or as `require_marks`."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    marked = [name for name in names if f"<!-- {name} -->" in text or f"<!-- /{name} -->" in text]
    for name in marked or names[:1]:
        require_marks(path, name)
    return marked


def replace_marked(path: Path, name: str, part: str) -> None:
    """Put `part` between the marks. Raises UsageError as `require_marks`; EpalmError: it cannot be written."""
    before, after = require_marks(path, name)
    try:
        path.write_text(f"{before}\n\n{part}\n\n{after}", encoding="utf-8")
    except OSError as error:
        raise EpalmError(f"{path} cannot be written: {error}", hint="the table is printed as well") from error
