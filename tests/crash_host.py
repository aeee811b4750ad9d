"""Runs small extractions in forked children, so that dozens of them can be killed in seconds: torch is imported once.

`python crash_host.py MEDIA CACHE PLAN`: PLAN is a JSON list; each entry is one run: {"after": seconds} is killed that
long after its start, {"step": n} kills itself at the n-th step of its commits, {} runs to its end. "cache" names a
cache beside CACHE to run in.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm.cache.store import Cache
from epalm.extract.pipeline import ExtractSummary, LocalEngine, extract_features
from epalm.extract.preprocess import ImageInput, Pixels
from epalm.samples import Dataset, Modality, Sample, Task

BLOCK_ROWS, BATCH, LAYERS = 8, 4, (0, 2)
STEPS = ("fsync", "link", "replace", "rename", "unlink", "mkdir", "write")


class Synthetic:
    """An encoder that starts at once, takes a moment, and notes in a file what it encodes."""

    kind, modality, depth, width = "synthetic", Modality.IMAGE, 3, 16
    device, precision = torch.device("cpu"), "float32"

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.input: Any = ImageInput(Pixels((8, 8), "nearest", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
        self._log, self._seconds = log, seconds

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": "fixed"}

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(self._seconds)
        if self._log:
            with self._log.open("a") as file:
                file.write(f"{len(batch)}\n")
        flat = batch.flatten(1)
        weights = np.random.default_rng(0).normal(size=(flat.shape[1], self.depth * self.width))
        tokens: torch.Tensor = (flat.double() @ torch.from_numpy(weights)).float()
        return tokens.unflatten(1, (self.depth, self.width))  # type: ignore[no-any-return]


def dataset(media: Path) -> Dataset:
    """Every file of a folder, in order of name."""
    names = sorted(path.name for path in media.iterdir())
    return Dataset("crash", media, tuple(Sample(n, Modality.IMAGE, n, Task.CAPTION, "test") for n in names))


def run(media: Path, cache: Path, *, log: Path | None = None, seconds: float = 0.0) -> ExtractSummary:
    """One extraction, decoding in this process."""
    encoder = Synthetic(log, seconds)
    engine = LocalEngine(encoder, BATCH, 0, BLOCK_ROWS)
    return extract_features(dataset(media), Modality.IMAGE, encoder, LAYERS, Cache(cache), engine=engine)


def _count_steps(stop_at: int | None) -> list[int]:
    """Count what touches the disk, before and after each call; at step `stop_at` the process kills itself."""
    steps = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **options: Any) -> Any:
            _step(steps, stop_at)
            result = call(*words, **options)
            _step(steps, stop_at)
            return result

        return counted

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))
    return steps


def _step(steps: list[int], stop_at: int | None) -> None:
    if steps[0] == stop_at:
        os.kill(os.getpid(), signal.SIGKILL)
    steps[0] += 1


def main() -> None:
    """See the module."""
    media, cache, plan = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    log = cache.with_suffix(".log")
    results = []
    for entry in plan:
        child = os.fork()
        if not child:
            torch.set_num_threads(1)
            steps = _count_steps(entry.get("step"))
            run(media, cache.with_name(entry.get("cache", cache.name)), log=log, seconds=entry.get("seconds", 0.0))
            cache.with_suffix(".steps").write_text(str(steps[0]))
            os._exit(0)
        if "after" in entry:
            time.sleep(entry["after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        results.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
