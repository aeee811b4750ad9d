"""One of the paper's tables on the data at hand: a cell for each row, and what came of them beside what was published.

Knows settings and commands' options, and what commands print; runs nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm.cli.grid import Cell, Features, Outcome
from epalm.cli.paper_tables import DEFAULT_FRAMES, VIEWS, Choice, PaperTable, Sizes
from epalm.cli.recipe_options import PLAYGROUND
from epalm.errors import UsageError
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.fingerprint import digest_json
from epalm.samples import Modality

if TYPE_CHECKING:
    from epalm.config import Config

PLAYGROUND_STEPS = 100  # a quarter of the recipe's: differences show, in a quarter of the time
ALL_METRICS = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")  # of every table: a training may be in several


@dataclass(frozen=True)
class Made:
    """A table as it came out: as a reader sees it, and as JSON has it."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    told: Any


@dataclass(frozen=True)
class Ablation:
    """Trainings to be done, and the table that is made of them."""

    name: str
    cells: Sequence[Cell]
    make: Callable[[Mapping[Cell, Outcome]], Made]


@dataclass(frozen=True)
class Place:
    """On what a table is measured; `weights` are those of an encoder, by its kind, where not the published ones."""

    data: str = PLAYGROUND
    recipe: str = PLAYGROUND
    overrides: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def playground(self) -> bool:
        """Whether it is the built-in world, with its own sizes and number of steps."""
        return self.data == PLAYGROUND


def make_cell(features: Features, overrides: Sequence[str], *, recipe: str, blocks: int, in_loop: bool = False) -> Cell:
    """The training of a recipe with overrides, for a language model of that many blocks; named by what decides it.

    Raises:
        UsageError: settings that cannot be.
    """
    from epalm.config import load_config

    config = load_config(recipe, overrides).resolved(blocks)
    decides = config.model_dump_json(exclude={"description": True, "checkpoint": True, "model": {"variant"}})
    name = digest_json([list(features.words), decides, in_loop])[:8]
    words = tuple(word for override in overrides for word in ("--set", override))
    return Cell(features, name, words, decides, in_loop)


def ablation(table: PaperTable, place: Place) -> Ablation:
    """The table's cells, one for each row that the models at hand tell apart, and how they become the table.

    Raises:
        UsageError: settings that cannot be, or that the table varies itself; a model that cannot be found.
    """
    from epalm.config import load_config

    config = load_config(place.recipe, place.overrides)
    if table.task not in config.data.tasks:
        raise UsageError(
            f"{table.name} is of {table.task}, and the recipe {place.recipe} trains {' and '.join(config.data.tasks)}",
            hint="choose another --recipe",
        )
    sizes = _sizes(table, place, config)
    choices = table.choices(sizes)
    varied = {key for choice in choices for key, _, _ in (one.partition("=") for one in choice.overrides)}
    if fixed := varied & {override.partition("=")[0].strip() for override in place.overrides}:
        raise UsageError(
            f"--set {', '.join(sorted(fixed))} is what {table.name} varies", hint="leave it out, the rows choose it"
        )
    cells = {choice: _cell(table, choice, place, sizes) for choice in choices}
    return Ablation(table.name, list(cells.values()), lambda outcomes: _made(table, place, cells, outcomes))


def require_samples(table: PaperTable, data: str, split: str) -> None:
    """That data hold what the table scores. Raises UsageError: they do not, or cannot be read."""
    from epalm.datasets import load_dataset
    from epalm.evaluate.scoring import is_expected

    dataset = load_dataset(data, table.modality, write=False)
    of_task = [sample for sample in dataset.samples if sample.task is table.task and is_expected(sample)]
    if not any(sample.split == split for sample in of_task):
        there = ", ".join(sorted({sample.split for sample in of_task})) or "none"
        raise UsageError(
            f"{table.name} scores {table.modality} {table.task}, and data {data!r} have none with answers or "
            f"references in split {split!r}; splits that have: {there}",
            hint="--split chooses another",
        )


def _sizes(table: PaperTable, place: Place, config: "Config") -> Sizes:
    from epalm.extract.encoders.registry import default_kind
    from epalm.playground import weights_folder
    from epalm.settings import OPT_BLOCKS

    lm = config.lm.name
    blocks = OPT_BLOCKS.get(lm) or _config_of(lm, "language model", "lm.name", "num_hidden_layers")[0]
    weights = str(weights_folder("audio")) if place.playground else place.weights.get(default_kind(Modality.AUDIO))
    if table.modality is not Modality.AUDIO or weights is None:
        return Sizes(blocks)
    bins, frames = _config_of(weights, "audio encoder", "--weights", "num_mel_bins", "max_length")
    return Sizes(blocks, (bins, frames))


def _config_of(name: str, what: str, option: str, *keys: str) -> list[int]:
    """These entries of a model's configuration, from a folder or the Hub. Raises UsageError."""
    path = Path(name) / "config.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _from_hub(name, what, option)
        return [int(told[key]) for key in keys]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{option} {name!r} is no {what} of a known form: {error!r}") from error


def _from_hub(name: str, what: str, option: str) -> dict[str, Any]:
    from transformers import AutoConfig

    from epalm.weights import Source, load

    source = Source(name, option=option)
    told: dict[str, Any] = load(
        source, what, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    )
    return told


def _cell(table: PaperTable, choice: Choice, place: Place, sizes: Sizes) -> Cell:
    from epalm.extract.encoders.registry import default_kind

    kind = choice.encoder or default_kind(table.modality)
    words: list[str] = ["--encoder", choice.encoder] if choice.encoder else []
    words += ["--frames", str(choice.frames)] if choice.frames != DEFAULT_FRAMES else []
    if choice.masks:
        words += ["--views", str(VIEWS), "--spec-augment", "/".join(map(str, choice.masks))]
    shorter = [f"optim.max_steps={PLAYGROUND_STEPS}"] if place.playground else []
    encoder = []
    if not place.playground:  # whose recipe counts on no encoder
        encoder = [f"encoder.kind={kind}"]
        encoder += [f"encoder.frames={choice.frames}"] if table.modality is Modality.VIDEO else []
    if kind in place.weights:
        words += ["--weights", place.weights[kind]]
        encoder += [f"encoder.weights={json.dumps(place.weights[kind])}"]
    return make_cell(
        Features(table.modality, tuple(words)),
        [*shorter, *encoder, *choice.overrides, *place.overrides],
        recipe=place.recipe,
        blocks=sizes.blocks,
        in_loop=choice.in_loop,
    )


def _made(table: PaperTable, place: Place, cells: Mapping[Choice, Cell], outcomes: Mapping[Cell, Outcome]) -> Made:
    done = {choice: outcomes[cell] for choice, cell in cells.items()}
    told = [_row(table, choice, outcome) for choice, outcome in done.items()]
    columns = [table.first, "here", *table.measures, *(f"{name}, published" for name in table.measures)]
    rows = [
        [
            row["choice"],
            row["here"],
            *(_with_interval(row["measured"][name]) for name in table.measures),
            *("–" if value is None else f"{value:.2f}" for value in row["published"].values()),
        ]
        for row in told
    ]
    steps = sorted({outcome.trained["steps"] for outcome in done.values()})
    where = "the playground" if place.playground else place.data
    of = dict.fromkeys(samples_in_words(figure) for row in told for figure in row["measured"].values())
    split = next(iter(done.values())).scores["split"]
    caption = (
        f"{table.title}. Measured on {where} ({table.modality}), split {split}, {' or '.join(of)} samples, "
        f"{' to '.join(f'{n:,}' for n in steps)} steps each, × 100 with the 95 % interval over media; published for "
        f"{table.published}. Data and models differ: only the order of the rows compares."
    )
    return Made(caption, columns, rows, {"table": table.name, "data": place.data, "caption": caption, "rows": told})


def _row(table: PaperTable, choice: Choice, outcome: Outcome) -> dict[str, Any]:
    figures = outcome.scores["tasks"][table.task]["figures"]
    return {
        "choice": choice.label,
        "here": choice.here,
        "run": outcome.trained["run"],
        "steps": outcome.trained["steps"],
        "seconds": outcome.trained["seconds"],
        "trainable_parameters": outcome.trained["trainable_parameters"],
        "measured": {name: figures[name] for name in table.measures},
        "published": dict(zip(table.measures, choice.published, strict=True)),  # × 100
    }


def _with_interval(figure: Mapping[str, Any]) -> str:
    return f"{hundred(figure['value'], '.1f')} ({interval_in_words(figure, '.1f').replace(' – ', '–')})"
