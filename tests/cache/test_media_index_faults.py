"""The media index on bad days: damage, kills, full disks and many processes cost time, never a right digest."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epalm.cache import index_file
from epalm.cache.index_file import IndexFile, Row
from epalm.cache.media_index import MediaIndex
from epalm.media import MediaFile

LONG_AGO = time.time() - 3600
COUNT = 200
DIGESTS = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(COUNT)]


@pytest.fixture
def media(tmp_path: Path) -> list[MediaFile]:
    """Small files that have not changed for an hour."""
    (tmp_path / "media").mkdir()
    files = [MediaFile(tmp_path / "media" / str(number)) for number in range(COUNT)]
    for number, medium in enumerate(files):
        medium.path.write_bytes(b"%d" % number)
        os.utime(medium.path, (LONG_AGO, LONG_AGO))
    return files


# Hashes the files in argv[2]; what stands in argv[3] runs first, with the index's modules at hand.
PROGRAM = """
import resource, sys, time
from pathlib import Path
from epalm.cache import hashing, media_index
from epalm.media import MediaFile

media = [MediaFile(path) for path in sorted(Path(sys.argv[2]).iterdir(), key=lambda path: int(path.name))]
real = hashing.digest_file

def stuck(path, *place, pulse):  # the last file takes for ever
    while path == media[-1].path:
        pulse()
        time.sleep(0.01)
    return real(path, *place, pulse=pulse)

def told(units):
    left.pop()
    if not left:
        print("all but one", file=sys.stderr, flush=True)

left = list(media[:-1])
exec(sys.argv[3])
found = media_index.MediaIndex(Path(sys.argv[1])).digests(media)
assert found == sys.argv[4].split(), "other digests"
"""


def _start(index: Path, media: list[MediaFile], setup: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", PROGRAM, str(index), str(media[0].path.parent), setup, " ".join(DIGESTS)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("damage", [b"", b"no database at all " * 100, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_index_costs_time_once(damage: bytes, tmp_path: Path, media: list[MediaFile]) -> None:
    index = MediaIndex(tmp_path / "index.sqlite")
    index.digests(media)
    for name in tmp_path.glob("index.sqlite*"):
        name.write_bytes(damage)
    assert index.known(media) == [None] * COUNT
    assert index.digests(media) == index.known(media) == DIGESTS


def test_an_index_of_another_format_is_begun_anew(tmp_path: Path, media: list[MediaFile]) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE media (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)")
    connection.commit()
    connection.close()
    index = MediaIndex(tmp_path / "index.sqlite")
    assert index.known(media) == [None] * COUNT
    assert index.digests(media) == index.known(media) == DIGESTS


def test_no_flipped_bit_gives_a_wrong_digest(tmp_path: Path, media: list[MediaFile]) -> None:
    path = tmp_path / "index.sqlite"
    MediaIndex(path).digests(media)
    whole = path.read_bytes()
    draw = random.Random(0)
    missed = 0
    for _ in range(120):
        torn = bytearray(whole)
        for _ in range(draw.choice((1, 1, 50))):
            torn[draw.randrange(len(torn))] ^= 1 << draw.randrange(8)
        path.write_bytes(torn[: draw.choice((len(torn), len(torn), draw.randrange(len(torn))))])
        for found, expected in zip(MediaIndex(path).known(media), DIGESTS, strict=True):
            assert found in (None, expected)
            missed += found is None
        for _ in range(4):  # some damage shows only when more is written
            assert MediaIndex(path).digests(media) == DIGESTS
        assert MediaIndex(path).known(media) == DIGESTS
    assert missed > 0


def test_a_row_that_belongs_to_another_key_counts_as_missing(tmp_path: Path) -> None:
    row = Row(1, 2, 3, DIGESTS[0], "")
    with IndexFile(tmp_path / "index.sqlite", read_only=False) as file:
        assert file.put([("/a", row), ("/b", row._replace(digest=DIGESTS[1]))])
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE media SET key = '/c' WHERE key = '/b'")
    with IndexFile(tmp_path / "index.sqlite", read_only=True) as file:
        assert list(file.read(["/c", "/b", "/a"])) == [(2, row)]


def test_where_no_index_can_be_written_digests_are_computed(tmp_path: Path, media: list[MediaFile]) -> None:
    (tmp_path / "blocked").write_text("a file where the folder should be")
    assert MediaIndex(tmp_path / "blocked/index.sqlite").digests(media) == DIGESTS


def test_a_lock_that_is_never_released_costs_time_only(
    tmp_path: Path, media: list[MediaFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_PATIENCE", 0.05)
    index = MediaIndex(tmp_path / "index.sqlite")
    index.digests(media[:100])
    with sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert index.digests(media) == DIGESTS
        other.execute("ROLLBACK")
    assert index.known(media) == DIGESTS[:100] + [None] * (COUNT - 100)


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_costs_time_only(room: int, tmp_path: Path, media: list[MediaFile]) -> None:
    setup = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); media_index._KEEP_ROWS = 1"
    full = _start(tmp_path / "index.sqlite", media, setup)
    assert full.wait(60) == 0, full.stderr and full.stderr.read()
    index = MediaIndex(tmp_path / "index.sqlite")
    assert {*index.known(media)} <= {None, *DIGESTS}
    assert index.digests(media) == index.known(media) == DIGESTS


def test_many_processes_at_once(tmp_path: Path, media: list[MediaFile]) -> None:
    setup = "media_index._KEEP_ROWS = 1"
    running = [_start(tmp_path / "cache/index.sqlite", media, setup) for _ in range(4)]
    for process in running:
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    assert MediaIndex(tmp_path / "cache/index.sqlite").known(media) == DIGESTS


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_what_was_hashed_before_the_end_is_kept(
    ended_by: signal.Signals, tmp_path: Path, media: list[MediaFile]
) -> None:
    setup = "hashing.digest_file, hashing._TOGETHER, media_index.silent = stuck, 1, told"
    if ended_by == signal.SIGKILL:  # who is interrupted keeps what is at hand, who is killed what was committed
        setup += "; media_index._KEEP_ROWS = 1"
    process = _start(tmp_path / "index.sqlite", media, setup)
    assert process.stderr is not None
    assert process.stderr.readline() == "all but one\n"
    process.send_signal(ended_by)
    message = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert ended_by == signal.SIGKILL or "KeyboardInterrupt" in message
    assert MediaIndex(tmp_path / "index.sqlite").known(media) == [*DIGESTS[:-1], None]
