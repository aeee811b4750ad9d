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

from epalm.cache import media_index
from epalm.cache.media_index import MediaIndex
from epalm.media import MediaFile
from tests.cache.test_media_index import known

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
from epalm.cache import media_index
from epalm.media import MediaFile

media = [MediaFile(path) for path in sorted(Path(sys.argv[2]).iterdir(), key=lambda path: int(path.name))]
real = media_index.digest_file

def stuck(path, *place, pulse):  # the last file takes for ever
    while path == media[-1].path:
        pulse()
        time.sleep(0.01)
    return real(path, *place, pulse=pulse)

def advance(units):
    del left[:units]
    if not left:
        print("all but one", file=sys.stderr, flush=True)
        left.append(None)

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
    assert known(index, media) == [None] * COUNT
    assert index.digests(media) == known(index, media) == DIGESTS


def test_an_index_of_another_format_is_begun_anew(tmp_path: Path, media: list[MediaFile]) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE media (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)")
    connection.commit()
    connection.close()
    index = MediaIndex(tmp_path / "index.sqlite")
    assert known(index, media) == [None] * COUNT
    assert index.digests(media) == known(index, media) == DIGESTS


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
        for found, expected in zip(known(MediaIndex(path), media), DIGESTS, strict=True):
            assert found in (None, expected)
            missed += found is None
        for _ in range(4):  # some damage shows only when more is written
            assert MediaIndex(path).digests(media) == DIGESTS
        assert known(MediaIndex(path), media) == DIGESTS
    assert missed > 0


def test_a_row_that_belongs_to_another_key_is_damage(tmp_path: Path, media: list[MediaFile]) -> None:
    index, one = MediaIndex(tmp_path / "index.sqlite"), media[0]
    other = MediaFile(tmp_path / "other")
    other.path.hardlink_to(one.path)  # of the same size and times
    index.digests([one])
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("UPDATE digests SET key = ?", [str(other.path)])
    assert known(MediaIndex(tmp_path / "index.sqlite", read_only=True), [one, other]) == [None, None]
    assert index.digests([one, other]) == known(index, [one, other]) == [DIGESTS[0]] * 2


def test_where_no_index_can_be_written_digests_are_computed(tmp_path: Path, media: list[MediaFile]) -> None:
    (tmp_path / "blocked").write_text("a file where the folder should be")
    assert MediaIndex(tmp_path / "blocked/index.sqlite").digests(media) == DIGESTS


def test_a_lock_that_is_never_released_costs_time_only(
    tmp_path: Path, media: list[MediaFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_index, "_PATIENCE", 0.05)
    index = MediaIndex(tmp_path / "index.sqlite")
    index.digests(media[:100])
    with sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert index.digests(media) == DIGESTS
        other.execute("ROLLBACK")
    assert known(index, media) == DIGESTS[:100] + [None] * (COUNT - 100)


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_costs_time_only(room: int, tmp_path: Path, media: list[MediaFile]) -> None:
    setup = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); media_index._COMMIT_EVERY = 0.001"
    full = _start(tmp_path / "index.sqlite", media, setup)
    assert full.wait(60) == 0, full.stderr and full.stderr.read()
    index = MediaIndex(tmp_path / "index.sqlite")
    assert {*known(index, media)} <= {None, *DIGESTS}
    assert index.digests(media) == known(index, media) == DIGESTS


def test_many_processes_at_once(tmp_path: Path, media: list[MediaFile]) -> None:
    setup = "media_index._COMMIT_EVERY = 0.001"
    running = [_start(tmp_path / "cache/index.sqlite", media, setup) for _ in range(4)]
    for process in running:
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    assert known(MediaIndex(tmp_path / "cache/index.sqlite"), media) == DIGESTS


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_what_was_hashed_before_the_end_is_kept(
    ended_by: signal.Signals, tmp_path: Path, media: list[MediaFile]
) -> None:
    setup = "media_index.digest_file, media_index.silent, media_index._COMMIT_EVERY = stuck, advance, 0.001"
    process = _start(tmp_path / "index.sqlite", media, setup)
    assert process.stderr is not None
    assert process.stderr.readline() == "all but one\n"
    process.send_signal(ended_by)
    message = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert ended_by == signal.SIGKILL or "KeyboardInterrupt" in message
    assert known(MediaIndex(tmp_path / "index.sqlite"), media) == [*DIGESTS[:-1], None]
