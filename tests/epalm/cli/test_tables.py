"""Listings in each form: the same rows as a table, CSV, JSON and Parquet, missing values included."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from epalm.cli.tables import Format, Record, show_listing
from epalm.errors import UsageError

ROWS: list[dict[str, Any]] = [
    {"name": "NA", "step": 1, "loss": 1 / 3, "scores": {"exact": {"value": 0.1}}},
    {"name": "a,b", "step": None, "loss": None, "scores": None},
]
FRAME = pd.DataFrame(ROWS, columns=list(ROWS[0])).astype({"step": "Int64"})


def _cells(one: Record) -> dict[str, str]:
    return {"name": one["name"], "step": "" if one["step"] is None else f"{one['step']:,}"}


def _show(form: Format, frame: pd.DataFrame = FRAME) -> None:
    show_listing(frame, form, title="things", cells=_cells, empty="there are none", notes=["a note"])


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Format.TABLE)
    shown = capsys.readouterr()
    assert "things" in shown.out and "│ a,b" in shown.out and "nan" not in shown.out.lower()
    assert shown.err == "a note\n"
    _show(Format.TABLE, FRAME[:0])
    shown = capsys.readouterr()
    assert shown.out == "" and "there are none" in shown.err


def test_programs_read_what_the_frame_holds(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Format.JSON)
    assert json.loads(capsys.readouterr().out) == ROWS
    _show(Format.JSON, FRAME[:0])
    assert capsys.readouterr().out == "[]\n"
    _show(Format.CSV)
    read = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert list(read.columns) == list(FRAME.columns) and list(read["name"]) == ["NA", "a,b"]
    assert read["loss"][0] == str(1 / 3) and json.loads(read["scores"][0]) == ROWS[0]["scores"]
    assert list(read["step"]) == ["1", ""]


def _written(tmp_path: Path, records: str) -> pd.DataFrame:
    """What a process of its own writes as Parquet."""
    code = (
        "from tests.epalm.cli.test_tables import FRAME, Format, show_listing\n"
        f"show_listing({records}, Format.PARQUET, title='', empty='')"
    )
    with (tmp_path / "x.parquet").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, cwd=Path(__file__).parents[3])
    return pd.read_parquet(tmp_path / "x.parquet")


def test_parquet_goes_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _written(tmp_path, "FRAME")
    assert list(read["name"]) == ["NA", "a,b"] and read["loss"][0] == 1 / 3 and pd.isna(read["step"][1])
    mixed = _written(tmp_path, "[{'value': 1, 'name': None}, {'value': 0.5, 'name': 'b'}]")
    assert list(mixed["value"]) == [1.0, 0.5] and pd.isna(mixed["name"][0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UsageError, match="terminal"):
        _show(Format.PARQUET)
