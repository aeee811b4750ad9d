"""Forms in which others write predictions, and in which data are written: each is read, or is one message."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epalm.datasets.generic import LITERAL
from epalm.evaluate.given import FORMS, read_given
from epalm.samples import Modality, Sample, Task
from tests.conftest import Epalm
from tests.shared_files import shared_case

EXACT = ("--metrics", "exact match")
SAID = {"0": "cat", "1": "dog, or cat", "2": "", "3": "[a] cat\u2028"}
NUMBERS = {int(name): text for name, text in SAID.items()}


def _table(key: str, text: str, separator: str, index: bool = False) -> str:
    frame = pd.DataFrame({key: NUMBERS.keys(), "score": 0.5, text: NUMBERS.values()})
    return str(frame.to_csv(sep=separator, index=index))


def _lines(key: str, text: str, said: Mapping[Any, str], **more: Any) -> str:
    return "".join(json.dumps({key: name, text: one, **more}, ensure_ascii=False) + "\n" for name, one in said.items())


FILES = {
    "ours.jsonl": _lines("id", "text", SAID, answer="what is right", prompt=None),
    "numbers.jsonl": _lines("id", "text", NUMBERS),
    "vqa.json": json.dumps([{"question_id": n, "answer": one} for n, one in NUMBERS.items()], indent=2),
    "gqa.json": json.dumps([{"questionId": n, "prediction": one} for n, one in SAID.items()]),
    "llava.jsonl": _lines("question_id", "text", NUMBERS, prompt="what is it?\nAnswer with a word.", model_id="x"),
    "coco.json": json.dumps([{"image_id": n, "caption": one} for n, one in NUMBERS.items()]),
    "lmms.json": json.dumps([{"question_id": n, "prediction": one} for n, one in NUMBERS.items()]),
    "lists.json": json.dumps({name: [text] for name, text in SAID.items()}),
    "object.json": json.dumps(SAID),
    "pretty.json": json.dumps(SAID, indent=1, ensure_ascii=False),
    "ours.csv": _table("id", "text", ","),
    "pandas.csv": _table("id", "text", ",", index=True),
    "vqa.tsv": _table("question_id", "answer", "\t"),
    "gqa.csv": _table("questionId", "prediction", ";"),
    "records.json": pd.DataFrame({"id": NUMBERS.keys(), "text": NUMBERS.values()}).to_json(orient="records"),
    "lines.json": pd.DataFrame({"id": NUMBERS.keys(), "text": NUMBERS.values()}).to_json(orient="records", lines=True),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_texts(name: str, ends: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].replace("\n", ends).encode(encoding))
    samples = [Sample(n, Modality.IMAGE, f"{n}.jpg", Task.QA, "val", "what is it?", {"cat": 1.0}) for n in SAID]
    result = read_given(path, samples)
    assert {one.id: one.text for one in result.predictions} == SAID
    assert len(result.compared) == (4 if name == "llava.jsonl" else 0)
    assert not result.unknown and not result.repeated and not result.others


_KEYS = {*FORMS, *(text for texts in FORMS.values() for text in texts)}  # a name of these would make a map a row


def _as_table(said: dict[str, str], separator: str) -> str:
    frame = pd.DataFrame({"id": said.keys(), "text": said.values()})
    return str(frame.to_csv(sep=separator, index=False, quoting=csv.QUOTE_ALL))  # else a carriage return is bare


@given(
    said=st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1).filter(lambda name: name not in _KEYS),
        st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4,
    ),
    write=st.sampled_from(
        [
            lambda said: _lines("id", "text", said),
            lambda said: json.dumps([{"id": name, "text": text} for name, text in said.items()]),
            json.dumps,
            lambda said: json.dumps(said, indent=2, ensure_ascii=False),
            lambda said: _as_table(said, ","), lambda said: _as_table(said, ";"), lambda said: _as_table(said, "\t"),
        ]
    ),
)  # fmt: skip
@example(said={"0": "\r", "1": 'say "hi", twice\n'}, write=lambda said: _as_table(said, ","))
@example(said={"0": "0", "1": "NA", "2": " a "}, write=lambda said: _as_table(said, ";"))
def test_any_text_is_read_as_it_was_written(
    said: dict[str, str], write: Callable[[dict[str, str]], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "said"
    path.write_bytes(write(said).encode())
    samples = [Sample(name, Modality.IMAGE, "m", Task.QA, "val", "?", {"cat": 1.0}) for name in said]
    if path.read_bytes().startswith(b'"id"') and any(LITERAL.fullmatch(text) for text in said.values()):
        return  # refused in tables
    assert {one.id: one.text for one in read_given(path, samples).predictions} == said


@pytest.mark.parametrize("name", ["p.csv", "p_dict.json", "p_dictpretty.json", "p_gqa.json", "p_num.json"])
def test_forms_that_others_write(name: str, tmp_path: Path, epalm: Epalm) -> None:
    folder, out = shared_case("prediction-forms"), tmp_path / "out.json"
    done = epalm("score", "--predictions", folder / name, "--data", folder / "plain.jsonl", "--out", out, *EXACT)
    assert done.code == 0, done.err
    assert json.loads(out.read_text())["tasks"]["qa"]["metrics"]["exact match"] == 1.0


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("arraypretty.jsonl", 1.0), ("bom.jsonl", 1.0), ("intid.jsonl", 1.0), ("plain.tsv", 1.0),
        ("semicolon.csv", 1.0), ("pandas_lines.jsonl", 1.0), ("anslist.jsonl", None), ("reprdict.csv", None),
        ("pandas_default.csv", None), ("pandas_noindex.csv", None),
    ],
)  # fmt: skip
def test_predictions_of_data_in_every_form(name: str, exact: float | None, tmp_path: Path, epalm: Epalm) -> None:
    folder, out = shared_case("data-forms"), tmp_path / "out.json"
    done = epalm("score", "--predictions", folder / "p.jsonl", "--data", folder / name, "--out", out, *EXACT)
    assert "Traceback" not in done.err
    if exact is None:
        assert done.code == 1 and done.err.count("error: ") == 1 and "→" in done.err
    else:
        assert json.loads(out.read_text())["tasks"]["qa"]["metrics"]["exact match"] == exact


def test_half_a_character_is_one_message(tmp_path: Path, epalm: Epalm) -> None:
    folder, path = shared_case("lone-surrogate"), tmp_path / "p_surr.jsonl"
    path.write_text((folder / "p.jsonl").read_text().replace("two", "tw\\ud83d"))
    for predictions, data, where in (
        (folder / "p.jsonl", folder / "data.jsonl", "data.jsonl, line 1"),
        (path, folder / "plain.jsonl", "p_surr.jsonl, line 2"),
    ):
        done = epalm("score", "--predictions", predictions, "--data", data)
        assert done.code == 1 and done.err.count("error: ") == 1 and where in " ".join(done.err.split()), done.err


@pytest.mark.parametrize(
    "right",
    [
        {"BLEU-4": 0.752382, "CIDEr": 3.616575},
        pytest.param({"METEOR": 0.532128}, marks=pytest.mark.slow),  # its tables take long to read
    ],
)
def test_odd_captions_score_as_the_published_code_says(right: dict[str, float], tmp_path: Path, epalm: Epalm) -> None:
    """Line separators, emoji, Arabic, empty texts, bars: as pycocoevalcap scores them."""
    folder, out = shared_case("captions-odd"), tmp_path / "out.json"
    words = ("--predictions", folder / "preds.jsonl", "--data", folder / "data.jsonl", "--metrics", ",".join(right))
    done = epalm("score", *words, "--out", out)
    assert done.code == 0, done.err
    result = json.loads(out.read_text())["tasks"]["caption"]["metrics"]
    assert {name: round(result[name], 6) for name in right} == right
