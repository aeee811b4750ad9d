"""What every store must do: a local folder, one in memory, and S3."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epalm.cache.objects.base import MissingObjectError, Objects
from epalm.cache.objects.remote import RemoteObjects
from epalm.cache.store import open_objects
from epalm.errors import CacheError

WRITERS = 8

every_store = pytest.mark.parametrize("objects", ["local", "memory", "s3"], indirect=True)


@pytest.fixture
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """A store with nothing in it, and nothing made for it yet."""
    if request.param == "local":
        return open_objects(tmp_path / "a" / "cache")
    if request.param == "memory":
        return open_objects(f"memory://{uuid.uuid4().hex}/cache")
    return open_objects(request.getfixturevalue("s3_url") + "/a/cache")


def together(count: int, action: Callable[[int], object]) -> list[object]:
    """What `action` gives to each of `count` threads that begin at one moment."""
    start = threading.Barrier(count)

    def run(number: int) -> object:
        start.wait()
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@every_store
def test_what_is_written_is_read(objects: Objects) -> None:
    objects.write("a/b/c.bin", b"first")
    assert objects.read("a/b/c.bin") == b"first"
    assert objects.size("a/b/c.bin") == 5
    objects.write("a/b/c.bin", memoryview(b"the second"))
    assert objects.read("a/b/c.bin") == b"the second"
    assert objects.size("a/b/c.bin") == 10
    objects.delete("a/b/c.bin")
    assert objects.size("a/b/c.bin") is None


@every_store
def test_bytes_come_back_as_they_were(objects: Objects) -> None:
    data = bytes(range(256)) * 9000  # more than one part of any network's buffers
    objects.write("block", data)
    assert objects.read("block") == data
    target = bytearray(len(data) + 10)
    assert objects.read_into("block", memoryview(target)) == len(data)
    assert target[: len(data)] == data
    assert target[len(data) :] == bytes(10)
    part = bytearray(1000)
    assert objects.read_into("block", memoryview(part)) == 1000
    assert part == data[:1000]


@every_store
def test_an_empty_object_is_there(objects: Objects) -> None:
    objects.write("empty", b"")
    assert objects.size("empty") == 0
    assert objects.read("empty") == b""
    assert objects.read_into("empty", memoryview(bytearray(4))) == 0
    assert objects.names("") == ["empty"]
    assert not objects.write_new("empty", b"more")


@every_store
def test_what_is_missing_is_said_to_be(objects: Objects) -> None:
    for key in ("none", "no/such/folder/none"):
        with pytest.raises(MissingObjectError, match="none"):
            objects.read(key)
        with pytest.raises(MissingObjectError):
            objects.read_into(key, memoryview(bytearray(4)))
        assert objects.size(key) is None
        assert objects.lines(key) == b""
        assert objects.names(key) == []
        objects.delete(key)
        objects.delete_below(key)
    assert list(objects.walk()) == []


@every_store
def test_a_folder_is_no_object(objects: Objects) -> None:
    objects.write("folder/one", b"1")
    with pytest.raises(CacheError):
        objects.read("folder")
    assert objects.names("folder/one") == []


@every_store
def test_only_the_first_writes_new(objects: Objects) -> None:
    assert objects.write_new("records/a.json", b"one")
    assert not objects.write_new("records/a.json", b"two")
    assert not objects.write_new("records/a.json", b"one")
    assert objects.read("records/a.json") == b"one"
    objects.delete("records/a.json")
    assert objects.write_new("records/a.json", b"two")


@every_store
@pytest.mark.parametrize("alike", [False, True])
def test_of_many_at_once_one_is_first(objects: Objects, alike: bool) -> None:
    for turn in range(5):
        first = together(WRITERS, lambda n: objects.write_new(f"r/{turn}", b"x" if alike else b"%d" % n))  # noqa: B023
        assert first.count(True) == 1
        assert objects.read(f"r/{turn}") == (b"x" if alike else b"%d" % first.index(True))
    assert objects.names("r") == [str(turn) for turn in range(5)]


@every_store
def test_no_appended_line_is_lost(objects: Objects) -> None:
    def write(number: int) -> None:
        for turn in range(5):
            objects.append("set/ledger.jsonl", b"%d %d\n" % (number, turn))

    together(WRITERS, write)
    lines = objects.lines("set/ledger.jsonl").splitlines()
    assert sorted(lines) == sorted(b"%d %d" % (n, i) for n in range(WRITERS) for i in range(5))
    for writer in range(WRITERS):  # one writer's lines keep their order
        mine = [line for line in lines if line.startswith(b"%d " % writer)]
        assert mine == sorted(mine)


@every_store
def test_names_are_those_directly_below(objects: Objects) -> None:
    for key in ("b", "a/x", "a/y/z", ".draft", ".hidden/c", "a/.x.1234"):
        objects.write(key, b"123")
    assert objects.names("") == ["a", "b"]
    assert objects.names("a") == ["x", "y"]
    walked = {one.key: one.bytes for one in objects.walk()}
    assert walked == dict.fromkeys(("b", "a/x", "a/y/z", ".draft", ".hidden/c", "a/.x.1234"), 3)


@every_store
def test_a_listing_shows_what_another_client_did(objects: Objects) -> None:
    other = open_objects(objects.where)
    assert objects.names("a") == []
    other.write("a/one", b"1")
    assert objects.names("a") == ["one"]
    other.write("a/two", b"2")
    assert objects.names("a") == ["one", "two"]
    assert objects.size("a/two") == 1
    other.delete("a/one")
    assert objects.names("a") == ["two"]
    assert [one.key for one in objects.walk()] == ["a/two"]


@every_store
def test_a_walk_tells_when_things_were_written(objects: Objects, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.touch()
    objects.write("a", b"")
    (stored,) = objects.walk()
    assert abs(stored.modified - clock.stat().st_mtime) < 60


@every_store
def test_delete_below_takes_a_folder_and_nothing_else(objects: Objects) -> None:
    for key in ("set/a", "set/b/c", "set/.draft", "set-2/a", "set.json"):
        objects.write(key, b"1")
    objects.delete_below("set")
    assert sorted(one.key for one in objects.walk()) == ["set-2/a", "set.json"]
    assert objects.names("") == ["set-2", "set.json"]


@every_store
def test_below_is_the_same_storage(objects: Objects) -> None:
    inside = objects.below("sets/one")
    inside.write("records/a", b"1")
    assert objects.read("sets/one/records/a") == b"1"
    assert inside.below("records").names("") == ["a"]
    assert [one.key for one in inside.walk()] == ["records/a"]
    assert inside.where == f"{objects.where}/sets/one"
    assert open_objects(inside.where).read("records/a") == b"1"


@every_store
@pytest.mark.parametrize("name", ["größe", "写真", "a b", "[x]*?", "100%25", "a+b&c=d", "#1", "~x", "it's"])
def test_any_name_will_do(objects: Objects, name: str) -> None:
    objects.write(f"{name}/{name}.json", b"1")
    objects.write("other/x", b"2")
    assert objects.read(f"{name}/{name}.json") == b"1"
    assert sorted(objects.names("")) == sorted([name, "other"])
    assert objects.names(name) == [f"{name}.json"]
    assert objects.write_new(f"{name}/new", b"3")
    objects.append(f"{name}/log", b"4\n")
    assert objects.lines(f"{name}/log") == b"4\n"
    objects.delete_below(name)
    assert [one.key for one in objects.walk()] == ["other/x"]


@every_store
def test_threads_share_a_store(objects: Objects) -> None:
    def work(number: int) -> bool:
        for turn in range(3):
            objects.write(f"{number}/{turn}", b"%d" % number * 1000)
        return all(objects.read(f"{number}/{turn}") == b"%d" % number * 1000 for turn in range(3))

    assert all(together(WRITERS, work))
    assert len(list(objects.walk())) == WRITERS * 3


def _nested(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


keys = st.lists(st.sampled_from(["a", "b", ".c"]), min_size=1, max_size=3).map("/".join)
steps = st.lists(
    st.tuples(st.sampled_from(["write", "write_new", "delete", "delete_below"]), keys, st.binary(max_size=4)),
    max_size=12,
)


@given(steps)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_remote_store_is_a_dictionary(steps: list[tuple[str, str, bytes]]) -> None:
    objects = RemoteObjects(f"memory://{uuid.uuid4().hex}")
    model: dict[str, bytes] = {}
    for verb, key, data in steps:
        if verb.startswith("write") and any(one != key and _nested(one, key) for one in model):
            continue  # an object cannot be a folder too
        if verb == "write":
            objects.write(key, data)
            model[key] = data
        elif verb == "write_new":
            assert objects.write_new(key, data) == (key not in model)
            model.setdefault(key, data)
        elif verb == "delete":
            objects.delete(key)
            model.pop(key, None)
        else:
            objects.delete_below(key)
            model = {one: value for one, value in model.items() if not one.startswith(f"{key}/")}
        assert {one.key: objects.read(one.key) for one in objects.walk()} == model
