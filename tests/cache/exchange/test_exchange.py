"""Feature sets as files: what is written is what was there, whole or not at all, and HDF5 comes back as it was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.cache.exchange import hdf5
from epalm.cache.exchange.files import export_set, import_set
from epalm.cache.feature_set import FeatureSet
from epalm.cache.manifest import read_manifests
from epalm.cache.store import Cache
from epalm.errors import CacheError, UsageError
from tests.cache.test_feature_set import SPEC
from tests.conftest import Epalm
from tests.feature_sets import BLOCKS, DATA, Block, contents, make_set, stored_twice
from tests.passing_objects import passing


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "cache", BLOCKS)


def _values(features: FeatureSet, digests: Sequence[str], views: Sequence[int], layers: Sequence[int]) -> np.ndarray:
    """What a file should hold (N, V, L, D)."""
    rows = contents(features)
    shape = SPEC.row_shape
    values = [[np.frombuffer(rows[name, view], np.float16).reshape(shape) for view in views] for name in digests]
    return np.array(values)[:, :, [SPEC.layers.index(layer) for layer in layers]]


_blocks = st.lists(
    st.builds(
        Block,
        st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True),
        st.sets(st.integers(0, 3), min_size=1).map(lambda views: tuple(sorted(views))),
    ),
    min_size=1,
    max_size=6,
)


@given(_blocks, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["float16", "float32"]), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_hdf5_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[Block], depth: int, width: int, dtype: str, stretch: int
) -> None:
    here = tmp_path_factory.mktemp("trip")
    spec = replace(SPEC, layers=tuple(range(depth)), width=width, stored_dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # most of the time, and no part of the question
        patch.setattr(hdf5, "_STRETCH", stretch)
        first = make_set(here / "first", blocks, spec)
        expected = contents(first)
        for view in first.views():  # a file has the media that have all of its views
            export_set(first, here / f"{view}.h5", views=[view])
            import_set(Cache(here / "second"), here / f"{view}.h5")
        second = Cache(here / "second").load(first.name)
        assert contents(second) == expected
        assert stored_twice(second) == 0 and second.verify() == []
        for view in first.views():
            export_set(second, here / f"{view}-again.h5", views=[view])
            import_set(Cache(here / "third"), here / f"{view}-again.h5")
    third = Cache(here / "third").load(first.name)
    assert contents(third) == expected
    assert (third.spec, third.recorded) == (first.spec, first.recorded)
    assert read_manifests(third.objects) == read_manifests(first.objects)


def test_views_that_all_media_have_are_written_and_others_can_be_chosen(features: FeatureSet, tmp_path: Path) -> None:
    every = export_set(features, tmp_path / "all.h5")
    assert (every["media"], every["views"], every["left_out"]) == (14, (0,), 0)
    two = export_set(features, tmp_path / "two.h5", views=[1, 0])
    assert (two["media"], two["views"], two["left_out"]) == (5, (0, 1), 9)
    both = export_set(features, tmp_path / "both.h5", views=[0, 2], layers=[5, 3])
    assert (both["media"], both["layers"], both["set"]) == (5, (3, 5), replace(SPEC, layers=(3, 5)).name)
    cache = Cache(tmp_path / "other")
    import_set(cache, tmp_path / "both.h5")
    reader = cache.load(both["set"]).open()
    assert reader.views_of() == (0, 2)
    expected = _values(features, reader.digests, (2,), (3, 5))
    np.testing.assert_array_equal(reader.gather(np.arange(5), view=2), expected[:, 0])
    chosen: list[dict[str, Any]] = [{"views": [3]}, {"views": [0, 9]}, {"layers": [2]}, {"views": []}]
    for wrong in chosen:
        with pytest.raises(UsageError):
            export_set(features, tmp_path / "wrong.h5", **wrong)
    assert not list(tmp_path.glob("*wrong*"))


def test_a_set_without_a_view_in_common_says_so(tmp_path: Path) -> None:
    apart = make_set(tmp_path / "cache", [Block([1], (0,)), Block([2], (1,))])
    with pytest.raises(UsageError, match="no view"):
        export_set(apart, tmp_path / "x.h5")
    with pytest.raises(UsageError, match="all of the views"):
        export_set(apart, tmp_path / "x.h5", views=[0, 1])
    with pytest.raises(CacheError, match="no row"):
        export_set(make_set(tmp_path / "none", []), tmp_path / "x.h5")


def test_each_block_is_read_once(features: FeatureSet) -> None:
    read: list[str] = []

    def see(what: str, key: str, data: bytes) -> bytes:
        read.append(key)
        return data

    seen = FeatureSet(passing(features.objects, see), features.spec)
    assert sum(len(values) for values in seen.table(views=[0]).stretches(2)) == 14
    chunks = [key for key in read if key.endswith("c.0.0.0.0.0")]
    assert len(chunks) == len(set(chunks)) == 3


def test_stretches_make_one_file(features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_set(features, tmp_path / "one.h5")
    once = (tmp_path / "one.h5").read_bytes()
    export_set(features, tmp_path / "one.h5")
    assert (tmp_path / "one.h5").read_bytes() == once  # the time of writing is not in it
    monkeypatch.setattr(hdf5, "_STRETCH", 3)
    assert export_set(features, tmp_path / "many.h5")["media"] == 14


def test_a_failed_export_leaves_what_was_there(features: FeatureSet, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.write_text("mine")
    (features.objects.path(features.records()[-1].chunk) or path).write_bytes(b"")
    with pytest.raises(CacheError, match="is damaged"):
        export_set(features, path)
    assert path.read_text() == "mine" and not list(tmp_path.glob(".*"))
    for wrong in (tmp_path / "f.parquet", tmp_path / "f", tmp_path / "no" / path.name):
        with pytest.raises(UsageError):
            export_set(features, wrong)


def test_a_disk_that_is_full_is_one_message(features: FeatureSet, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: it fails in the same calls."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from epalm.__main__ import main\n"
        "sys.argv = ['epalm', 'cache', 'export', 'image', 'f.h5', '--cache', 'cache']\n"
        "import h5py, zarr\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); main()"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cannot be written" in done.stderr and "File too large" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_two_exports_to_one_file_do_not_mix(features: FeatureSet, tmp_path: Path) -> None:
    from epalm.cache.objects.durable import draft_of

    with draft_of(tmp_path / "f.h5") as draft, pytest.raises(CacheError, match="another process"):
        draft.write_text("first")
        export_set(features, tmp_path / "f.h5")
    assert (tmp_path / "f.h5").read_text() == "first"


@pytest.mark.slow
def test_a_killed_export_leaves_no_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    big = replace(SPEC, width=2048)
    features = make_set(tmp_path / "cache", [Block(range(n, n + 64)) for n in range(0, 4096, 64)], big)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    code = (
        "import sys, h5py, zarr; from pathlib import Path; from epalm.cache.exchange.files import export_set\n"
        "from epalm.cache.store import Cache; features = Cache(sys.argv[1]).sets()[0]; print('go', flush=True)\n"
        "export_set(features, Path(sys.argv[2]))"
    )
    rng, path, kills = random.Random(0), tmp_path / "f.h5", 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "cache", path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout and process.stdout.readline() == b"go\n"
        time.sleep(rng.uniform(0.02, 0.15))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        kills += process.wait() != 0
        if path.exists():  # it was quicker: then the file is whole
            path.rename(tmp_path / "done.h5")
        else:
            assert len(list(tmp_path.glob(".f.h5*"))) <= 1
    assert kills
    export_set(features, path)
    assert not list(tmp_path.glob(".f.h5*"))
    for file in tmp_path.glob("*.h5"):
        with h5py.File(file) as opened:
            assert opened["features"].shape == (4096, 1, *big.row_shape)
        assert import_set(Cache(tmp_path / file.stem), file)["media"] == 4096


def test_export_and_import_as_they_are_typed(epalm: Epalm, features: FeatureSet, tmp_path: Path) -> None:
    here, file = ("--cache", tmp_path / "cache"), tmp_path / "f.h5"
    done = epalm("cache", "export", "image", file, "--views", "0-1", "--layers", "4,5", *here, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["media"] == 5 and "9 media lack one of the views [0, 1]" in done.err
    assert epalm("cache", "export", "image", file, *here).code == 1
    assert epalm("cache", "export", "image", file, "--force", *here).code == 0
    for option in (("--views", "one"), ("--layers", "0-5"), ("--views", "7")):
        wrong = epalm("cache", "export", "image", file, "--force", *option, *here)
        assert wrong.code == 1 and wrong.err.count("error: ") == 1
    other = ("--cache", tmp_path / "other")
    first = epalm("cache", "import", file, *other, "--json")
    assert json.loads(first.out) == {"set": SPEC.name, "media": 14, "there": 0, "views": [0]}
    assert f"--data {DATA}" in first.err and Cache(tmp_path / "other").latest("image").set == SPEC.name
    again = epalm("cache", "import", file, *other, "--json")
    assert json.loads(again.out)["there"] == 14
    assert epalm("cache", "verify", *other).code == 0
