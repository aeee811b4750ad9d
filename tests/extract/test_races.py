"""Several extractions into one cache at once, a disk that fills up, and a cache that can only be read."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epalm.cache.objects import durable
from epalm.cache.store import Cache
from epalm.errors import CacheError
from tests import crash_host
from tests.conftest import Epalm, save_small_vit
from tests.small_disk import make_read_only, resize, small_disk

HOST = Path(crash_host.__file__)
MEDIA, PROCESSES = 60, 8
PAGE = 4096  # bytes


def _pictures(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number:03d}.png")
    for number in bad:
        (folder / f"{number:03d}.png").write_text(f"no picture {number}")
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _pictures(tmp_path_factory.mktemp("many") / "media", MEDIA, bad=(7, 31))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks, the last a short one, and a bad file."""
    return _pictures(tmp_path_factory.mktemp("few") / "media", 20, bad=(5,))


def _rows(cache: Path) -> dict[tuple[str, int], bytes]:
    """(Medium, view) → its values; each is stored once, and whole."""
    (features,) = Cache(cache).sets()
    assert not features.verify()
    records = features.records()
    held = Counter((row, view) for record in records for row in record.rows for view in record.views)
    assert set(held.values()) <= {1}
    reader = features.open()
    return {
        (digest, view): reader.gather(reader.rows_of([digest]), view=view).tobytes() for digest, view in sorted(held)
    }


def _together(media: Path, cache: Path, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each of several extractions at once did."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, str(HOST), str(media), str(cache), json.dumps([{"together": entries}])]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0] * len(entries), done.stderr
    assert "Traceback" not in done.stderr and "warning" not in done.stderr
    return [json.loads(line) for line in cache.with_suffix(".runs").read_text().splitlines()]


@pytest.mark.slow
def test_eight_processes_at_once_lose_no_row_and_store_none_twice(media: Path, tmp_path: Path) -> None:
    crash_host.run(media, tmp_path / "alone")
    entries = [{"seconds": 0.01, "backwards": number % 2 == 1} for number in range(PROCESSES)]
    runs = _together(media, tmp_path / "cache", entries)
    assert _rows(tmp_path / "cache") == _rows(tmp_path / "alone")
    assert sum(run["encoded"] for run in runs) == MEDIA - 2
    for run in runs:
        assert run["hits"] + run["encoded"] + run["elsewhere"] == MEDIA - 2
        assert run["bad"] == 2
    (features,) = Cache(tmp_path / "cache").sets()
    assert sorted(entry.media for entry in features.ledger.entries()) == ["007.png", "031.png"]
    for line in features.objects.lines("ledger.jsonl").splitlines():
        json.loads(line)  # none is torn


@pytest.mark.slow
def test_processes_that_want_other_views_store_none_twice(media: Path, tmp_path: Path) -> None:
    crash_host.run(media, tmp_path / "alone", views=2)
    entries = [{"seconds": 0.01, "views": number % 3, "backwards": number > 3} for number in range(PROCESSES)]
    _together(media, tmp_path / "cache", entries)
    assert _rows(tmp_path / "cache") == _rows(tmp_path / "alone")


def test_notes_of_the_latest_extraction_do_not_replace_each_other(tmp_path: Path) -> None:
    names = [f"modality{number}" for number in range(PROCESSES)]
    children = []
    for name in names:
        children.append(os.fork())
        if not children[-1]:
            cache = Cache(tmp_path / "cache")
            for number in range(20):
                cache.remember(name, f"set{number}", (1, 2), "data.jsonl")
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
    assert {Cache(tmp_path / "cache").latest(name).set for name in names} == {"set19"}


@pytest.mark.slow
def test_eight_commands_at_once(media: Path, tmp_path: Path) -> None:
    weights = save_small_vit(tmp_path / "vit", depth=2)
    places = ["--data", str(media), "--weights", str(weights), "--cache", str(tmp_path / "cache")]
    words = [sys.executable, "-m", "epalm", "extract", "-m", "image", "--layers", "all", "--workers", "1", *places]
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    running = [
        subprocess.Popen([*words, "--block-rows", "8", "--json"], stdout=-1, stderr=-1, text=True, env=environment)
        for _ in range(PROCESSES)
    ]
    outputs = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [3] * PROCESSES, outputs
    assert sum(json.loads(out)["encoded"] for out, _ in outputs) == MEDIA - 2
    assert len(_rows(tmp_path / "cache")) == MEDIA - 2


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check before the work: the disk is full only when it is written to."""
    monkeypatch.setattr(durable, "_MARGIN", -(1 << 60))


def _require_whole_so_far(cache: Path, whole: dict[tuple[str, int], bytes]) -> None:
    """What is committed verifies, and is what it should be."""
    if Cache(cache).set_names():
        assert _rows(cache).items() <= whole.items()


@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
def test_a_disk_that_fills_up_at_any_moment_keeps_what_is_committed(
    limit: str, few: Path, tmp_path: Path, unplanned: None
) -> None:
    crash_host.run(few, tmp_path / "whole")
    whole = _rows(tmp_path / "whole")
    unit = PAGE if limit == "size" else 1
    committed = list[int]()  # blocks, where the disk was too small
    enough = False
    while not enough:
        with small_disk(tmp_path / "disk", **{limit: (2 + len(committed)) * unit}) as disk:
            try:
                crash_host.run(few, disk / "cache")
                enough = True
            except CacheError as error:
                assert "cannot be written" in error.message and "No space left" in error.message
                assert error.hint and "free space" in error.hint
                _require_whole_so_far(disk / "cache", whole)
                committed.append(len(list(disk.glob("cache/sets/*/records/*.json"))))
                resize(disk, **{limit: 1000 * unit})
                assert crash_host.run(few, disk / "cache").hits == min(8 * committed[-1], 19)
            assert _rows(disk / "cache") == whole
    assert set(committed) >= {0, 1, 2}


def _steps_that_fail(monkeypatch: pytest.MonkeyPatch, number: int, below: Path, code: int) -> Callable[[], int]:
    """From step `number` on, whatever makes or fills a file below a folder fails; gives how many steps there were."""
    steps = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*words: Any, **options: Any) -> Any:
            steps[0] += 1
            if steps[0] > number:
                raise OSError(code, os.strerror(code))
            return call(*words, **options)

        return failing

    for name in ("fsync", "link", "mkdir", "write", "replace"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return lambda: steps[0]


def test_no_space_at_any_step_is_one_error_and_the_rest_is_done_later(
    few: Path, tmp_path: Path, unplanned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_host.run(few, tmp_path / "whole")
    whole = _rows(tmp_path / "whole")
    number, cache = 0, tmp_path / "0"
    while True:
        with monkeypatch.context() as patches:
            taken = _steps_that_fail(patches, number, cache, errno.ENOSPC)
            try:
                crash_host.run(few, cache)
            except CacheError as error:
                assert error.hint and "free space" in error.hint
            finished = taken() <= number
        _require_whole_so_far(cache, whole)
        crash_host.run(few, cache)
        assert _rows(cache) == whole
        if finished:
            break
        number, cache = number + 1, tmp_path / f"{number + 1}"
    assert number > 30


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return save_small_vit(tmp_path / "vit", depth=2)


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    few: Path, vit: Path, tmp_path: Path, unplanned: None, epalm: Epalm
) -> None:
    words = ("extract", "-m", "image", "--data", few, "--weights", vit, "--layers", "all", "--workers", 0)
    small = ("--block-rows", 2, "--batch-size", 2)
    assert epalm(*words, *small, "--cache", tmp_path / "whole").code == 3
    with small_disk(tmp_path / "disk", size=24 * PAGE) as disk:
        full = epalm(*words, *small, "--cache", disk / "cache")
        assert full.code == 1
        assert full.err.count("error: ") == 1 and "No space left" in full.err and "Traceback" not in full.err
        committed = _rows(disk / "cache")
        assert 0 < len(committed) < 19
        assert epalm("cache", "verify", "--cache", disk / "cache").code == 0
        resize(disk, size=200 * PAGE)
        assert epalm(*words, *small, "--cache", disk / "cache").code == 3
        whole = _rows(tmp_path / "whole")
        assert _rows(disk / "cache") == whole
        assert committed.items() <= whole.items()


def test_what_cannot_fit_is_refused_before_the_work(few: Path, vit: Path, tmp_path: Path, epalm: Epalm) -> None:
    with small_disk(tmp_path / "disk", size=2**20) as disk:
        words = ("extract", "-m", "image", "--data", few, "--weights", vit, "--layers", "all", "--workers", 0)
        for plan in ((), ("--plan",)):
            refused = epalm(*words, "--cache", disk / "cache", *plan)
            assert refused.code == 1 and "do not fit" in refused.err and "Traceback" not in refused.err
            assert not (disk / "cache/sets").exists()


@pytest.fixture
def read_only(few: Path, vit: Path, tmp_path: Path, epalm: Epalm) -> Iterator[Path]:
    """A cache that holds some pictures, on a disk that can only be read."""
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(few.iterdir())[:10]:
        (some / path.name).write_bytes(path.read_bytes())
    with small_disk(tmp_path / "disk", size=2**22) as disk:
        words = ("--weights", vit, "--layers", "all", "--workers", 0, "--cache", disk / "cache")
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(durable, "_MARGIN", 0)
            assert epalm("extract", "-m", "image", "--data", some, *words).code == 3
        make_read_only(disk)
        yield disk / "cache"


def test_an_extraction_into_a_cache_that_can_only_be_read(
    read_only: Path, few: Path, vit: Path, tmp_path: Path, unplanned: None, epalm: Epalm
) -> None:
    words = ("--weights", vit, "--layers", "all", "--workers", 0, "--cache", read_only)
    new = epalm("extract", "-m", "image", "--data", few, *words)
    assert new.code == 1
    assert new.err.count("error: ") == 1 and "Read-only file system" in new.err and "Traceback" not in new.err
    (tmp_path / "some/005.png").unlink()  # the bad one
    again = epalm("extract", "-m", "image", "--data", tmp_path / "some", *words, "--json")
    assert again.code == 0 and json.loads(again.out)["hits"] == 9
    assert "warning" not in again.err
    elsewhere = (tmp_path / "some").rename(tmp_path / "renamed")
    moved = epalm("extract", "-m", "image", "--data", elsewhere, *words)
    assert moved.code == 0
    assert "every row is there" in moved.err and "--feature-set image-vit" in moved.err
