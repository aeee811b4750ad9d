"""A store over a network that fails: nothing is lost, nothing doubled, and what stays broken is said once."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from epalm.cache.objects.base import MissingObjectError
from epalm.cache.objects.remote import RemoteObjects
from epalm.errors import CacheError
from tests.faulty_network import FAULTS, FaultyNetwork

PATIENT = (60, 0.002, 0.02)
HASTY = (0.3, 0.01, 0.05)
THREADS = 6


def test_a_bad_network_loses_and_doubles_nothing(s3_url: str, faulty_network: FaultyNetwork) -> None:
    objects = RemoteObjects(f"{s3_url}/cache", PATIENT)
    faulty_network.fail(0.25, seed=1)

    def work(number: int) -> list[str]:
        numbers, first = random.Random(number), []
        for turn in range(10):
            data = numbers.randbytes(numbers.choice([0, 1, 1000, 200_000]))
            objects.write(f"blocks/{number}-{turn}", data)
            assert objects.read(f"blocks/{number}-{turn}") == data
            target = bytearray(500)
            assert objects.read_into(f"blocks/{number}-{turn}", memoryview(target)) == min(len(data), 500)
            assert target.startswith(data[:500])
            if objects.write_new(f"records/{turn}", b"%d" % number):
                first.append(f"{number} {turn}")
            objects.append("ledger.jsonl", b"%d %d\n" % (number, turn))
            if turn % 3 == 0:
                objects.delete(f"blocks/{number}-{turn}")
        return first

    with ThreadPoolExecutor(THREADS) as pool:
        first = [one for ones in pool.map(work, range(THREADS)) for one in ones]
    assert set(faulty_network.done) == set(FAULTS)
    assert sum(faulty_network.done.values()) > 100

    assert objects.names("records") == [str(turn) for turn in range(10)]
    assert sorted(first) == sorted(f"{objects.read(f'records/{turn}').decode()} {turn}" for turn in range(10))
    lines = objects.lines("ledger.jsonl").decode().splitlines()
    assert sorted(lines) == sorted(f"{number} {turn}" for number in range(THREADS) for turn in range(10))
    kept = sorted(f"{number}-{turn}" for number in range(THREADS) for turn in range(10) if turn % 3)
    assert objects.names("blocks") == kept
    objects.delete_below("blocks")
    assert not [one for one in objects.walk() if one.key.startswith("blocks/")]


def test_a_store_without_conditions_is_refused(s3_url: str, faulty_network: FaultyNetwork) -> None:
    faulty_network.conditions = False
    with pytest.raises(CacheError, match="NotImplemented"):
        RemoteObjects(s3_url, PATIENT).write_new("r/1", b"mine")


def test_whose_answer_was_lost_is_still_first(s3_url: str, faulty_network: FaultyNetwork) -> None:
    objects = RemoteObjects(s3_url, PATIENT)
    objects.names("")  # connections are open, as they mostly are
    faulty_network.fail(0.5, "drop after", seed=2)
    assert [objects.write_new(f"r/{n}", b"mine") for n in range(10)] == [True] * 10
    assert [objects.write_new(f"r/{n}", b"other") for n in range(10)] == [False] * 10
    assert faulty_network.done["drop after"] > 5
    assert all(objects.read(f"r/{n}") == b"mine" for n in range(10))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_borne(s3_url: str, faulty_network: FaultyNetwork, fault: str) -> None:
    objects = RemoteObjects(s3_url, PATIENT)
    faulty_network.fail(0.5, fault, seed=3)
    for number in range(6):
        objects.write(f"a/{number}", b"x" * 100_000)
        assert objects.read(f"a/{number}") == b"x" * 100_000
        assert objects.size(f"a/{number}") == 100_000
    assert objects.names("a") == [str(number) for number in range(6)]
    assert faulty_network.done[fault]


@pytest.mark.parametrize("how", ["busy", "drop before", "cut body", "gone"])
def test_an_outage_that_lasts_is_one_error(s3_url: str, faulty_network: FaultyNetwork, how: str) -> None:
    objects = RemoteObjects(f"{s3_url}/cache", HASTY)
    objects.write("a", b"1" * 1000)
    if how == "gone":
        faulty_network.stop()
    else:
        faulty_network.fail(1.0, how)
    with pytest.raises(CacheError, match=f"{s3_url}/cache/a: the store has failed for") as caught:
        objects.read("a")
    assert not isinstance(caught.value, MissingObjectError)
    assert "the same command again" in str(caught.value.hint)


def test_an_outage_is_never_taken_for_an_empty_store(s3_url: str, faulty_network: FaultyNetwork) -> None:
    objects = RemoteObjects(f"{s3_url}/cache", HASTY)
    faulty_network.fail(1.0, "busy")
    calls: list[Callable[[], object]] = [
        lambda: objects.names(""),
        lambda: list(objects.walk()),
        lambda: objects.size("a"),
        lambda: objects.lines("a"),
        lambda: objects.delete_below("a"),
        lambda: objects.write_new("a", b""),
    ]
    for call in calls:
        with pytest.raises(CacheError, match="has failed for") as caught:
            call()
        assert not isinstance(caught.value, MissingObjectError)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "the right to"),
        (403, "InvalidAccessKeyId", "AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", "AWS_PROFILE"),
        (400, "ExpiredToken", "AWS_PROFILE"),
        (400, "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION"),
        (404, "NoSuchBucket", "create the bucket"),
        (400, "InvalidRequest", "settings of the store"),
    ],
)
def test_what_no_retry_mends_is_said_at_once(
    s3_url: str, faulty_network: FaultyNetwork, status: int, code: str, hint: str
) -> None:
    objects = RemoteObjects(s3_url, PATIENT)
    faulty_network.refusal = (status, code)
    with pytest.raises(CacheError, match=s3_url) as caught:
        objects.write("a", b"1")
    assert hint in str(caught.value.hint)
    assert sum(faulty_network.seen.values()) < 8  # botocore looks for the region by itself
    for call in (lambda: objects.names("x"), lambda: list(objects.walk()), lambda: objects.read("a")):
        with pytest.raises(CacheError) as caught:
            call()
        assert not isinstance(caught.value, MissingObjectError)
