"""Digests of media: those of the bytes, computed once while a file stays as it is."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from epalm.cache import media_index
from epalm.cache.media_index import MediaIndex

LONG_AGO = time.time() - 3600


def _file(path: Path, content: bytes, changed: float = LONG_AGO) -> Path:
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, in order."""
    done: list[Path] = []

    def digest_file(path: Path) -> str:
        done.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(media_index, "digest_file", digest_file)
    return done


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    path, index = _file(tmp_path / "a", b"one"), MediaIndex(tmp_path / "cache/index.sqlite")
    assert index.digest(path) == index.digest(path) == hashlib.sha256(b"one").hexdigest()
    assert MediaIndex(tmp_path / "cache/index.sqlite").digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(hashed) == 1
    _file(path, b"two", LONG_AGO + 5)
    assert index.digest(path) == hashlib.sha256(b"two").hexdigest()
    assert len(hashed) == 2


def test_a_file_changed_just_now_is_not_trusted(tmp_path: Path, hashed: list[Path]) -> None:
    path, index = _file(tmp_path / "a", b"one", time.time()), MediaIndex(tmp_path / "index.sqlite")
    index.digest(path)
    index.digest(path)
    assert len(hashed) == 2


def test_files_that_cannot_be_read_have_no_digest(tmp_path: Path) -> None:
    index = MediaIndex(tmp_path / "index.sqlite")
    there = _file(tmp_path / "a", b"one")
    assert index.digests([tmp_path / "missing", tmp_path, there, there])[:2] == [None, None]
    assert index.digests([]) == []


@pytest.mark.parametrize("damage", [b"", b"no database at all " * 100])
def test_a_damaged_index_costs_time_only(damage: bytes, tmp_path: Path) -> None:
    path, index = _file(tmp_path / "a", b"one"), MediaIndex(tmp_path / "index.sqlite")
    expected = index.digest(path)
    for name in tmp_path.glob("index.sqlite*"):
        name.write_bytes(damage)
    assert index.digest(path) == expected


def test_where_no_index_can_be_written_digests_are_computed(tmp_path: Path) -> None:
    path = _file(tmp_path / "a", b"one")
    (tmp_path / "blocked").write_text("a file where the folder should be")
    assert MediaIndex(tmp_path / "blocked/index.sqlite").digest(path) == hashlib.sha256(b"one").hexdigest()
