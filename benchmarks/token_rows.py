"""Rows of 257 tokens of 1,024 values: what an extraction writes for them, and one that finds all of them there.

The encoder computes next to nothing. EPALM_BENCH_MEDIA sets the number of media [default: 10,000, 5.3 GB on the disk].
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Line, compare
from benchmarks.timing import Timing, peak_mib

_ALL = 10_000
_TOKENS, _WIDTH = 257, 1024  # a ViT-L/14's at 224 pixels
_ALLOWED, _NOTHING_TO_DO = 1.05, 5.0  # times the features' bytes; seconds


def run(root: Path, *, quick: bool) -> list[Line]:
    """Bytes written / bytes of the features, as shares of what is allowed; seconds of an extraction of nothing new."""
    count = 200 if quick else int(os.environ.get("EPALM_BENCH_MEDIA", _ALL))
    folder = root / f"token-rows-{count}"
    _make(folder, count)
    features = count * _TOKENS * _WIDTH * 2
    seconds, written, peak = (float(word) for word in _in_a_process(folder, count).split())
    ratio = written / features
    note = f"{ratio:.4f} × {features / 1e9:.2f} GB, {seconds:.0f} s, peak {peak:,.0f} MiB; {count:,} media"
    lines = [Line("bytes written / allowed", *(ratio / _ALLOWED,) * 3, 1, note)]
    times = []
    for _ in range(1 if quick else 3):
        started = time.perf_counter()
        _in_a_process(folder, count)
        times.append(time.perf_counter() - started)
    measured, allowed = Timing("measured", tuple(times)), Timing("allowed", (_NOTHING_TO_DO,) * len(times))
    note = f"{measured.median:.1f} s with start-up; {count:,} media"
    return [*lines, compare("extract nothing new / allowed", measured, allowed, note)]


def _make(folder: Path, count: int) -> None:
    from PIL import Image

    (folder / "media").mkdir(parents=True)
    for number in range(count):
        colour = number % 256, number // 256 % 256, number // 65536
        Image.new("RGB", (4, 4), colour).save(folder / "media" / f"{number:06d}.png")


def _in_a_process(folder: Path, count: int) -> str:
    words = [sys.executable, "-m", "benchmarks.token_rows", str(folder), str(count)]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


def _extract(folder: Path, count: int) -> None:
    """One extraction as `epalm extract` does it; prints its seconds, the bytes that it wrote, and its peak memory."""
    import torch

    from epalm.cache.store import Cache
    from epalm.cache.token_rules import TokenLayout
    from epalm.extract.inputs.preprocess import ImageInput, Pixels
    from epalm.extract.pipeline import execute
    from epalm.extract.plan import plan_media
    from epalm.extract.request import ExtractRequest
    from epalm.samples import Dataset, Modality, Sample, Task

    class Colours:
        """Random tokens, scaled by a picture's colour."""

        kind, modality, depth, width, precision = "colours", Modality.IMAGE, 1, _WIDTH, "float32"
        layout, device = TokenLayout(True, (16, 16)), torch.device("cpu")
        input: Any = ImageInput(Pixels((4, 4), "nearest", (0.0,) * 3, (1.0,) * 3))

        def __init__(self) -> None:
            self._tokens = torch.randn(_TOKENS, _WIDTH, generator=torch.Generator().manual_seed(0)).half()

        def describe(self) -> dict[str, Any]:
            return {"kind": self.kind, "tokens": "all", "layout": {"cls": True, "grid": [16, 16]}}

        def encode(self, batch: torch.Tensor, _layers: Sequence[int], _dtype: torch.dtype) -> torch.Tensor:
            return self._tokens * (1 + batch[:, :2, 0, 0].sum(dim=1).half())[:, None, None, None]

    before, started = psutil.Process().io_counters(), time.perf_counter()
    names = [f"{number:06d}.png" for number in range(count)]
    samples = tuple(Sample(name, Modality.IMAGE, name, Task.CAPTION, "test") for name in names)
    request = ExtractRequest(Modality.IMAGE, str(folder / "media"), cache=str(folder / "cache"), workers=1)
    dataset = Dataset(str(folder / "media"), folder / "media", samples)
    summary = execute(plan_media(request, dataset, Colours(), (0,), Cache(request.cache)))
    if summary.bad or summary.encoded + summary.hits != count:
        raise RuntimeError(f"the extraction did not do what was expected: {summary}")
    written = psutil.Process().io_counters().write_chars - before.write_chars
    print(time.perf_counter() - started, written, peak_mib())


if __name__ == "__main__":
    _extract(Path(sys.argv[1]), int(sys.argv[2]))
