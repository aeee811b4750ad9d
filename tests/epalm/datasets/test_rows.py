"""The same samples in any form are read alike; what cannot be read is one message that says how to write it."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.datasets import load_dataset
from epalm.datasets.entries import read_rows
from epalm.errors import UsageError
from epalm.samples import Sample
from tests.shared_files import shared_case

# Texts that readers of tables like to take for something else, and any others.
TRICKY = (
    "NA",
    "null",
    "None",
    "nan",
    "True",
    "01",
    "1e5",
    "[music] a man",
    "['tis a song",
    " a",
    "a,b;c\td",
    'say "x"',
)
TEXTS = st.one_of(
    st.sampled_from(TRICKY),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(lambda text: text.strip()),
    st.sampled_from(("two\nlines", "two\r\nlines", "é", "😀")),
)
WORDS = st.sampled_from(("NA", "null", "01", "a", "é"))
ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"task": st.just("qa"), "prompt": TEXTS, "answers": st.dictionaries(TEXTS, st.just(0.5), min_size=1)}
        ),
        st.fixed_dictionaries({"task": st.just("caption"), "references": st.lists(TEXTS, min_size=1, max_size=3)}),
    ),
    min_size=1,
    max_size=4,
)
KEYS = ("id", "modality", "media", "task", "split", "prompt", "answers", "references")


def _table(rows: list[dict[str, Any]], separator: str, end: str, *, index: bool, gaps: bool) -> str:
    """What csv writers make of the rows, perhaps with pandas' index and with empty rows."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end)
    writer.writerow([""] * index + list(KEYS))
    for number, row in enumerate(rows):
        cells = [row.get(key, "") for key in KEYS]
        cells = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell for cell in cells]
        if gaps:
            file.write(end)
            writer.writerow([""] * (index + len(KEYS)))
        writer.writerow([number] * index + cells)
    return file.getvalue()


def _json(rows: list[dict[str, Any]], *, array: bool, nulls: bool, numbers: bool, escaped: bool) -> str:
    full = [{**(dict.fromkeys(KEYS) if nulls else {}), **row} for row in rows]
    full = [{**row, "id": int(row["id"])} if numbers else row for row in full]
    if array:
        return json.dumps(full, indent=1, ensure_ascii=escaped)
    return "\n\n".join(json.dumps(row, ensure_ascii=escaped) for row in full)


def _read(text: str, name: str, *, bom: bool) -> tuple[Sample, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
        return load_dataset(str(path)).samples


@settings(max_examples=40, deadline=None)
@given(
    rows=ROWS,
    bom=st.booleans(),
    end=st.sampled_from(("\n", "\r\n")),
    index=st.booleans(),
    gaps=st.booleans(),
    nulls=st.booleans(),
    numbers=st.booleans(),
    escaped=st.booleans(),
)
def test_one_set_of_samples_in_every_form_is_one_set_of_samples(
    rows: list[dict[str, Any]], bom: bool, end: str, index: bool, gaps: bool, nulls: bool, numbers: bool, escaped: bool
) -> None:
    base = {"modality": "image", "split": "train"}
    rows = [{"id": str(n), **base, "media": f"images/{n}é.jpg", **row} for n, row in enumerate(rows)]
    lines = _read(_json(rows, array=False, nulls=False, numbers=False, escaped=True), "s.jsonl", bom=False)
    assert [(s.id, s.media, s.prompt, dict(s.answers), list(s.references)) for s in lines] == [
        (r["id"], r["media"], r.get("prompt"), r.get("answers", {}), r.get("references", [])) for r in rows
    ]
    options = {"nulls": nulls, "numbers": numbers, "escaped": escaped}
    assert _read(_json(rows, array=False, **options), "s.jsonl", bom=bom) == lines
    assert _read(_json(rows, array=True, **options), "s.json", bom=bom) == lines
    assert _read(_json(rows, array=True, **options), "s.jsonl", bom=bom) == lines
    for separator, name in ((",", "s.csv"), (";", "s.csv"), ("\t", "s.tsv")):
        assert _read(_table(rows, separator, end, index=index, gaps=gaps), name, bom=bom) == lines


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        [
            {
                "id": 1,
                "modality": "image",
                "media": "a.png",
                "task": "qa",
                "split": "test",
                "prompt": "NA",
                "answers": "2",
            },
            {"id": 2, "modality": "image", "media": "a.png", "task": "caption", "split": "test", "references": "a cat"},
        ]
    )
    frame.to_csv(tmp_path / "index.csv")
    frame.to_csv(tmp_path / "plain.tsv", index=False, sep="\t")
    lists = frame.assign(answers=pandas.Series([{"2": 1.0}, None]), references=pandas.Series([None, ["a cat"]]))
    lists.to_json(tmp_path / "lines.jsonl", orient="records", lines=True)
    lists.to_json(tmp_path / "list.json", orient="records")
    read = [load_dataset(str(path)).samples for path in sorted(tmp_path.iterdir())]
    assert read == [read[0]] * 4
    assert [(s.id, s.prompt, s.answers, s.references) for s in read[0]] == [
        ("1", "NA", {"2": 1.0}, ()),
        ("2", None, {}, ("a cat",)),
    ]


HEAD = "id,modality,media,task,split,prompt,answers,references\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (HEAD + "1,image,a,qa,test,what,{'cat': 1.0},\n", "row 2: column 'answers' has {'cat': 1.0}", '{"cat": 1.0}'),
        (
            HEAD + '\n1,image,a,caption,test,,,"[\'a cat\', ""b""]"\n',
            "row 3: column 'references'",
            '["a cat", "a black cat"]',
        ),
        (HEAD + "1,image,a,caption,test,,,['a' 'b']\n", "row 2: column 'references'", '["a cat", "a black cat"]'),
        (HEAD + '1,image,a,caption,test,,,"[1, 2]"\n', "row 2: 'references' must be a list", '["a cat"'),
        (HEAD + "1,image,a,caption,test,,\n", "row 2: fewer cells than columns", "cut off"),
        (
            HEAD + '1,image,a,caption,test,,,"a\nb"\n2,image,a,caption,test,,,a cat, big\n',
            "row 3: more cells",
            "quotes",
        ),
        (HEAD + "1,image,a,caption,test,,,a,b,c,d\n", "Expected 9 fields in line 2", "quotes"),
        (HEAD + '1,image,a,caption,test,,,"a\n', "not a table (unexpected end of data)", None),
        (HEAD + '1,image,a,caption,test,,,"a"b\n', "not a table", None),
        (HEAD.replace("\n", ",id\n") + "1,image,a,caption,test,,,a,1\n", "row 1: there are two columns 'id'", None),
        (HEAD.replace("\n", ",\n") + "1,image,a,caption,test,,,a,x\n", "row 2: unknown key ''", None),
        (HEAD, "holds no row", None),
        ("", "holds no row", None),
    ],
)
def test_a_table_that_cannot_be_read_is_one_message(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_dataset(str(path))
    assert str(path) in caught.value.message and message in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(' \n,name\n0,"a\nb"\n \t\n1,c\n2,"d\r\ne"\n3,f\n')
    assert [(row.where, row.values) for row in read_rows(path)] == [
        ("row 3", {"name": "a\nb"}),
        ("row 5", {"name": "c"}),
        ("row 6", {"name": "d\r\ne"}),
        ("row 7", {"name": "f"}),
    ]
    path.write_text(path.read_text() + "4\n")
    with pytest.raises(UsageError, match="row 8: fewer cells"):
        list(read_rows(path))


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00", r"\ud83d \ude00"])
@pytest.mark.parametrize("name", ["s.jsonl", "s.json"])
def test_half_a_character_is_one_message(tmp_path: Path, half: str, name: str) -> None:
    rows = [{"id": n, "text": r"whole \ud83d\ude00 HALF"} for n in range(2)]
    text = json.dumps(rows) if name == "s.json" else "\n".join(map(json.dumps, rows))
    text = text.replace(r"\\u", r"\u")
    path = tmp_path / name
    path.write_text(text.replace("HALF", "é"))
    assert [row.values["text"] for row in read_rows(path)] == ["whole 😀 é"] * 2
    path.write_text(text[::-1].replace("FLAH", half[::-1], 1)[::-1].replace("HALF", ""))  # in the last row
    with pytest.raises(UsageError, match=r"(line|entry) 2: 'text' has '\\u"):
        list(read_rows(path))


def test_ids_are_unique_in_a_split(tmp_path: Path) -> None:
    base = {"id": 7, "modality": "image", "media": "a", "task": "caption", "references": ["x"]}
    rows = [{**base, "split": "train"}, {**base, "split": "test", "id": "7"}, {**base, "split": "train"}]
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(map(json.dumps, rows[:2])))
    assert [(sample.id, sample.split) for sample in load_dataset(str(path)).samples] == [("7", "train"), ("7", "test")]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match="line 3: id '7' is used twice in split 'train'"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    "written", ["images/a.jpg", "images\\a.jpg", "{root}/images/a.jpg", "{root}/link/../images/a.jpg"]
)
def test_a_path_inside_the_root_is_inside(tmp_path: Path, written: str) -> None:
    root = tmp_path / "real"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.jpg").touch()
    (tmp_path / "linked").symlink_to(root)
    row = {"id": "1", "modality": "image", "task": "caption", "split": "train"}
    for given_root in (root, tmp_path / "linked"):
        path = given_root / "s.jsonl"
        path.write_text(json.dumps({**row, "media": written.format(root=given_root)}))
        (sample,) = load_dataset(str(path)).samples
        if ".." in written:
            assert sample.media.startswith("/")  # left as it is, and refused where it is looked for
        else:
            assert sample.media == "images/a.jpg"


def test_files_of_many_forms(tmp_path: Path) -> None:
    root = shared_case("data-files")
    (tmp_path / "abs.csv").write_text((root / "abs.csv").read_text().replace("ROOT", str(root)))
    for path in (*root.glob("*.*"), tmp_path / "abs.csv"):
        if path != root / "abs.csv":
            samples = load_dataset(f"{path}:{root}").samples
            assert [(s.id, s.media) for s in samples] == [
                ("1", "images/a.jpg"),
                ("2", "images/b.jpg"),
                ("3", "images/cé.jpg"),
            ]
            assert [s.references[0].strip() for s in samples] == ["a cat", "a dog, big", "café"]


def test_data_files_of_many_forms() -> None:
    root = shared_case("data-forms")
    for name in ("bom.jsonl", "intid.jsonl", "arraypretty.jsonl", "plain.tsv", "semicolon.csv"):
        samples = load_dataset(str(root / name)).samples
        assert [(s.id, s.prompt, s.answers) for s in samples] == [
            ("1", "what is it?", {"cat": 1.0}),
            ("2", "how many?", {"2": 1.0}),
        ]
    assert [s.id for s in load_dataset(str(root / "pandas_lines.jsonl")).samples] == ["1", "2"]
    for name in ("pandas_default.csv", "pandas_noindex.csv", "reprdict.csv", "anslist.jsonl"):
        with pytest.raises(UsageError) as caught:
            load_dataset(str(root / name))
        assert '{"cat": 1.0}' in (caught.value.hint or "")


def test_half_a_character_in_a_data_file() -> None:
    with pytest.raises(UsageError, match=r"data.jsonl, line 1: 'prompt' has '\\ud83d', half of a character"):
        load_dataset(str(shared_case("lone-surrogate") / "data.jsonl"))
