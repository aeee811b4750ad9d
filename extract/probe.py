"""How long an extraction may take, told from a few of its media. Writes nothing."""

import time
from collections.abc import Sequence

import numpy as np

from epalm.extract.decoding.workers import DecodePool, Request, default_workers
from epalm.extract.encoding import BatchEncoder
from epalm.extract.inputs.views import view_of
from epalm.extract.pipeline import LocalEngine
from epalm.extract.plan import Pending, Plan
from epalm.extract.stream import decode_pool

_PROBED = 64  # media
_WARM_UP = 8  # media that start the processes and wake the encoder
_LONGEST = 10.0  # seconds, after which neither begins another medium


def probe_seconds(plan: Plan, engine: LocalEngine) -> float:
    """Seconds that what is pending may take here: some media are decoded and encoded, and thrown away."""
    runs = list(plan.by_views())
    if not runs:
        return 0.0
    views, items = max(runs, key=lambda run: len(run[1]))
    some = items[:: max(1, len(items) // _PROBED)][:_PROBED]
    batches = BatchEncoder(engine.encoder, plan.spec.layers, "float32", engine.batch_size)
    workers = default_workers(gpu=batches.on_gpu) if engine.workers is None else engine.workers
    with decode_pool(engine.encoder, min(workers, len(some)), engine.timeout) as pool:
        _encode(some[:_WARM_UP], views, pool, batches)
        started = time.perf_counter()
        done = _encode(some, views, pool, batches)
        seconds = time.perf_counter() - started
    inputs = sum(len(item.views) for item in plan.pending)
    return seconds * inputs / (done * len(views))


def _encode(items: Sequence[Pending], views: tuple[int, ...], pool: DecodePool, batches: BatchEncoder) -> int:
    """Decode and encode; how many media that were before the time was over, one at least."""
    per_batch = batches.media_at_once(len(views))
    requests = (Request(item.file, tuple(view_of(item.digest, view, 0) for view in views)) for item in items)
    batch: list[np.ndarray] = []
    count, deadline = 0, time.perf_counter() + _LONGEST
    for done in pool.decode(requests, ahead=2 * per_batch):
        count += 1
        if isinstance(done.result, np.ndarray):
            batch.append(done.result)
        if len(batch) == per_batch:
            batches.collect(batches.submit(batch))
            batch = []
        if time.perf_counter() > deadline:
            break
    if batch:
        batches.collect(batches.submit(batch))
    return count
