"""Runs small extractions in forked children, so that dozens of them can be killed in seconds: torch is imported once.

`python crash_host.py MEDIA CACHE PLAN`: PLAN is a JSON list; each entry is one run: {"after": seconds} is killed that
long after its start, {"step": n} kills itself at the n-th step of its commits, {} runs to its end. "cache" names a
cache beside CACHE to run in, "views" how many augmented ones are asked for, "backwards" turns the order of the media.
{"together": [entry, ...]} starts several at the same moment. What each did goes to CACHE.runs, a JSON line each.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epalm.cache.store import Cache
from epalm.cache.token_rules import TokenLayout
from epalm.extract.inputs.preprocess import ImageInput, Pixels
from epalm.extract.pipeline import ExtractSummary
from epalm.samples import Dataset, Modality, Sample, Task
from tests.extractions import Machine, extract_features

BLOCK_ROWS, BATCH, LAYERS = 8, 4, (0, 2)
STEPS = ("fsync", "link", "replace", "rename", "unlink", "mkdir", "write")


class Synthetic:
    """An encoder of three tokens a layer that starts at once, takes a moment, and notes in a file what it encodes."""

    kind, modality, depth, width = "synthetic", Modality.IMAGE, 3, 8
    device, precision, layout = torch.device("cpu"), "float32", TokenLayout(True, (2,))

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.input: Any = ImageInput(Pixels((8, 8), "nearest", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
        self._log, self._seconds = log, seconds

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": "fixed", "tokens": "all", "layout": {"cls": True, "grid": [2]}}

    def encode(self, batch: torch.Tensor, layers: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        time.sleep(self._seconds)
        if self._log:
            with self._log.open("a") as file:
                file.write(f"{len(batch)}\n")
        flat = batch.flatten(1)
        weights = np.random.default_rng(0).normal(size=(flat.shape[1], self.depth * 3 * self.width))
        tokens: torch.Tensor = (flat.double() @ torch.from_numpy(weights)).float()
        return tokens.unflatten(1, (self.depth, 3, self.width))[:, list(layers)]  # type: ignore[no-any-return]


def dataset(media: Path, *, backwards: bool = False) -> Dataset:
    """Every file of a folder, in order of name."""
    names = sorted((path.name for path in media.iterdir()), reverse=backwards)
    return Dataset("crash", media, tuple(Sample(n, Modality.IMAGE, n, Task.CAPTION, "test") for n in names))


def run(
    media: Path,
    cache: Path,
    *,
    log: Path | None = None,
    seconds: float = 0.0,
    views: int = 0,
    backwards: bool = False,
) -> ExtractSummary:
    """One extraction, decoding in this process."""
    encoder = Synthetic(log, seconds)
    machine = Machine(BATCH, 0, BLOCK_ROWS)
    data = dataset(media, backwards=backwards)
    return extract_features(data, Modality.IMAGE, encoder, LAYERS, Cache(cache), machine=machine, views=views)


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


def _start(entry: dict[str, Any], media: Path, cache: Path, gate: int | None = None) -> int:
    """The child that does what an entry says, once a byte comes through the gate."""
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    if gate is not None:
        os.read(gate, 1)
    steps = _count_steps(entry.get("step"))
    options = {key: entry[key] for key in ("seconds", "views", "backwards") if key in entry}
    done = run(media, cache.with_name(entry.get("cache", cache.name)), log=cache.with_suffix(".log"), **options)
    cache.with_suffix(".steps").write_text(str(steps[0]))
    with cache.with_suffix(".runs").open("a") as file:
        file.write(json.dumps(asdict(done)) + "\n")
    os._exit(0)


def _result(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main() -> None:
    """See the module."""
    media, cache, plan = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    results = []
    for entry in plan:
        if "together" in entry:
            gate, keeper = os.pipe()
            children = [_start(one, media, cache, gate) for one in entry["together"]]
            os.write(keeper, b"." * len(children))
            results += [_result(child) for child in children]
            continue
        child = _start(entry, media, cache)
        if "after" in entry:
            time.sleep(entry["after"])
            os.kill(child, signal.SIGKILL)
        results.append(_result(child))
    print(json.dumps(results))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
