"""Extraction with the paper's encoders, killed again and again, against one left alone: the same cache, at a cost.

The crash test in `tests/` has an encoder that starts at once; this one pays for real ones, start-up included. Whatever
differs afterwards is an error, not a figure.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Line
from epalm.cache.store import Cache
from epalm.playground.generate import generate_playground
from epalm.samples import Modality

_MEDIA = {Modality.IMAGE: 160, Modality.VIDEO: 24, Modality.AUDIO: 32}
_BLOCK = 2  # media: many blocks for few media
_KILLS = 12
_LOOK_EVERY = 0.1  # seconds between two looks at what is committed


def run(root: Path, *, quick: bool) -> list[Line]:
    """The cost of the kills per modality: seconds in all over seconds of an extraction that nobody kills."""
    return [_trial(root / f"crash-{modality}", modality, quick) for modality in list(Modality)[: 1 if quick else None]]


def _trial(root: Path, modality: Modality, quick: bool) -> Line:
    media = 8 if quick else _MEDIA[modality]
    data = generate_playground(root / "media", modality, counts=(media, 1, 1))
    weights = ("--weights", "playground") if quick else ("--random-weights",)
    words = [sys.executable, "-m", "epalm", "extract", "-m", modality.value, "--data", str(data), *weights]
    words += ["--block-rows", str(_BLOCK), "--batch-size", str(_BLOCK)]
    alone = _run([*words, "--cache", str(root / "alone")])
    spent, killed = 0.0, 0
    rng = random.Random(0)
    for _ in range(1 if quick else _KILLS):
        # Within the block that follows the next one or two: whatever a kill loses, the next run has to go on.
        seconds, ended = _run_until([*words, "--cache", str(root / "killed")], root / "killed", rng)
        spent, killed = spent + seconds, killed + ended
        if not ended:
            break
    spent += _run([*words, "--cache", str(root / "killed")])
    rows = _require_same(root)
    return Line(
        f"{modality}: killed {killed} times / left alone", *[spent / alone] * 3, 1,
        f"{spent:.0f} s and {alone:.0f} s; {rows} rows in blocks of {_BLOCK}, each once, byte for byte the same",
    )  # fmt: skip


def _run(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - started


def _run_until(words: list[str], cache: Path, rng: random.Random) -> tuple[float, bool]:
    """Seconds that it ran, and whether it was killed before its end: up to a second after the next block or two."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    enough = _blocks(cache) + rng.randint(1, 2)
    while process.poll() is None and _blocks(cache) < enough:
        time.sleep(_LOOK_EVERY)
    time.sleep(rng.random())
    process.kill()
    return time.perf_counter() - started, process.wait() < 0


def _blocks(cache: Path) -> int:
    """How many are committed."""
    return sum(1 for _ in cache.glob("sets/*/records/*.json"))


def _require_same(root: Path) -> int:
    """How many rows both caches hold. Raises RuntimeError when they differ."""
    blocks = []
    for name in ("alone", "killed"):
        (features,) = Cache(root / name).sets()
        if features.verify():
            raise RuntimeError(f"{features.where} is damaged")
        blocks.append({one.block: (one.rows, features.objects.read(one.chunk)) for one in features.records()})
    rows = [row for one, _ in blocks[1].values() for row in one]
    if blocks[0] != blocks[1] or len(rows) != len(set(rows)):
        raise RuntimeError(f"the caches below {root} differ")
    return len(rows)
