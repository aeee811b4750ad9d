"""A local store on a disk that is full, read-only or gone, and under kill -9."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from epalm.cache.objects.base import MissingObjectError
from epalm.cache.objects.local import LocalObjects
from epalm.cache.store import open_objects
from epalm.errors import CacheError


def test_a_url_of_a_folder_is_the_folder(tmp_path: Path) -> None:
    LocalObjects(tmp_path / "a b").write("x", b"1")
    assert open_objects(f"file://{tmp_path}/a b").read("x") == b"1"
    assert open_objects(tmp_path / "a b").read("x") == b"1"
    assert open_objects(tmp_path / "a b").where == str(tmp_path / "a b")


def test_objects_are_files_to_map(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    objects.write("a/b", b"1")
    assert objects.path("a/b") == tmp_path / "a" / "b"
    free = LocalObjects(tmp_path / "not" / "there").free_bytes()
    assert free is not None
    assert free > 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["open", "fsync"])
def test_a_disk_that_refuses_is_one_error_and_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    objects = LocalObjects(tmp_path)
    objects.write("a", b"before")
    objects.append("log", b"one\n")

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    calls: list[Callable[[], object]] = [
        lambda: objects.write("a", b"after"),
        lambda: objects.write_new("new", b"1"),
        lambda: objects.append("log", b"two\n"),
        lambda: objects.write("folder/x", b"1"),
    ]
    for call in calls:
        with monkeypatch.context() as patch:
            if step == "fsync":
                patch.setattr(os, "fsync", refuse)
            else:
                patch.setattr(os, "open", refuse)
                patch.setattr(Path, "open", refuse)
            with pytest.raises(CacheError, match="cannot be written") as caught:
                call()
        assert os.strerror(number) in caught.value.message
        assert "the same command again" in str(caught.value.hint)
    assert objects.read("a") == b"before"
    assert objects.lines("log").startswith(b"one\n")
    assert "new" not in objects.names("")
    assert [one.key for one in objects.walk() if one.key.startswith(".")] in ([], [".log.lock"])


def test_a_disk_that_takes_half_a_line_is_full(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        with pytest.raises(CacheError, match=os.strerror(errno.ENOSPC)):
            objects.append("log", b"a torn line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    objects.append("log", b"a whole one\n")
    assert objects.lines("log").split(b"\n")[1:] == [b"a whole one", b""]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    objects = LocalObjects(tmp_path / "cache")
    for call in (
        lambda: objects.write("a", b"1"),
        lambda: objects.write_new("a/b", b"1"),
        lambda: objects.append("a", b"\n"),
    ):
        with pytest.raises(CacheError, match="cannot be written"):
            call()
    assert objects.names("") == []
    assert objects.size("a") is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("refused", ["a", "a/b"])
def test_what_cannot_be_looked_at_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, number: int
) -> None:
    objects = LocalObjects(tmp_path)
    objects.write("a/b", b"1")

    def refusing(whole: Callable[..., object]) -> Callable[..., object]:
        def look(path: str, *words: object, **more: object) -> object:
            if Path(path) == tmp_path / refused:
                raise OSError(number, os.strerror(number), str(path))
            return whole(path, *words, **more)

        return look

    looks: list[Callable[[], object]] = [lambda: objects.size(refused), lambda: list(objects.walk())]
    for look in looks + [lambda: objects.names("a")] * (refused == "a"):
        with monkeypatch.context() as patch:
            for step in ("stat", "lstat", "scandir", "listdir"):
                patch.setattr(os, step, refusing(getattr(os, step)))
            with pytest.raises(CacheError, match="cannot be read") as caught:
                look()
        assert not isinstance(caught.value, MissingObjectError)


@pytest.mark.parametrize("verb", ["write", "write_new"])
@pytest.mark.parametrize("step", ["open", "fsync", "rename"])
def test_a_kill_leaves_only_drafts(tmp_path: Path, verb: str, step: str) -> None:
    """The process stops itself at a step of the commit and is killed there."""
    code = """
import os, signal, sys
from pathlib import Path
from epalm.cache.objects.local import LocalObjects

def stop(*_, **__):
    print("here", flush=True)
    signal.pause()

step = sys.argv[3]
if step == "open":
    whole = Path.open
    def opened(self, *words):
        whole(self, *words).close()
        stop()
    Path.open = opened
elif step == "fsync":
    os.fsync = stop
else:
    os.link = Path.replace = stop
getattr(LocalObjects(Path(sys.argv[1])), sys.argv[2])("a.json", b"after")
"""
    objects = LocalObjects(tmp_path)
    if verb == "write":
        objects.write("a.json", b"before")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), verb, step], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert objects.names("") == (["a.json"] if verb == "write" else [])
    drafts = [one.key for one in objects.walk() if one.key != "a.json"]
    assert len(drafts) == 1
    assert drafts[0].startswith(".a.json.")
    if verb == "write":
        assert objects.read("a.json") == b"before"
        objects.write("a.json", b"after")
    else:
        assert objects.write_new("a.json", b"after")
    assert objects.read("a.json") == b"after"


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from epalm.cache.objects.local import LocalObjects
with LocalObjects(Path(sys.argv[1])).lock("plan"):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    objects, killed = LocalObjects(tmp_path), 0.0

    def kill() -> None:
        nonlocal killed
        time.sleep(0.2)
        killed = time.monotonic()
        process.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with objects.lock("plan"):
        assert 0 < killed <= time.monotonic()
    thread.join()
    process.wait()
    process.stdout.close()
    assert objects.names("") == []
