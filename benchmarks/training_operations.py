"""Steps that leave blocks out against the operations that this should save, on an LM of OPT-2.7B's proportions.

32 blocks of which 19 to 30 get tokens, narrow and with few words so that a CPU is enough; 512 wide, so that matrix
products take the time, as they do at full size. The figure is measured over predicted: 1 is all of the saving.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.report import Line
from benchmarks.timing import in_turns, ratio
from benchmarks.worlds import STEADY, World, extract_world, playground_world, world_batches
from epalm.cache.store import Cache
from epalm.recipes.config import Config, load_config
from epalm.samples import Modality
from epalm.train.bridge.build import build_model
from epalm.train.data.features import CachedFeatures
from epalm.train.loop import make_optimiser, take_step

_BATCH, _WORDS = 64, 2048  # the recipes' batch: products of few rows do not reach full speed
Step = Callable[[], None]


def run(root: Path, *, quick: bool) -> list[Line]:
    """`epalm-lin` against `epalm`."""
    width, steps, rounds = (32, 1, 1) if quick else (512, 1, 7)
    world, cache = playground_world(root, Modality.IMAGE, 16 if quick else 64), Cache(root / "cache-operations")
    layers = tuple(range(world.encoder.depth - 6, world.encoder.depth))
    summary = extract_world(world, layers, cache)
    features = CachedFeatures(cache, summary.set_name, world.dataset, world.dataset.split("train"))
    places = [f"optim.batch_size={_BATCH}", "model.tokens=6", "model.start=19", "model.end=31"]
    ways: dict[str, Step] = {}
    counted: dict[str, float] = {}
    for name in ("epalm", "epalm-lin"):
        config = load_config("playground", [*places, "model.prompt_length=10", f"model.variant={name}"])
        ways[name] = _step(config, _language_model(width), world, features, steps)
        with FlopCounterMode(display=False) as counter:
            ways[name]()
        counted[name] = counter.get_total_flops() / steps
    times = in_turns(ways, rounds=rounds)
    lines = []
    for name in list(ways)[1:]:
        predicted, found = counted[name] / counted["epalm"], ratio(times[name], times["epalm"])
        note = (
            f"predicted {predicted:.3f} ({counted[name] / 1e9:.1f} of {counted['epalm'] / 1e9:.1f} GFLOP a step of "
            f"{_BATCH}), measured {found[0]:.3f} ({times[name].median / steps * 1e3:.0f} of "
            f"{times['epalm'].median / steps * 1e3:.0f} ms)"
        )
        median, lowest, highest = (value / predicted for value in found)
        lines.append(Line(f"{name} / epalm, over predicted", median, lowest, highest, rounds, note))
    return lines


def _language_model(width: int) -> OPTForCausalLM:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=_WORDS,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=32,
        num_attention_heads=width // 32,
        ffn_dim=4 * width,
    )
    return OPTForCausalLM(config).eval()


def _step(config: Config, lm: OPTForCausalLM, world: World, features: CachedFeatures, steps: int) -> Step:
    """The same first batches of the first epoch, put together and learnt from."""
    config = config.resolved(lm.config.num_hidden_layers)
    batches = world_batches(world, config, features)
    model = build_model(config, lm, features.width).train()
    optimiser = make_optimiser(model, STEADY)

    def take() -> None:
        for batch in islice(batches.epoch(0), steps):
            take_step(model, optimiser, batch, STEADY)

    return take
