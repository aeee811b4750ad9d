"""Extraction into an empty cache, against decoding alone and encoding alone with as many processes."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Line, compare
from benchmarks.timing import Timing, in_turns
from benchmarks.worlds import World, extract_world, playground_world
from epalm.cache.store import Cache
from epalm.extract.decoding.workers import DecodePool, Request, default_workers
from epalm.extract.inputs.augment import VIEW_0
from epalm.media import MediaFile
from epalm.samples import Modality

_BATCH = 32
_MEDIA = {Modality.IMAGE: 800, Modality.VIDEO: 160, Modality.AUDIO: 320}


def run(root: Path, *, quick: bool) -> list[Line]:
    """One comparison per modality, with the playground's encoders."""
    lines = []
    for modality in Modality:
        world = playground_world(root, modality, 16 if quick else _MEDIA[modality])
        times = in_turns(_ways(world, root / f"extraction-{modality}"), rounds=1 if quick else 5)
        extract, decode, encode = times["extract"], times["decode"], times["encode"]
        both = Timing("both", tuple(a + b for a, b in zip(decode.seconds, encode.seconds, strict=True)))
        larger = Timing("larger", tuple(map(max, decode.seconds, encode.seconds)))
        media = len(world.dataset.media(modality))
        rates = ", ".join(f"{name} {media / timing.median:.0f}" for name, timing in times.items())
        note = f"media/s: {rates}; {media} media, decoding processes: {default_workers()}"
        lines.append(compare(f"{modality}: extract / (decode + encode)", extract, both, note))
        lines.append(compare(f"{modality}: extract / the larger of both", extract, larger, note))
    return lines


def _ways(world: World, caches: Path) -> dict[str, Callable[[], object]]:
    workers = default_workers()
    media = [MediaFile(world.dataset.root / name) for name in world.dataset.media(world.modality)]
    layers = tuple(range(world.encoder.depth))[-6:]
    raw = np.concatenate([world.encoder.input(medium) for medium in media])
    inputs = world.encoder.input.normalise(torch.from_numpy(raw))

    fresh = (Cache(caches / str(number)) for number in count())

    def extract() -> None:
        extract_world(world, layers, next(fresh), batch_size=_BATCH, workers=workers)

    def decode() -> None:
        requests = [Request(medium, (VIEW_0,)) for medium in media]
        with DecodePool(world.encoder.input, workers) as pool:
            for _ in pool.decode(requests, ahead=2 * _BATCH):
                pass

    def encode() -> None:
        for first in range(0, len(inputs), _BATCH):
            world.encoder.encode(inputs[first : first + _BATCH], layers, torch.float32)

    return {"extract": extract, "decode": decode, "encode": encode}
