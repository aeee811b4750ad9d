"""The pool: every request's result once and in order, no more held than asked for, nothing left behind."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from epalm.extract.decoding.workers import DecodePool, Request, default_workers
from epalm.extract.inputs.augment import VIEW_0, view_of
from epalm.media import MediaFile
from tests.scripted_reader import Media, Scripted, descriptors, fault_of, number_of, pids_of, wait_for


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return Media(tmp_path)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(media: Media, workers: int) -> None:
    requests = media(*(f"value {number}" for number in range(20)))
    requests[7:8] = media("unreadable")
    with DecodePool(Scripted(), workers) as pool:
        results = list(pool.decode(requests, ahead=5))
    assert (fault_of(results[7]).message, fault_of(results[7]).hint) == ("these bytes are no medium", "bring others")
    assert [number_of(done) for done in results if done is not results[7]] == [*range(7), *range(8, 20)]


@pytest.mark.parametrize("workers", [0, 1])
def test_views_types_and_shapes_arrive_as_they_are(media: Media, workers: int) -> None:
    views = (VIEW_0, view_of("abc", 1, 7), view_of("abc", 4, 7))
    requests = [
        *media("value 5", "drawn", views=views),
        *media("zeros uint8 0 4", "zeros float32 3 1000 1000", "zeros float64 2", "zeros int64 2"),
    ]
    with DecodePool(Scripted(), workers) as pool:
        results = list(pool.decode(requests, ahead=2))
    arrays = [done.result for done in results]
    pictures, draws, empty, large, *refused = arrays
    assert isinstance(pictures, np.ndarray) and isinstance(draws, np.ndarray)
    assert (pictures.dtype.name, pictures.shape) == ("uint8", (3, 2, 2, 3))
    assert pictures[:, 0, 0, 0].tolist() == [5, 6, 9]
    assert draws[:, 0].tolist() == [np.float32(view.rng("pixels").random()) for view in views]
    for array, shape in ((empty, (0, 4)), (large, (3, 1000, 1000))):
        assert isinstance(array, np.ndarray) and array.shape == shape and not array.any()
    assert all("please report" in (fault_of(done).hint or "") for done in results[-len(refused) :])


def test_a_medium_may_have_any_name_and_lie_in_a_shard(media: Media) -> None:
    odd = Path(os.fsdecode(os.fsencode(media.folder) + b"/caf\xe9 \n.txt"))
    odd.write_text("no value 3 no")
    with DecodePool(Scripted(), 1) as pool:
        (done,) = pool.decode([Request(MediaFile(odd, 3, 7), (VIEW_0,))], ahead=1)
    assert number_of(done) == 3


def test_leaving_early_ends_every_process_and_leaves_nothing(media: Media) -> None:
    requests = [*media("value 1", "value 2"), *media(*["hangs"] * 20)]
    before = descriptors()
    with pytest.raises(KeyboardInterrupt), DecodePool(Scripted(), 2) as pool:
        assert number_of(next(pool.decode(requests, ahead=10))) == 1
        pids = pids_of(pool)
        raise KeyboardInterrupt
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "a zombie"
    wait_for(lambda: set(descriptors()) <= set(before))  # another thread may have a file open for a moment
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode-")]
    with pytest.raises(RuntimeError, match="closed"):
        list(pool.decode(requests, ahead=1))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_no_more_is_taken_up_than_is_allowed(media: Media, workers: int, ahead: int) -> None:
    requests, taken = media(*(f"value {number}" for number in range(12))), 0

    def one_by_one() -> Iterator[Request]:
        nonlocal taken
        for request in requests:
            taken += 1
            yield request

    with DecodePool(Scripted(), workers) as pool:
        for given, done in enumerate(pool.decode(one_by_one(), ahead=ahead)):
            assert number_of(done) == given
            assert taken - given <= max(1, ahead)
    assert taken == 12


def test_each_process_has_work_before_one_has_two(media: Media, tmp_path: Path) -> None:
    pairs = [[tmp_path / f"{number}{letter}" for letter in "ab"] for number in range(5)]
    with DecodePool(Scripted(), 2) as pool:
        for one, other in pairs:
            requests = media(f"meets {one} {other}", f"meets {other} {one}")
            assert [number_of(done) for done in pool.decode(requests, ahead=2)] == [8, 8]


def test_a_pool_serves_one_caller_after_another_and_several_at_once(media: Media) -> None:
    many = {first: media(*(f"value {first + number}" for number in range(20))) for first in (0, 50, 100, 150)}
    numbers: dict[int, list[int]] = {}

    def decode(first: int) -> None:
        numbers[first] = [number_of(done) for done in pool.decode(many[first], ahead=4)]

    with DecodePool(Scripted(), 2) as pool:
        for _ in pool.decode(media(*["value 7"] * 9), ahead=9):
            break
        decode(0)
        threads = [threading.Thread(target=decode, args=(first,)) for first in (50, 100, 150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert numbers == {first: list(range(first, first + 20)) for first in many}


def test_closing_tells_those_who_wait(media: Media) -> None:
    marker, stopped = media.folder / "marker", threading.Event()
    requests = media(f"hangs {marker}", "value 1")

    def wait() -> None:
        with pytest.raises(RuntimeError, match="the pool is closed"):
            list(pool.decode(requests, ahead=5))
        stopped.set()

    pool = DecodePool(Scripted(), 1)
    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(marker.exists)
    pool.close()
    pool.close()
    thread.join(60)
    assert stopped.is_set()


def test_workers_are_sized_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= default_workers() <= default_workers(gpu=True) <= 16
    for cores, sizes in ((8, (7, 8)), (3, (2, 3)), (1, (1, 1)), (100, (16, 16))):
        monkeypatch.setattr("dask.system.cpu_count", lambda cores=cores: cores)
        assert (default_workers(), default_workers(gpu=True)) == sizes
