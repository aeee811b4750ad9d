"""Digests of media: those of the bytes, computed once while a file stays as it is."""

import hashlib
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from epalm.cache import media_index
from epalm.cache.media_index import MediaIndex
from epalm.fingerprint import digest_file
from epalm.media import MediaFile

LONG_AGO = time.time() - 3600


def _file(path: Path, content: bytes, changed: float = LONG_AGO) -> MediaFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return MediaFile(path)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def known(index: MediaIndex, media: Sequence[MediaFile]) -> list[str | None]:
    """Each medium's digest where it has not to be hashed first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaIndex, "_hash", lambda index, missing: {})
        return index.digests(media)


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, in order."""
    done: list[Path] = []

    def counting(path: Path, offset: int, size: int | None, *, pulse: Callable[[], None]) -> str:
        done.append(path)
        return digest_file(path, offset, size, pulse=pulse)

    monkeypatch.setattr(media_index, "digest_file", counting)
    return done


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    medium, index = _file(tmp_path / "a", b"one"), MediaIndex(tmp_path / "cache/index.sqlite")
    assert index.digest(medium) == index.digest(medium) == _sha(b"one")
    assert MediaIndex(tmp_path / "cache/index.sqlite").digest(medium) == _sha(b"one")
    assert len(hashed) == 1
    _file(medium.path, b"two", LONG_AGO + 5)
    assert index.digest(medium) == _sha(b"two")
    assert len(hashed) == 2


def test_a_file_changed_just_now_is_not_trusted(tmp_path: Path, hashed: list[Path]) -> None:
    medium, index = _file(tmp_path / "a", b"one", time.time()), MediaIndex(tmp_path / "index.sqlite")
    index.digest(medium)
    index.digest(medium)
    assert len(hashed) == 2


def test_a_file_that_changes_while_it_is_hashed_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium, index = _file(tmp_path / "a", b"one"), MediaIndex(tmp_path / "index.sqlite")

    def changing(path: Path, offset: int, size: int | None, *, pulse: Callable[[], None]) -> str:
        digest = digest_file(path, offset, size, pulse=pulse)
        _file(path, b"two", LONG_AGO + 5)
        return digest

    monkeypatch.setattr(media_index, "digest_file", changing)
    assert index.digest(medium) == _sha(b"one")
    assert known(index, [medium]) == [None]
    assert index.digest(medium) == _sha(b"two")


def test_stretches_of_a_shard_have_digests_of_their_own(tmp_path: Path, hashed: list[Path]) -> None:
    content = random.Random(0).randbytes(3 << 20)
    shard = _file(tmp_path / "shard.tar", content).path
    places = [(0, 10), (10, 1), (10, 2 << 20), (0, len(content)), (5, 0)]
    media = [MediaFile(shard, offset, size) for offset, size in places] + [MediaFile(shard)]
    index = MediaIndex(tmp_path / "index.sqlite")
    expected = [_sha(content[offset : offset + size]) for offset, size in places] + [_sha(content)]
    assert index.digests(media) == index.digests(media[::-1])[::-1] == expected
    assert len(hashed) == len(media)
    assert index.digest(MediaFile(shard, len(content) - 1, 2)) is None  # not there as a whole
    os.utime(shard, (LONG_AGO + 5, LONG_AGO + 5))
    assert known(index, media) == [None] * len(media)
    _file(shard, content + b"longer")  # with the time it had at first
    assert known(index, media) == [None] * len(media)


def test_files_that_cannot_be_read_have_no_digest(tmp_path: Path) -> None:
    index = MediaIndex(tmp_path / "index.sqlite")
    there = _file(tmp_path / "a", b"one")
    os.mkfifo(tmp_path / "pipe")
    media = [MediaFile(tmp_path / name) for name in ("missing", ".", "pipe", "a/b")] + [there, there]
    for _ in range(2):
        assert index.digests(media) == [None, None, None, None, _sha(b"one"), _sha(b"one")]
    assert index.digests([]) == []


def test_many_files_with_all_kinds_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[Path]
) -> None:
    monkeypatch.setattr(media_index, "_KEYS_AT_ONCE", 7)
    monkeypatch.setattr(media_index, "_SHOWN", 10)
    names = [os.fsencode(name) for name in ("é", "日本", "a b", "a'b", 'a"b', "a\nb", "ÿ", "%_", "\U0001f600")]
    names += [b"\xff", b"\xc3", *(b"%d" % number for number in range(40))]
    media = [_file(tmp_path / "media" / os.fsdecode(name), name) for name in names]
    random.Random(0).shuffle(media)
    index = MediaIndex(tmp_path / "index.sqlite")
    expected = [_sha(os.fsencode(medium.path.name)) for medium in media]
    assert index.digests(media + media) == expected * 2
    assert index.digests(media) == known(index, media) == expected
    assert len(hashed) == len(media)


def test_statuses_taken_before_are_those_that_count(tmp_path: Path, hashed: list[Path]) -> None:
    medium, index = _file(tmp_path / "a", b"one"), MediaIndex(tmp_path / "index.sqlite")
    before = [medium.status()]
    index.digest(medium)
    _file(medium.path, b"two", LONG_AGO + 5)
    assert index.digests([medium], before) == [_sha(b"one")]
    assert index.digests([medium], [None]) == [None]
    assert len(hashed) == 1


def test_reading_only_creates_and_writes_nothing(tmp_path: Path, hashed: list[Path]) -> None:
    medium, new = _file(tmp_path / "media/a", b"one"), _file(tmp_path / "media/b", b"two")
    missing = MediaIndex(tmp_path / "cache/index.sqlite", read_only=True)
    assert missing.digest(medium) == _sha(b"one")
    assert known(missing, [medium]) == [None]
    assert not (tmp_path / "cache").exists()
    MediaIndex(tmp_path / "cache/index.sqlite").digest(medium)
    _file(tmp_path / "damaged/index.sqlite", b"no database " * 100)
    before = _snapshot(tmp_path)
    hashed.clear()
    for name, expected in (("cache", [_sha(b"one"), None]), ("damaged", [None, None])):
        index = MediaIndex(tmp_path / name / "index.sqlite", read_only=True)
        assert known(index, [medium, new]) == expected
        assert index.digests([medium, new]) == [_sha(b"one"), _sha(b"two")]
    assert hashed.count(medium.path) == 1  # of the damaged file nothing is known
    assert _snapshot(tmp_path) == before
