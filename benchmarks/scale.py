"""A million media: reading their samples, finding, identifying and planning them, opening their rows.

Each figure is the share of the time that is allowed, the allowance shrinking with the number of media: up to 1, the
promise is kept. Every measurement is a process of its own, so that the notes can give its peak memory.
EPALM_BENCH_MEDIA sets the number of media [default: 1,000,000].
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.many_media import ManyMedia, SyntheticEncoder, fill, synthetic_spec
from benchmarks.report import Line, compare
from benchmarks.timing import Timing, peak_mib
from epalm.cache.store import Cache
from epalm.samples import Modality

_ALL = 1_000_000
_PLAN, _OPEN, _NOTHING_TO_DO = 60.0, 3.0, 10.0  # seconds allowed; the first two for a million media
_UNCHANGED = 50_000  # media of the extraction that has nothing to do


def run(root: Path, *, quick: bool) -> list[Line]:
    """The parts of planning, planning in all, opening the rows for training, and an extraction of nothing new."""
    count = 3_000 if quick else int(os.environ.get("EPALM_BENCH_MEDIA", _ALL))
    world = ManyMedia(root / f"scale-{count}", count)
    world.make()
    rounds = 1 if quick else 2
    share = count / _ALL
    lines = []
    for name, part in _PARTS.items():
        measured = []
        for turn in range(rounds):
            if part is _plan:
                world.forget_new(turn + 1)
            measured.append(_in_a_process(part, world))
        seconds = Timing("measured", tuple(m["seconds"] for m in measured))
        extra = tuple(m["reading"] for m in measured)
        allowed = Timing("allowed", tuple(share * (_OPEN if part is _open else _PLAN) + more for more in extra))
        note = f"{seconds.median:.1f} s, peak {max(m['peak'] for m in measured):,.0f} MiB; {count:,} media"
        lines.append(compare(f"{name} / allowed", seconds, allowed, note))
    return [*lines, _extract_nothing(world, rounds)]


def _read(world: ManyMedia) -> Callable[[], object]:
    return world.dataset


def _locate(world: ManyMedia) -> Callable[[], object]:
    dataset = world.dataset()
    media = dataset.media(Modality.IMAGE)

    def locate() -> None:
        for name in media:
            dataset.locate(name).status()

    return locate


def _look_up(world: ManyMedia) -> Callable[[], object]:
    dataset = world.dataset()
    files = [dataset.locate(name) for name in dataset.media(Modality.IMAGE)]
    statuses = [file.status() for file in files]
    return lambda: world.cache.media.digests(files, statuses)


def _plan(world: ManyMedia) -> Callable[[], object]:
    from epalm.extract.plan import plan_media
    from epalm.extract.request import ExtractRequest

    request, encoder = ExtractRequest(Modality.IMAGE), SyntheticEncoder()
    return lambda: plan_media(request, world.dataset(), encoder, (0,), world.cache)


def _open(world: ManyMedia) -> Callable[[], object]:
    return lambda: world.cache.find(synthetic_spec().name).open()


_PARTS: dict[str, Callable[[ManyMedia], Callable[[], object]]] = {
    "read the samples": _read,
    "locate and stat": _locate,
    "look digests up": _look_up,
    "plan, all of it": _plan,
    "open the rows": _open,
}


def _in_a_process(part: Callable[[ManyMedia], Callable[[], object]], world: ManyMedia) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.scale", part.__name__, str(world.folder), str(world.count)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _extract_nothing(world: ManyMedia, rounds: int) -> Line:
    """`epalm extract`, start-up and all, where every medium has its row."""
    from PIL import Image

    count = min(_UNCHANGED, world.count)
    Image.new("RGB", (32, 32)).save(world.folder / "real.png")
    one = {"modality": "image", "media": "real.png", "task": "caption", "split": "test"}
    (world.folder / "one.jsonl").write_text(json.dumps(one) + "\n")
    _extract(world.folder / "one.jsonl", world.folder)  # makes the feature set that the others' rows go to
    cache = Cache(world.folder / "cache")
    fill(cache.find(cache.latest("image").set), world.digests(count))
    samples = world.write_samples("unchanged.jsonl", count)
    _extract(samples, world.folder)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        _extract(samples, world.folder)
        times.append(time.perf_counter() - started)
    measured, allowed = Timing("measured", tuple(times)), Timing("allowed", (_NOTHING_TO_DO,) * rounds)
    note = f"{measured.median:.1f} s with start-up; {count:,} media"
    return compare("extract nothing new / allowed", measured, allowed, note)


def _extract(samples: Path, folder: Path) -> None:
    words = [sys.executable, "-m", "epalm", "extract", "--modality", "image", "--weights", "playground"]
    words += ["--device", "cpu", "--data", str(samples), "--cache", str(folder / "cache"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or json.loads(done.stdout)["encoded"] > 1:
        raise RuntimeError(f"epalm extract did not do what was expected: {done.stderr}")


def _measure(part: str, world: ManyMedia) -> dict[str, float]:
    """Time one part; for the opening of rows, also bare reading of the same files."""
    work = next(one for one in _PARTS.values() if one.__name__ == part)(world)
    started = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - started
    peak, reading = peak_mib(), 0.0
    del kept
    if part == _open.__name__:
        files = [path for path in (world.folder / "cache" / "sets").rglob("*") if path.is_file()]
        started = time.perf_counter()
        for path in files:
            path.read_bytes()
        reading = time.perf_counter() - started
    return {"seconds": seconds, "peak": peak, "reading": reading}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], ManyMedia(Path(sys.argv[2]), int(sys.argv[3])))))
