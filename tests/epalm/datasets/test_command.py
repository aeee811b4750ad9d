"""`epalm datasets` says what a benchmark expects, what is there and what is missing; folders hold captions too."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from epalm.cli.app import app
from epalm.datasets import load_dataset
from epalm.datasets.benchmarks import benchmarks
from epalm.errors import UsageError
from epalm.recipes.config import recipes
from epalm.samples import Modality
from tests.benchmark_files import FORMS, write_form
from tests.conftest import Epalm


def test_all_are_listed(epalm: Epalm) -> None:
    listed = epalm("datasets")
    assert listed.code == 0
    assert all(name in listed.out for name in benchmarks())
    assert set(json.loads(epalm("datasets", "--json").out)) == set(benchmarks())


@pytest.mark.parametrize("spec", FORMS)
def test_the_layout_is_the_one_that_is_read(spec: str, epalm: Epalm, tmp_path: Path) -> None:
    name, _, form = spec.partition("/")
    expected = json.loads(epalm("datasets", name, "--json").out)["files"]
    assert {place["form"] for place in expected} == {one.name for one in benchmarks()[name].forms}
    assert not any(place["found"] for place in expected)
    root = write_form(spec, tmp_path)
    layout = json.loads(epalm("datasets", spec, "--root", root, "--json").out)
    assert {place["found"] for place in layout["files"] if not place["folder"]} - {None} == set(FORMS[spec][0])
    assert {place["form"] for place in layout["files"]} == {form}
    folders = {place["found"] for place in layout["files"] if place["folder"]} - {None}
    assert {Path(media).parent.as_posix() for media in FORMS[spec][1]} <= folders
    assert all(split["media"] == split["media_there"] > 0 for split in layout["splits"])


def test_what_is_missing_is_said(epalm: Epalm, tmp_path: Path) -> None:
    root = write_form("vqa-v2/official", tmp_path / "data")
    (root / "v2_OpenEnded_mscoco_test2015_questions.json").unlink()
    (root / "val2014/COCO_val2014_000000262148.jpg").unlink()
    done = epalm("datasets", "vqa-v2", "--root", root)
    assert done.code == 0, done.err
    lines = {tuple(line.split())[1]: line for line in done.out.splitlines() if line.startswith("│")}
    assert "missing" in lines["v2_OpenEnded_mscoco_test2015_questions.json"]
    assert "B" in lines["v2_mscoco_val2014_annotations.json"] and "1 file " in lines["train2014/"]
    assert lines["val"].split()[1::2] == ["val", "1", "1", "1", "1"]  # samples, with answers, media, missing
    assert lines["train"].split()[1::2] == ["train", "2", "2", "1", "0"]
    plain = epalm("datasets", "vqa-v2")
    assert "https://visualqa.org" in plain.out and "karpathy_train.json" in plain.out and "there" not in plain.out


def test_a_folder_without_its_files_shows_the_layout_and_the_fault(epalm: Epalm, tmp_path: Path) -> None:
    done = epalm("datasets", "gqa", "--root", tmp_path)
    assert done.code == 1
    assert "train_balanced_questions.json" in done.out
    assert "holds no annotation file of gqa" in done.err and "Traceback" not in done.err
    assert "epalm datasets" not in done.err
    listed = epalm("datasets", "gqa", "--root", tmp_path, "--json")
    shown = json.loads(listed.out)
    assert listed.code == 1 and listed.err == done.err and shown["splits"] == []
    assert shown["files"] and not any(file["found"] for file in shown["files"])
    for words, message in (
        (("datasets", "vqa"), "there is no benchmark 'vqa'"),
        (("datasets", "gqa/mine"), "gqa has no form 'mine'"),
        (("datasets", "--root", tmp_path), "--root is the folder of one benchmark"),
        (("datasets", "gqa", "--root", tmp_path / "gone"), "is not a folder"),
    ):
        done = epalm(*words)
        assert done.code == 1 and message in done.err and "→" in done.err


def test_the_page_names_every_file_and_its_commands_are_commands() -> None:
    page = (Path(__file__).parents[3] / "docs/datasets.md").read_text()
    for benchmark in benchmarks().values():
        assert f"`{benchmark.name}:/root`" in page
        assert all(source in page for source in re.findall(r"https://[^ ,]+", benchmark.source))
        assert all(f"`{benchmark.name}/{form.name}" in page or form.name == "list" for form in benchmark.forms[1:])
        for place in benchmark.layout().itertuples():
            expected = str(place.expected)
            assert f"{expected.split('/', maxsplit=1)[0]}/" in page if place.folder else expected in page, place
    commands = [line.split("#")[0].split() for line in re.findall(r"^epalm .*", page, re.MULTILINE)]
    group = get_command(app)
    for _, name, *words in commands:
        group.commands[name].make_context(name, words, resilient_parsing=False)  # type: ignore[attr-defined]
    named = {word.partition(":")[0] for words in commands for word in words if ":/data" in word}
    assert named <= {*benchmarks(), *(f"{one.name}/{form.name}" for one in benchmarks().values() for form in one.forms)}
    assert {words[words.index("--recipe") + 1] for words in commands if "--recipe" in words} <= set(recipes())


def test_captions_lie_beside_the_media_of_a_folder(tmp_path: Path) -> None:
    for name, text in (("val/cat.jpg", "a cat\n\n a grey cat \n"), ("dog.jpg", "a dog"), ("x/cow.jpg", None)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if text:
            path.with_suffix(".txt").write_text(text)
    (tmp_path / "notes.txt").write_text("of no medium")
    samples = load_dataset(str(tmp_path), Modality.IMAGE).samples
    assert {sample.media: (sample.split, sample.references) for sample in samples} == {
        "val/cat.jpg": ("val", ("a cat", "a grey cat")),
        "dog.jpg": ("train", ("a dog",)),
        "x/cow.jpg": ("test", ()),
    }
    (tmp_path / "dog.txt").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        load_dataset(str(tmp_path))
    assert str(tmp_path / "dog.txt") in caught.value.message
