"""The training step: from the cache, against ready random tensors (the limit), against the encoder in the loop.

All three go through the very same batches, epoch after epoch; only where the features come from differs. The limit
gets its batches ready made, so what the cache costs includes drawing, padding and gathering them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks import training_gpu, training_memory, training_operations
from benchmarks.report import Line, compare
from benchmarks.timing import in_turns
from benchmarks.worlds import (
    STEADY,
    World,
    extract_world,
    llama_125m,
    opt_125m,
    playground_world,
    random_rows,
    world_batches,
)
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.extract.live import LiveFeatures
from epalm.recipes.config import Config, load_config
from epalm.samples import Modality
from epalm.train.bridge.build import build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.bridge.registry import with_bridge
from epalm.train.data.batches import Batch, Batches, training_items
from epalm.train.data.features import CachedFeatures
from epalm.train.data.text import load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.loop import make_optimiser, take_step

_FEW = 16  # rows of many tokens in a batch


def run(root: Path, *, quick: bool) -> list[Line]:
    """Every comparison: the playground's models, OPT-125M's and ViT-B/16's size, OPT-2.7B's proportions, GPUs."""
    lines = []
    for modality in Modality:
        world = playground_world(root, modality, 16 if quick else 256)
        config = load_config("playground")
        lines += _compare(f"playground, {modality}", root, world, config, load_lm("playground"), quick)
    lines += _compare_many(root / "many", quick)
    if not quick:
        config = load_config("playground", ["model.tokens=6", "model.start=0", "model.end=11", "optim.batch_size=16"])
        world = playground_world(root, Modality.IMAGE, 32, real_size=True)
        lines += _compare("OPT-125M size, ViT-B/16", root, world, config, opt_125m(), quick)
        lines += _compare("Llama type of that size, ViT-B/16", root, world, config, llama_125m(), quick)
    lines += training_operations.run(root, quick=quick) + training_memory.run(quick=quick)
    return lines + training_gpu.run(quick=quick)


def _compare(title: str, root: Path, world: World, config: Config, lm: PreTrainedModel, quick: bool) -> list[Line]:
    """Of media of one token a layer."""
    steps, rounds = (2, 1) if quick else (1, 5) if lm.config.num_hidden_layers == 12 else (8, 9)
    config = config.resolved(lm.config.num_hidden_layers)
    cached, live = _sources(world, Cache(root / f"cache-{title}"))
    ways = {
        "from cache": _endless(world_batches(world, config, cached)),
        "encoder in the loop": _endless(world_batches(world, config, live)),
    }
    ready = islice(_endless(world_batches(world, config, cached)), steps * (rounds + 1))  # one round is unmeasured
    return _times(title, build_model(config, lm, cached.width), ready, ways, steps, rounds)


def _compare_many(root: Path, quick: bool) -> list[Line]:
    """Of 257 tokens, pooled by queries: in memory, and by blocks, as a set that does not fit there is read.

    Mapper and language model are small, as a step that computes much hides what the rows take.
    """
    media, steps, rounds = (64, 2, 1) if quick else (1_000, 4, 9)
    lm = load_lm("playground")
    blocks = lm.config.num_hidden_layers
    settings = ["model.bridge=qp-l0", "bridge.inner_width=96", f"optim.batch_size={_FEW}"]
    config = load_config("playground", settings)
    config = with_bridge(config, blocks).resolved(blocks)
    name, cache = random_rows(root, media).name, Cache(root / "cache")
    dataset = load_dataset(str(root / "samples.jsonl"), Modality.IMAGE)
    features = CachedFeatures(cache, name, dataset, dataset.samples)
    whole, by_blocks = (
        Batches(
            training_items(dataset.samples),
            load_text_format("playground", load_lm("playground")),
            features,
            layers=1,
            batch_size=_FEW,
            seed=0,
            by_blocks=source,
        )
        for source in (None, features)
    )
    ready = islice(_endless(whole), steps * (rounds + 1))
    ways = {"from cache": _endless(whole), "by blocks": _endless(by_blocks)}
    model = build_model(config, lm, features.width, layout=features.layout)
    return _times("257 tokens, small models", model, ready, ways, steps, rounds)


def _times(
    title: str, model: EpalmModel, ready: Iterable[Batch], ways: Mapping[str, Iterator[Batch]], steps: int, rounds: int
) -> list[Line]:
    """Each way against random tensors in place of the `ready` batches' features; the last against the first as well."""
    optimiser = make_optimiser(model.train(), STEADY)

    def steps_on(batches: Iterator[Batch]) -> Callable[[], None]:
        def take() -> None:
            for batch in islice(batches, steps):
                take_step(model, optimiser, batch, STEADY)

        return take

    tensors = iter([_random(batch) for batch in ready])
    times = in_turns({name: steps_on(one) for name, one in {"ready tensors": tensors, **ways}.items()}, rounds=rounds)

    def line(slower: str, faster: str) -> Line:
        each = " and ".join(f"{times[name].median / steps * 1e3:.0f}" for name in (slower, faster))
        note = f"{each} ms a step; steps a round: {steps}"
        return compare(f"{title}: {slower} / {faster}", times[slower], times[faster], note)

    first, last = ways
    return [line(first, "ready tensors"), line(last, first)]


def _sources(world: World, cache: Cache) -> tuple[CachedFeatures, LiveFeatures]:
    """The last six layers' tokens of the same media: extracted into `cache`, and encoded when asked for."""
    layers = tuple(range(world.encoder.depth - 6, world.encoder.depth))
    summary = extract_world(world, layers, cache)
    cached = CachedFeatures(cache, summary.set_name, world.dataset, world.dataset.split("train"))
    return cached, LiveFeatures(world.encoder, layers, world.dataset)


def _endless(batches: Batches) -> Iterator[Batch]:
    """Epoch after epoch."""
    for epoch in count():
        yield from batches.epoch(epoch)


def _random(batch: Batch) -> Batch:
    return replace(batch, features=torch.randn_like(batch.features, dtype=torch.float32))
