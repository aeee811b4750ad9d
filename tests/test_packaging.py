"""The wheel holds what the checkout has: every module, recipe and weight, under the import names."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("cache", "extract", "train", "evaluate")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, so that no build folder of the checkout leaks in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue  # the stage links: the package map names the real folders
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(path.read_bytes())
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_has_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set()
    for stage in STAGES:
        for kind in ("*.py", "*.toml"):
            expected |= {f"epalm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / stage).rglob(kind)}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "epalm").rglob("*.py")}
    for folder in ("epalm/recipes", "epalm/grids", "epalm/playground"):
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.toml")}
    expected |= {f"epalm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "evaluate/report/page").iterdir()}
    expected |= {"epalm/cache/exchange/card.md", "epalm/train/runs/card.md"}
    weights = ROOT / "epalm/playground/weights"
    expected |= {path.relative_to(ROOT).as_posix() for path in weights.rglob("*") if path.is_file()}
    assert packed == expected


def test_an_unpacked_wheel_imports_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import epalm.cli.app, epalm.cache, epalm.extract, epalm.train, epalm.evaluate; print(epalm.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
