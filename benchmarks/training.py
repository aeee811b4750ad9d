"""The training step: from the cache, against ready random tensors (the limit), against the encoder in the loop.

All three take the very same token ids and shapes; only where the features come from differs.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks.report import Line
from benchmarks.timing import in_turns, ratio
from benchmarks.worlds import World, opt_125m, playground_world
from epalm.cache.store import Cache
from epalm.config import Config, load_config
from epalm.extract.live import LiveFeatures
from epalm.extract.pipeline import extract_features
from epalm.samples import Modality
from epalm.train.augmented_opt import AugmentedOPT
from epalm.train.batches import Batch, Batches, training_items
from epalm.train.build import build_model, load_lm, load_text_format
from epalm.train.features import CachedFeatures, FeatureSource
from epalm.train.loop import Plan, make_optimiser, take_step
from epalm.train.schedule import Schedule


def run(root: Path, *, quick: bool) -> list[Line]:
    """Every comparison, the playground's models first, then OPT-125M's and ViT-B/16's size."""
    lines = []
    for modality in Modality:
        world = playground_world(root, modality, 32 if quick else 256)
        config = load_config("playground")
        lines += _compare(f"playground, {modality}", root, world, config, load_lm("playground"), quick)
    if not quick:
        config = load_config("playground", ["model.tokens=6", "model.start=0", "model.end=11", "optim.batch_size=16"])
        world = playground_world(root, Modality.IMAGE, 32, real_size=True)
        lines += _compare("OPT-125M size, ViT-B/16", root, world, config, opt_125m(), quick)
    return lines


def _compare(title: str, root: Path, world: World, config: Config, lm: AugmentedOPT, quick: bool) -> list[Line]:
    steps, rounds = (2, 2) if quick or lm.config.num_hidden_layers == 12 else (16, 5)
    config = config.resolved(lm.config.num_hidden_layers)
    layers = tuple(range(world.encoder.depth - 6, world.encoder.depth))
    cache = Cache(root / f"cache-{title}")
    summary = extract_features(world.dataset, world.modality, world.encoder, layers, cache)
    samples = world.dataset.split("train")
    cached = CachedFeatures(cache.find(summary.set_name), cache, world.dataset, samples)
    live = LiveFeatures(world.encoder, layers, world.dataset.root)
    text = load_text_format("playground", load_lm("playground"))

    def batches(source: FeatureSource) -> Batches:
        size = config.optim.batch_size
        return Batches(training_items(samples), text, source, tokens=config.model.tokens, batch_size=size, seed=0)

    ready = [_random(batch) for batch in islice(batches(cached).epoch(0), steps)]
    model = build_model(config, lm, cached.width).train()
    plan = Plan(steps, Schedule(0, 0, 1e-5, 1e-5, 1), 1e-5, 0.02, 0.1, steps)
    optimiser = make_optimiser(model, plan)

    def steps_on(batches: Iterable[Batch]) -> None:
        for batch in islice(batches, steps):
            take_step(model, optimiser, batch, loss_scale=plan.loss_scale)

    ways = {
        "ready tensors": lambda: steps_on(ready),
        "from cache": lambda: steps_on(batches(cached).epoch(0)),
        "encoder in the loop": lambda: steps_on(batches(live).epoch(0)),
    }
    times = in_turns(ways, rounds=rounds)
    note = f"{times['from cache'].median / steps * 1e3:.0f} ms a step of {config.optim.batch_size}, {rounds} rounds"
    return [
        Line(f"{title}: from cache / ready tensors", *ratio(times["from cache"], times["ready tensors"]), note),
        Line(
            f"{title}: encoder in the loop / from cache",
            *ratio(times["encoder in the loop"], times["from cache"]),
            note,
        ),
    ]


def _random(batch: Batch) -> Batch:
    return replace(batch, features=torch.randn_like(batch.features, dtype=torch.float32))
