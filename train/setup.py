"""A training with everything loaded: model and batches, what names the run, what it cannot reach. Writes nothing.

Whatever decides something about a training is decided here or before, for its plan and for the training itself.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm import __version__
from epalm.console import first_in_words
from epalm.errors import UsageError
from epalm.fingerprint import digest_json, digest_tensors
from epalm.recipes.config import Config
from epalm.samples import Sample, Task
from epalm.train.bridge.build import build_model
from epalm.train.bridge.mapl import find_padding
from epalm.train.bridge.model import EpalmModel
from epalm.train.bridge.registry import bridge_of, with_bridge
from epalm.train.data.batches import Batches, training_items
from epalm.train.data.features import CachedFeatures, FeatureSource, TrainableSource
from epalm.train.data.text import SHORTEST_ANSWER, TextFormat, load_text_format
from epalm.train.lm.load import lm_depth, load_lm, require_shardable, shard_lm
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.lm.profile import find_profile
from epalm.train.loop import Schedule
from epalm.train.material import Material
from epalm.train.runs.run_key import known_keys, library_versions, run_parts
from epalm.weights import pick_device

_FEW_STEPS = 300  # a connector that starts at random takes some hundred to be of use
_WITHOUT_HALVES = ("NO AVX", "AVX2")  # of PyTorch's names for what a CPU can do
_LOOKED_AT = 8  # samples whose tokens are looked at for padding
_NAMED = 3  # samples named in a message; the rest is counted


@dataclass(frozen=True)
class Setup:
    """A training with everything loaded and nothing written."""

    material: Material
    config: Config  # with everything filled in
    model: EpalmModel
    batches: Batches
    validation: Batches  # a random part of the samples
    device: torch.device
    warnings: tuple[str, ...]  # what the user should know before the first step
    inputs: dict[str, Any]  # what a run folder notes of it
    processes: Processes

    @property
    def schedule(self) -> Schedule:
        """How many steps it takes, and at which rates."""
        return Schedule(self.config.optim, len(self.batches))


def set_up(material: Material, *, processes: Processes = ALONE, device: str | None = None) -> Setup:
    """Load the language model and build everything around it; `device` [the request's] is this process's own.

    Raises UsageError: nothing to train on, features that do not fit, a language model that cannot be loaded.
    """
    config, dataset, features, request = material.config, material.dataset, material.features, material.request
    items = training_items(material.training)
    blocks = lm_depth(config.lm.name)
    with_bridge(config, blocks).resolved(blocks)  # its faults are known before weights are loaded
    if not items:
        tasks = " or ".join(config.data.tasks)
        fault = f"data {dataset.spec!r} has no samples for {tasks} with answers in split {config.data.train_split!r}"
        raise UsageError(fault, hint="--set data.train_split=NAME and --set 'data.tasks=[\"qa\"]' choose others")
    if features.layers < (tokens := config.model.tokens):
        fault = f"the recipe wants {tokens} layers' tokens and the features have {features.layers}"
        raise UsageError(fault, hint=f"epalm extract --layers last:{tokens}, or --set model.tokens={features.layers}")
    where = pick_device(device or request.device)
    if request.shard_lm:
        require_shardable(config, processes)
    empty = request.shard_lm and not processes.first
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized, empty=empty)
    text = load_text_format(config.lm.name, lm, config.text)
    profile = find_profile(lm)
    by_scale = profile.post_norm and profile.family != "opt"  # of OPT's, the paper's recipe has no norm
    config = with_bridge(config, blocks).resolved(blocks, "rms" if by_scale else "none")
    config = config.model_copy(update={"optim": config.optim.fitted(len(items)), "text": text.settings})
    weights = processes.from_first("" if empty else digest_tensors(lm.state_dict()))  # before anything is put into it
    encoder = features.encoder if config.encoder.train and isinstance(features, TrainableSource) else None
    model = build_model(config, lm, features.width, encoder, processes.from_first, features.layout)
    require_short([*material.training, *material.validation], text, positions := model.lm.text_positions)
    if config.optim.compiled:
        model.lm.compile_blocks()
    if config.optim.gradient_checkpointing:
        model.lm.checkpoint_blocks()
    if request.shard_lm:
        shard_lm(model.lm, where, processes)
    optim = config.optim
    parts = run_parts(
        config, features, material.training, material.validation, lm=weights, tokenizer=text.digest, device=where.type
    )
    by_blocks = features_by_blocks(config, features, parts, request.runs, processes)
    parts |= {"blocks": by_blocks.order_key} if by_blocks else {}
    order = config.data.model_copy(update={"shuffle": "blocks" if by_blocks else "full"})
    config = config.model_copy(update={"data": order})
    shared: dict[str, Any] = {"layers": config.model.tokens, "batch_size": optim.batch_size, "seed": optim.seed}
    shared |= {"loss_on": optim.loss_on, "processes": processes, "by_blocks": by_blocks}
    pinned_for = where if where.type == "cuda" else None
    batches = Batches(items, text, features, **shared, workers=request.workers, pinned_for=pinned_for)
    lengths = batches.texts.decoded_lengths()
    model.lm.require_sight(int(lengths[-1].max()))
    others = training_items(material.validation)
    chosen = np.random.default_rng(optim.seed).permutation(len(others))[: config.eval.val_samples]
    inputs = {
        "data": dataset.spec,
        "data_root": str(Path(dataset.root).resolve()),
        "recipe": material.recipe,
        "modality": material.modality.value,
        "features": features.describe(),
        "width": features.width,
        "layout": asdict(features.layout),
        "lm": weights,
        "epalm": __version__,
        "key": digest_json(parts),
        "parts": parts,
        "versions": library_versions(),
    }
    processes.require_same(digest_json([inputs["key"], inputs["versions"]]), "what is trained on")
    warnings = (
        *schedule_warnings(Schedule(optim, len(batches))),
        *dtype_warnings(config.lm.dtype, where),
        *length_warnings(*lengths, config.decode.max_length, positions),
        *order_warnings(features, blocks=by_blocks is not None),
        *padding_warnings(config, features, material.training[:_LOOKED_AT]),
    )
    validation = Batches([others[place] for place in chosen], text, features, **shared)
    return Setup(material, config, model, batches, validation, where, warnings, inputs, processes)


def features_by_blocks(
    config: Config, features: FeatureSource, parts: dict[str, Any], runs: Path, processes: Processes = ALONE
) -> CachedFeatures | None:
    """The features, where epochs go through them by blocks: as is set, else as the same training below `runs` does.

    So a training that goes on where there is more memory keeps its order. Where there is no such training, they go by
    blocks when the features do not fit in memory. Raises UsageError: they are not in the cache.
    """
    asked = config.data.shuffle
    if not isinstance(features, CachedFeatures):
        if asked == "blocks":
            raise UsageError("data.shuffle=blocks is for features of the cache", hint="add --from-cache")
        return None
    if asked is None:
        keys = known_keys(runs)
        full, blocks = (digest_json(one) in keys for one in (parts, parts | {"blocks": features.order_key}))
        asked = "blocks" if (blocks if full != blocks else not features.fits) else "full"
    return features if processes.from_first(asked) == "blocks" else None


def order_warnings(features: FeatureSource, *, blocks: bool) -> Iterator[str]:
    """Of features that do not fit in memory, where they are read by blocks for that."""
    if isinstance(features, CachedFeatures) and not features.fits and blocks:
        yield (
            "the features do not fit in memory: epochs go through them by blocks, in random order, and samples are "
            "shuffled among those that are read together (docs/training.md)"
        )


def padding_warnings(config: Config, features: FeatureSource, samples: Sequence[Sample]) -> Iterator[str]:
    """Of padding among these samples' tokens, where the bridge gives it positions in front too."""
    if not (bridge_of(config).in_front and isinstance(features, CachedFeatures)):
        return
    padding = find_padding(torch.from_numpy(features.gather(samples)))
    if padding.any():
        yield (
            f"{padding.float().mean():.0%} of the first {len(samples)} samples' tokens are padding, which bridge "
            f"{config.model.bridge} puts in front of the text too: mapl, qp-l0, qp-inner and cross-attention leave it "
            "out (docs/bridges.md)"
        )


def require_short(samples: Sequence[Sample], text: TextFormat, positions: int) -> None:
    """Raise UsageError when a question with one of its answers, or a caption, is longer than `positions` tokens."""
    too_long = []
    for sample in samples:
        given = len((sample.prompt or "").encode(errors="replace"))
        targets = [target.strip() for target in (*sample.answers, *sample.references)]
        # A token is a byte at least: few texts have to be tokenised to be sure.
        around = given + text.most_added
        targets = [target for target in targets if around + len(target.encode(errors="replace")) > positions]
        rows = text.targets([(sample.task is Task.QA, target) for target in targets])
        length = len(text.given(sample)) + max(map(len, rows)) + 1 if rows else 0
        if length > positions:
            too_long.append(f"{sample.id} ({length:,})")
    if too_long:
        raise UsageError(
            f"the language model has {positions:,} positions, and the texts of {len(too_long):,} samples have more "
            f"tokens: {first_in_words(too_long, _NAMED)}",
            hint="shorten them or take them out of the data",
        )


def schedule_warnings(schedule: Schedule) -> Iterator[str]:
    """Of a warm-up that does not end, and of too few steps; each with what to set."""
    steps, optim = schedule.steps, schedule.optim
    if optim.warmup_steps >= steps:
        yield (
            f"the warm-up takes {optim.warmup_steps:,} steps and the training {steps:,}: the connector's rate ends "
            f"at {schedule.rate(steps - 1):.1e} and never reaches its peak of {optim.peak_lr:.1e}; set "
            f"optim.warmup_steps={steps // 10}, or take --recipe own, which fits both to the data"
        )
    if steps < _FEW_STEPS:
        epochs = math.ceil(_FEW_STEPS / schedule.steps_per_epoch)
        longer = f"optim.epochs={epochs} or optim.min_steps={_FEW_STEPS}"
        if optim.max_steps is not None and optim.max_steps <= steps:
            longer = f"optim.max_steps={_FEW_STEPS}"
        yield f"{steps:,} steps are few for a connector that begins at random: set {longer} at least"


def dtype_warnings(dtype: str, device: torch.device) -> Iterator[str]:
    """Of a CPU without instructions for the products of a dtype."""
    if dtype != "float32" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _WITHOUT_HALVES:
        yield (
            f"this CPU has no instructions for {dtype}: a step takes about ten times as long as in float32; set "
            "lm.dtype=float32"
        )


def length_warnings(
    asked: np.ndarray, given: np.ndarray, whole: np.ndarray, max_length: int, positions: int
) -> Iterator[str]:
    """Of captions and answers that decoding would cut: how many of how many, and what would hold them.

    Of each (M,): whether it answers a question, how many tokens stand before it, and how many at its end.
    """
    cut = whole > np.maximum(max_length, given + SHORTEST_ANSWER)
    for name, kind in (("captions", ~asked), ("answers, with their questions,", asked)):
        if (cut & kind).any():
            longest = int(whole[cut & kind].max()) + 1  # its end
            yield (
                f"{(cut & kind).sum():,} of {kind.sum():,} training {name} are longer than decode.max_length, "
                f"{max_length} tokens, and would be cut there: set decode.max_length={min(longest, positions)}"
            )
