"""The training step: from the cache, against ready random tensors (the limit), against the encoder in the loop.

All three go through the very same batches, epoch after epoch; only where the features come from differs. The limit
gets its batches ready made, so what the cache costs includes drawing, padding and gathering them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks import training_gpu, training_memory, training_operations
from benchmarks.report import Line, compare
from benchmarks.timing import in_turns
from benchmarks.worlds import STEADY, World, extract_world, llama_125m, opt_125m, playground_world, world_batches
from epalm.cache.store import Cache
from epalm.extract.live import LiveFeatures
from epalm.recipes.config import Config, load_config
from epalm.samples import Modality
from epalm.train.bridge.build import build_model
from epalm.train.data.batches import Batch
from epalm.train.data.features import CachedFeatures, FeatureSource
from epalm.train.lm.load import load_lm
from epalm.train.loop import make_optimiser, take_step


def run(root: Path, *, quick: bool) -> list[Line]:
    """Every comparison: the playground's models, OPT-125M's and ViT-B/16's size, OPT-2.7B's proportions, GPUs."""
    lines = []
    for modality in Modality:
        world = playground_world(root, modality, 16 if quick else 256)
        config = load_config("playground")
        lines += _compare(f"playground, {modality}", root, world, config, load_lm("playground"), quick)
    if not quick:
        config = load_config("playground", ["model.tokens=6", "model.start=0", "model.end=11", "optim.batch_size=16"])
        world = playground_world(root, Modality.IMAGE, 32, real_size=True)
        lines += _compare("OPT-125M size, ViT-B/16", root, world, config, opt_125m(), quick)
        lines += _compare("Llama type of that size, ViT-B/16", root, world, config, llama_125m(), quick)
    lines += training_operations.run(root, quick=quick) + training_memory.run(quick=quick)
    return lines + training_gpu.run(quick=quick)


def _compare(title: str, root: Path, world: World, config: Config, lm: PreTrainedModel, quick: bool) -> list[Line]:
    steps, rounds = (2, 1) if quick else (1, 5) if lm.config.num_hidden_layers == 12 else (8, 9)
    config = config.resolved(lm.config.num_hidden_layers)
    cached, live = _sources(world, Cache(root / f"cache-{title}"))
    model = build_model(config, lm, cached.width).train()
    optimiser = make_optimiser(model, STEADY)

    def steps_on(batches: Iterator[Batch]) -> Callable[[], None]:
        def take() -> None:
            for batch in islice(batches, steps):
                take_step(model, optimiser, batch, STEADY)

        return take

    needed = steps * (rounds + 1)  # one round is unmeasured
    ready = [_random(batch) for batch in islice(_batches(world, config, cached), needed)]
    ways = {
        "ready tensors": steps_on(iter(ready)),
        "from cache": steps_on(_batches(world, config, cached)),
        "encoder in the loop": steps_on(_batches(world, config, live)),
    }
    times = in_turns(ways, rounds=rounds)

    def line(slower: str, faster: str) -> Line:
        each = " and ".join(f"{times[name].median / steps * 1e3:.0f}" for name in (slower, faster))
        note = f"{each} ms a step of {config.optim.batch_size}; steps a round: {steps}"
        return compare(f"{title}: {slower} / {faster}", times[slower], times[faster], note)

    return [line("from cache", "ready tensors"), line("encoder in the loop", "from cache")]


def _sources(world: World, cache: Cache) -> tuple[CachedFeatures, LiveFeatures]:
    """The last six layers' tokens of the same media: extracted into `cache`, and encoded when asked for."""
    layers = tuple(range(world.encoder.depth - 6, world.encoder.depth))
    summary = extract_world(world, layers, cache)
    cached = CachedFeatures(cache, summary.set_name, world.dataset, world.dataset.split("train"))
    return cached, LiveFeatures(world.encoder, layers, world.dataset)


def _batches(world: World, config: Config, source: FeatureSource) -> Iterator[Batch]:
    """Epoch after epoch without end."""
    batches = world_batches(world, config, source)
    for epoch in count():
        yield from batches.epoch(epoch)


def _random(batch: Batch) -> Batch:
    return replace(batch, features=torch.randn_like(batch.features, dtype=torch.float32))
