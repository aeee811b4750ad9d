"""Imports point one way: core ← cache ← extract, train (never each other) ← evaluate ← epalm.api ← command line."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("cache", "extract", "train", "evaluate")
MAY_IMPORT = {
    "core": {"core"},
    "cache": {"core", "cache"},
    "extract": {"core", "cache", "extract"},
    "train": {"core", "cache", "train"},
    "evaluate": {"core", "cache", "extract", "train", "evaluate"},
    "api": {"core", "cache", "extract", "train", "evaluate", "api"},
    "cli": {"core", "cache", "extract", "train", "evaluate", "api", "cli"},
}
FRONT_DOORS = ("epalm", "epalm.api")  # `epalm` hands out names of `epalm.api` when they are asked for
# Inside a stage, too: a wing may import those before it. "." is the stage's own landing.
WINGS = {
    "cache": ("objects", ".", "care", "exchange"),
    "extract": ("media", "inputs", "decoding", "encoders", "."),
    "train": ("lm", "bridge", "data", "runs", "."),
    "evaluate": ("decoding", "metrics", ".", "report"),
}
# Arrows that still point the other way, each to be mended.
BACKWARDS: set[tuple[str, str]] = set()
HEAVY = ("torch", "transformers", "timm", "zarr", "av", "numpy", "pandas", "dask", "pydantic")


def _layer(module: str) -> str:
    parts = module.split(".")
    if module == "epalm.__main__":
        return "cli"
    if module == "epalm.api" or module.startswith("epalm.api."):
        return "api"
    return parts[1] if len(parts) > 1 and parts[1] in (*STAGES, "cli") else "core"


def _modules() -> dict[str, Path]:
    modules: dict[str, Path] = {}
    for stage in STAGES:
        for path in (ROOT / stage).rglob("*.py"):
            modules[".".join(("epalm", *path.relative_to(ROOT).with_suffix("").parts))] = path
    for path in (ROOT / "epalm").rglob("*.py"):
        modules[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return {name.removesuffix(".__init__"): path for name, path in modules.items()}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "epalm"}


def test_every_stage_is_seen() -> None:
    layers = {_layer(module) for module in _modules()}
    assert layers == set(MAY_IMPORT)


def test_imports_point_down() -> None:
    modules = _modules()
    wrong = {
        (module, _module_of(name, modules))
        for module, path in modules.items()
        for name in _imports(path)
        if _layer(name) not in MAY_IMPORT["api" if module in FRONT_DOORS else _layer(module)]
    }
    assert not wrong


def _wing(module: str) -> str:
    """The wing of a stage's module; "." for those that lie on its landing."""
    parts = module.split(".")
    return parts[2] if parts[2:] and parts[2] in WINGS[parts[1]] else "."


def test_inside_a_stage_imports_point_one_way() -> None:
    modules = _modules()
    backwards = set()
    for module, path in modules.items():
        stage = module.split(".")[1] if "." in module else ""
        if stage not in WINGS:
            continue
        order = WINGS[stage]
        for name in _imports(path):
            target = _module_of(name, modules)
            if target.startswith(f"epalm.{stage}.") and order.index(_wing(target)) > order.index(_wing(module)):
                backwards.add((module, target))
    assert backwards == BACKWARDS


def test_every_wing_is_listed() -> None:
    for stage, wings in WINGS.items():
        folders = {path.parent.name for path in (ROOT / stage).glob("*/__init__.py")}
        assert folders == set(wings) - {"."}


def _module_of(name: str, modules: dict[str, Path]) -> str:
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = _modules()
    graph = {
        module: {_module_of(name, modules) for name in _imports(path)} - {module, "epalm"}
        for module, path in modules.items()
    }
    assert sum(map(len, graph.values())) > len(modules)
    TopologicalSorter(graph).prepare()  # which names a circle


def test_the_walk_sees_a_wrong_import(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from epalm.train.bridge.model import EpalmModel\n")
    (name,) = _imports(path)
    assert _layer(name) not in MAY_IMPORT["extract"]


@pytest.mark.parametrize("module", ["epalm", "epalm.api", "epalm.cli.app"])
def test_the_front_doors_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_files_are_short_enough_to_read_in_one_go() -> None:
    files = [*_modules().values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long
