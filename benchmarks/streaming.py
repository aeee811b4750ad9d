"""An epoch by blocks of features that do not fit in memory, against reading the same files in sequence; its memory.

Rows are of 257 tokens of width 1,024, a ViT-L/14's of one layer. Before each round the files are dropped from the page
cache, so that the disk is read. The epoch is measured in a process whose memory is limited by an rlimit to half of the
rows' bytes; mapped pages do not count there, as they are the page cache's.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Line, compare
from benchmarks.timing import Timing
from benchmarks.worlds import random_rows
from epalm.cache.store import Cache

_BATCH = 16
_LEFT = 384 << 20  # bytes that a process may take beside what it has when the epoch begins


def run(root: Path, *, quick: bool) -> list[Line]:
    """10,000 media are 5.3 GB."""
    return measure(root, 400 if quick else 10_000, rounds=1 if quick else 7)


def measure(root: Path, media: int, rounds: int) -> list[Line]:
    """Of so many media."""
    features = random_rows(root / f"streaming-{media}", media)
    files = [path for one in features.records() if (path := features.objects.path(one.chunk))]
    size, read, epochs = sum(one.bytes for one in features.records()), [], []
    os.sync()  # what is not written yet cannot be dropped from the page cache
    for _ in range(rounds):
        _drop(files)
        started = time.perf_counter()
        _read(files)
        read.append(time.perf_counter() - started)
        _drop(files)
        words = [sys.executable, "-m", "benchmarks.streaming", str(root / f"streaming-{media}")]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        epochs.append(json.loads(done.stdout))
    note = f"{size / 2**20:,.0f} MiB, {size / 1e6 / np.median(read):,.0f} MB/s in sequence, batches of {_BATCH}"
    epoch = Timing("epoch", tuple(one["seconds"] for one in epochs))
    grown = [one["grown"] / size for one in epochs]
    more = f"anonymous memory grew by {max(one['grown'] for one in epochs) / 2**20:,.0f} MiB at most"
    return [
        compare("an epoch by blocks / reading in sequence", epoch, Timing("read", tuple(read)), note),
        Line("anonymous memory of that epoch / bytes of rows", float(np.median(grown)), *_range(grown), rounds, more),
    ]


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _drop(files: list[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _read(files: list[Path]) -> None:
    buffer = memoryview(bytearray(max(path.stat().st_size for path in files)))
    for path in files:
        with path.open("rb", buffering=0) as file:
            file.readinto(buffer)


def _anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10


def _epoch(root: Path) -> dict[str, float]:
    """Seconds of one epoch of batches, and the most that anonymous memory was above that of its beginning."""
    import psutil

    from epalm.datasets import load_dataset
    from epalm.samples import Modality
    from epalm.train.data.batches import Batches, training_items
    from epalm.train.data.features import CachedFeatures
    from epalm.train.data.text import load_text_format
    from epalm.train.lm.load import load_lm

    cache, dataset = Cache(root / "cache"), load_dataset(str(root / "samples.jsonl"), Modality.IMAGE)
    text = load_text_format("playground", load_lm("playground"))
    size = sum(one.bytes for one in cache.sets()[0].records())
    limit = psutil.Process().memory_info().data + min(_LEFT, size)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    features = CachedFeatures(cache, cache.set_names()[0], dataset, dataset.samples)
    if features.fits:
        raise RuntimeError("the rows fit into memory: more media are needed")
    items = training_items(dataset.samples)
    batches = Batches(items, text, features, layers=1, batch_size=_BATCH, seed=0, by_blocks=features, workers=2)
    before, most, started = _anonymous(), 0, time.perf_counter()
    for batch in batches.epoch(0):
        most = max(most, _anonymous())
        del batch
    return {"seconds": time.perf_counter() - started, "grown": max(0, most - before)}


if __name__ == "__main__":
    print(json.dumps(_epoch(Path(sys.argv[1]))))
