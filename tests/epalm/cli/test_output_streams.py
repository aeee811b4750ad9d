"""Output on whatever stream there is: every command on terminals of other encodings, tables on narrow ones."""

import io
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from epalm.__main__ import main
from epalm.cli.app import app
from epalm.console import print_table
from epalm.train.runs.listing import COLUMNS
from tests.shared_files import shared_case

ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8", "utf-16")


def _helps() -> list[tuple[str, ...]]:
    def walk(words: tuple[str, ...], command: object) -> list[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        return [(*words, "--help"), *(each for name, child in children.items() for each in walk((*words, name), child))]

    return walk((), typer.main.get_command(app))


def _run(
    words: tuple[str, ...], encoding: str, monkeypatch: pytest.MonkeyPatch, columns: int = 160
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, of streams that are strict about what they cannot write."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", write_through=True) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["epalm", *words])
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setenv("COLUMNS", str(columns))
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return code, out, err


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_says_what_it_does_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helps = _helps()
    for words in helps if encoding == "ascii" else helps[:: len(ENCODINGS)]:
        code, out, _ = _run(words, encoding, monkeypatch)
        assert code == 0 and "Usage" in out, words


FIGURE = {"value": 0.9, "scored": 60, "expected": 60, "of": 60, "split": "test", "data": "own.jsonl"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_results_and_faults_come_out_in_every_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = '{"id": "1", "modality": "image", "media": "a.png", "task": "qa", "split": "test", "prompt": "é?"'
    Path("data.jsonl").write_text(sample + ', "answers": {"cat": 1.0}}\n', encoding="utf-8")
    Path("p.jsonl").write_text('{"id": "1", "text": "cat"}\n', encoding="utf-8")
    code, out, err = _run(("score", "--predictions", "p.jsonl", "--data", "data.jsonl"), encoding, monkeypatch)
    assert code == 0 and "100.00" in out, err
    for words in (("recipes",), ("recipes", "vqa-v2"), ("datasets",), ("datasets", "vqa-v2"), ("runs",)):
        code, out, err = _run(words, encoding, monkeypatch)
        assert code == 0, err
    code, out, err = _run(("score", "--run", "été → \udcff"), encoding, monkeypatch)
    assert code == 1 and err.count("error: ") == 1 and "Traceback" not in err
    assert ("été → " in err) == encoding.startswith("utf") and "\\udcff" in err


def _frame(run: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([run], columns=list(COLUMNS)).astype(COLUMNS)


def test_a_list_of_runs_and_the_state_of_the_machine_come_out_in_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {"name": "été", "state": "done", "step": 4, "steps": 4, "scores": {"caption CIDEr": FIGURE}}
    monkeypatch.setattr("epalm.train.runs.listing.runs_frame", lambda _folder: _frame(run))
    assert "\\xe9t\\xe9" in _run(("runs",), "ascii", monkeypatch)[1]
    code, out, err = _run(("doctor", "--cache", str(tmp_path), "--runs", str(tmp_path)), "latin-1", monkeypatch)
    assert code == 0 and "Python" in out, err


def test_the_given_predictions_are_scored_on_a_latin_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = shared_case("non-utf8-stdout")
    words = (
        "score",
        "--predictions",
        f"{case}/p.jsonl",
        "--data",
        f"{case}/plain.jsonl",
        "--out",
        f"{tmp_path}/s.json",
    )
    code, out, err = _run(words, "latin-1", monkeypatch)
    assert code == 0 and "100.00 " in out, err


_WORDS = st.text("abé–×界", min_size=1, max_size=30)
_CELLS = st.lists(_WORDS, max_size=6).map(" ".join)


@given(
    rows=st.integers(1, 9).flatmap(
        lambda n: st.lists(st.lists(_CELLS, min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    width=st.integers(20, 130),
)
def test_no_word_is_cut_and_no_line_of_a_table_is_too_long(rows: list[list[str]], width: int) -> None:
    from rich.cells import cell_len

    columns = [f"c{number}" for number in range(len(rows[0]))]
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as out:
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stdout", out)
        print_table("title", columns, rows)
        printed = out.getvalue()
    if "┃" in printed:
        assert all(cell_len(line) <= width for line in printed.splitlines())
    for row in rows:
        assert row[0] in printed
        assert all(word in printed for cell in row for word in cell.split())


def test_runs_on_a_narrow_terminal_are_a_record_each(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "20261128-100014-audio-playground-blind"
    run: dict[str, Any] = {
        "name": name,
        "state": "stopped",
        "modality": "audio",
        "recipe": "playground",
        "variant": "epalm",
    }
    run |= {"step": 10, "steps": 400, "val_loss": 2.5, "val_exact": 0.5, "val_samples": 80}
    run["scores"] = {"qa exact match": FIGURE}
    monkeypatch.setattr("epalm.train.runs.listing.runs_frame", lambda _folder: _frame(run))
    _, wide, _ = _run(("runs",), "utf-8", monkeypatch)
    assert f"│ {name} │" in wide
    _, narrow, _ = _run(("runs",), "utf-8", monkeypatch, columns=80)
    lines = narrow.splitlines()
    assert (
        lines[1] == name
        and "  steps: 10/400" in lines
        and "  scores × 100: qa exact match 90.00 (60/60, test of own.jsonl)" in lines
    )
