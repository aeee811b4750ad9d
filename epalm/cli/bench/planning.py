"""The trainings that a grid asks for on the data at hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epalm import PLAYGROUND
from epalm.cli.bench.trainings import BenchRequest, Training
from epalm.errors import UsageError
from epalm.evaluate.metrics.registry import metric_names, metrics_for
from epalm.extract.encoders.registry import default_kind, encoder_names
from epalm.extract.request import ExtractRequest
from epalm.grids import PAPER_BANK, Grid, Row, carried_over, masks_of
from epalm.playground import weights_folder
from epalm.recipes.config import load_config
from epalm.recipes.settings import OPT_BLOCKS
from epalm.samples import Modality
from epalm.train.request import RecipeChanges, TrainRequest

Planned = dict[tuple[int, Modality], tuple[Training, ...]]  # by number of the row: one of each seed


def plan_grid(grid: Grid, bench: BenchRequest) -> Planned:
    """The trainings of a grid, in those of its modalities that are asked for; equal rows share one.

    Raises:
        UsageError: settings that cannot be, or that the rows vary; no such measure; a model or samples that cannot be
            found.
    """
    from epalm.train.lm.load import lm_depth

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
    for one in grid.measures:
        known = [each.name for each in metrics_for(one.task, metric_names()) if not each.other_form_of]
        if one.name not in known:
            fault = f"{grid.name} measures {one.name!r}, which is no metric of {one.task}"
            raise UsageError(fault, hint=f"use {', '.join(known)}")
    rows = grid.every_row
    varied = [setting for row in rows for setting in [*row.set, *row.playground, *row.settings()]]
    varied += ["model.tokens", "model.start", "model.end"] if any(row.inject for row in rows) else []
    varied += ["optim.seed"] if grid.seeds or any(row.seeds for row in rows) else []
    if fixed := _keys(varied) & _keys(overrides):
        raise UsageError(
            f"--set {', '.join(sorted(fixed))} is what {grid.name} varies", hint="leave it out, the rows choose it"
        )
    if bench.data != PLAYGROUND:
        _require_samples(grid, bench, modalities)
    weights = _weights_by_kind(bench.weights or [])
    blocks = {name: OPT_BLOCKS.get(name) or lm_depth(name) for name in {row.lm or config.lm.name for row in rows}}
    return {
        (number, modality): tuple(
            _training(grid, row, modality, seed, bench, weights, blocks[row.lm or config.lm.name])
            for seed in row.seeds or grid.seeds or (None,)
        )
        for number, row in enumerate(rows)
        for modality in modalities
    }


def _training(
    grid: Grid,
    row: Row,
    modality: Modality,
    seed: int | None,
    bench: BenchRequest,
    weights: Mapping[str, str],
    blocks: int,
) -> Training:
    from epalm.train.bridge.registry import bridges, with_bridge

    if row.tokens is None and row.bridge in bridges():  # what it reads: the cache may have been asked for others
        row = row.model_copy(update={"tokens": bridges()[row.bridge].reads[0]})
    kind, recipe = row.encoder or default_kind(modality), bench.recipe or PLAYGROUND
    extract = ExtractRequest(
        modality,
        bench.data,
        encoder=row.encoder,
        weights=weights.get(kind),
        frames=row.frames,
        views=row.views or 0,
        tokens=row.tokens,
        cache=bench.cache,
    )
    if row.masks:
        widths = masks_of(row.masks, _bank(bench, weights))
        extract = replace(extract, spec_augment="/".join(map(str, widths)))
    if bench.data != PLAYGROUND:  # whose recipe counts on no encoder
        settings = [f"encoder.kind={kind}"]
        settings += [f"encoder.frames={row.frames or 8}"] if modality is Modality.VIDEO else []
    else:
        settings = list(grid.playground)
    settings += [f"encoder.weights={json.dumps(weights[kind])}"] if kind in weights else []
    settings += [*row.set, *(row.playground if bench.data == PLAYGROUND else ()), *row.settings()]
    settings += [] if seed is None else [f"optim.seed={seed}"]
    if row.inject:
        placed = zip(("tokens", "start", "end"), carried_over(row.inject, blocks), strict=True)
        settings += [f"model.{key}={value}" for key, value in placed]
    settings += bench.settings or []
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
