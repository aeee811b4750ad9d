"""The benchmarks: a file in this folder for each, or a package's entry point of the group `epalm.datasets`.

A file has a `Benchmark` at its top level, and so is one. An entry point names one, for example in a `pyproject.toml`:
`[project.entry-points."epalm.datasets"]` with `my-data = "my_package.my_data:BENCHMARK"`.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from epalm.datasets.benchmark import Benchmark
from epalm.errors import UsageError
from epalm.plugins import load_plugin, plugins

GROUP = "epalm.datasets"
_SPEC = re.compile(r"([a-z0-9-]+)(?:/([a-z0-9-]+))?(?::(.*))?", re.DOTALL)


@cache
def _built_in() -> dict[str, Benchmark]:
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)]
    return {one.name: one for module in modules for one in vars(module).values() if isinstance(one, Benchmark)}


def benchmark_names() -> list[str]:
    """The names of all benchmarks; nothing of other packages is imported for it."""
    return sorted(_built_in() | plugins(GROUP))


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises UsageError: there is none, or the package that has it cannot be loaded."""
    if name in _built_in():
        return _built_in()[name]
    if name not in plugins(GROUP):
        raise UsageError(f"there is no benchmark {name!r}", hint=f"use one of: {', '.join(benchmark_names())}")
    return load_plugin(GROUP, name, Benchmark)


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name. Raises UsageError: a package that has one cannot be loaded."""
    return {name: benchmark(name) for name in benchmark_names()}


def parse_spec(spec: str) -> tuple[Benchmark, str | None, Path] | None:
    """(benchmark, form, root) of NAME:/root or NAME/FORM:/root; None where `spec` names no benchmark.

    Raises:
        UsageError: a benchmark without a root.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match[1] not in benchmark_names() or (not match[3] and Path(spec).exists()):
        return None
    if not match[3]:
        raise UsageError(
            f"data {spec!r} names a benchmark and not where its files lie",
            hint=f"--data {match[1]}:/root; epalm datasets {match[1]} lists the files that have to be there",
        )
    return benchmark(match[1]), match[2], Path(match[3])
