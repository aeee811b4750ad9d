"""A file read entry by entry gives what reading it whole gives, wherever the reads end, and a cut one is a message."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.datasets import text_file
from epalm.datasets.text_file import walk_json
from epalm.errors import UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WHOLE = {"info": {"a": [1, {"b": 'ü\\"]'}]}, "rows": [{"id": 1}, [2], "x, ]", 4.5e3], "none": None, "empty": []}


def _expected(value: Any) -> Iterator[tuple[str, int, Any]]:
    if isinstance(value, list):
        yield from (("", number, entry) for number, entry in enumerate(value, 1))
        return
    for key, member in value.items():
        if isinstance(member, list):
            yield from ((key, number, entry) for number, entry in enumerate(member, 1))
        else:
            yield key, 0, member


@settings(max_examples=60)
@given(
    value=st.lists(VALUES, max_size=5) | st.dictionaries(st.text(), VALUES, max_size=5),
    chunk=st.integers(1, 40),
    indent=st.sampled_from((None, 1)),
    ascii_only=st.booleans(),
)
def test_it_is_what_the_whole_file_says(
    value: Any, chunk: int, indent: int | None, ascii_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "walked.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8", errors="replace")
    value = json.loads(path.read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_CHUNK", chunk)
        assert list(walk_json(path)) == list(_expected(value))


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_cut_off_anywhere_it_is_one_message(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_CHUNK", chunk)
    text, path = json.dumps(WHOLE), tmp_path / "cut.json"
    for length in range(len(text)):
        path.write_text(text[:length])
        with pytest.raises(UsageError, match="not JSON") as caught:
            list(walk_json(path))
        assert caught.value.message.startswith(f"{path}, ")


def test_a_fault_names_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, where in (
        ('{"rows": [1, 2, nope]}', "entry 3 of 'rows'"),
        ("[{}, {]", "entry 2"),
        ('{"info": {"a": }}', "'info'"),
        ("[1] [2]", "something follows"),
        ("{1: 2}", "not JSON"),
        ('"text"', "in place of"),
        ("", "the file ends there"),
        ("[1 2]", "entry 1"),
        (f"[{'9' * 10_000}]", "entry 1"),
        (f"[{'[' * 100_000}", "entry 1"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            list(walk_json(path))
        assert str(path) in caught.value.message and where in caught.value.message
        assert len(caught.value.message) < 400


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(UsageError, match="not UTF-8"):
        list(walk_json(path))
    with pytest.raises(UsageError, match="is not a file"):
        list(walk_json(tmp_path))
    path.write_text(json.dumps(["x" * 300]))
    monkeypatch.setattr(text_file, "_CHUNK", 10)
    monkeypatch.setattr(text_file, "_LONGEST", 100)
    with pytest.raises(UsageError, match=r"entry 1.*over 100 characters"):
        list(walk_json(path))


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_CHUNK", 1 << 14)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": [{"id": number, "text": "x" * 200} for number in range(8_000)]}))
    assert path.stat().st_size > 1_600_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in walk_json(path)) == 8_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400_000  # bytes
