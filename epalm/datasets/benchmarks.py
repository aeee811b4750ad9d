"""All benchmarks by name, and `--data NAME:/root` read as a data set."""

import re
from pathlib import Path

from epalm.console import warn
from epalm.datasets import (
    a_okvqa,
    audiocaps,
    clotho,
    coco_caption,
    gqa,
    msrvtt_caption,
    msrvtt_qa,
    msvd_qa,
    ok_vqa,
    textcaps,
    textvqa,
    vqa_v2,
)
from epalm.datasets.benchmark import Benchmark, Files, choose_form
from epalm.datasets.sharing import UniqueIds, without_cycles
from epalm.errors import UsageError
from epalm.samples import Dataset, Sample

_MODULES = (
    vqa_v2, gqa, coco_caption, msrvtt_qa, msvd_qa, msrvtt_caption, audiocaps,
    ok_vqa, a_okvqa, textvqa, textcaps, clotho,
)  # fmt: skip
BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
_SPEC = re.compile(r"([a-z0-9-]+)(?:/([a-z0-9-]+))?(?::(.*))?", re.DOTALL)


def parse_spec(spec: str) -> tuple[Benchmark, str | None, Path] | None:
    """(benchmark, form, root) of NAME:/root or NAME/FORM:/root; None where `spec` names no benchmark.

    Raises:
        UsageError: a benchmark without a root.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match[1] not in BENCHMARKS:
        return None
    if not match[3]:
        if Path(spec).exists():
            return None
        raise UsageError(
            f"data {spec!r} names a benchmark and not where its files lie",
            hint=f"--data {match[1]}:/root; epalm datasets {match[1]} says what has to be there",
        )
    return BENCHMARKS[match[1]], match[2], Path(match[3])


def read_benchmark(spec: str, *, media_here: bool = True, follow_links: bool = False) -> Dataset | None:
    """The data set that NAME:/root names, all splits; None where `spec` names no benchmark.

    Media that are not there are counted in one line where clips are known by their names, unless `media_here` is
    false; they stay samples, for the extraction to report.

    Raises:
        UsageError: no such files, a file that cannot be used, or an id that a split uses twice.
    """
    named = parse_spec(spec)
    if named is None:
        return None
    benchmark, form, root = named
    files = Files(benchmark, choose_form(benchmark, root, form), root, follow_links)
    with without_cycles():
        samples = _samples(files)
    for note in dict.fromkeys(files.notes):
        warn(f"data {spec!r}: {note}")
    if media_here and files.media and files.media.absent:
        absent, media = len(files.media.absent), len({sample.media for sample in samples})
        warn(
            f"data {spec!r}: {absent:,} of {media:,} media are not there, such as {min(files.media.absent)}; training "
            f"goes on without them with --allow-missing {absent}"
        )
    return Dataset(spec, root, tuple(samples), passed_over=dict(files.media.passed_over) if files.media else {})


def _samples(files: Files) -> list[Sample]:
    samples: list[Sample] = []
    seen = UniqueIds()
    for entry, sample in files.form.read(files):
        seen.add(sample, entry.where)
        samples.append(sample)
    return samples
