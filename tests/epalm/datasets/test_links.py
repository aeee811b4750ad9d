"""Links below a data folder are followed when that is asked for, end, and are still followed in later steps."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epalm.datasets import load_dataset
from epalm.datasets.listing import list_files
from epalm.errors import MediaError
from tests.conftest import Epalm

LINKS = st.lists(
    st.tuples(st.sampled_from(("a", "b", "a/c", "out/x")), st.sampled_from((".", "..", "a", "b", "out", "gone")))
)


@settings(max_examples=60, deadline=None)
@given(links=LINKS, follow=st.booleans())
def test_links_of_any_kind_end_and_name_each_file_once(links: list[tuple[str, str]], follow: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        root, out = base / "root", base / "out"
        for folder in (root / "a" / "c", root / "b", out / "x"):
            folder.mkdir(parents=True)
            (folder / "1.jpg").touch()
        for number, (place, target) in enumerate(links):
            parent = out / "x" if place == "out/x" else root / place
            (parent / f"l{number}").symlink_to(out if target == "out" else target)
        files, passed_over = list_files(root, follow_links=follow)
        real = [os.path.realpath(root / name) for name in files if name.endswith(".jpg")]
        assert len(real) == len(set(real)) >= 2
        assert all(Path(path).is_relative_to(root.resolve()) for path in real) or follow
        leads_out = any(target == "out" and place != "out/x" for place, target in links)
        if follow and leads_out:
            assert str((out / "x" / "1.jpg").resolve()) in real
        if not follow:
            to_folders = [t for p, t in links if p != "out/x" and t not in ("gone", "a", "b")]
            assert passed_over.get("linked", 0) == len(to_folders)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "file inside", "folder inside", "circle", "dangling", "chain"])
def test_links_on_and_off(tmp_path: Path, kind: str, follow: bool) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "real").mkdir(parents=True)
    out.mkdir()
    (root / "real" / "1.jpg").write_bytes(b"1")
    (out / "2.jpg").write_bytes(b"2")
    target = {
        "file": out / "2.jpg",
        "folder": out,
        "file inside": root / "real" / "1.jpg",
        "folder inside": root / "real",
        "circle": root,
        "dangling": out / "gone.jpg",
        "chain": tmp_path / "step",
    }[kind]
    (tmp_path / "step").symlink_to(out)
    link = root / ("link.jpg" if target.suffix else "link")
    link.symlink_to(target)
    dataset = load_dataset(f"{'follow-links:' if follow else ''}{root}")
    media = {sample.media for sample in dataset.samples}
    read = {}
    for name in media:
        try:
            with dataset.locate(name).open() as file:
                read[name] = file.read()
        except MediaError as error:
            assert not follow and "--follow-links" in str(error.hint)
        except OSError:
            assert kind == "dangling"
    expected = {"real/1.jpg": b"1"}
    if kind == "file inside":
        expected["link.jpg"] = b"1"
    elif follow and kind in ("file", "folder", "chain"):
        expected["link.jpg" if kind == "file" else "link/2.jpg"] = b"2"
        assert dataset.linked_roots() == (str(out.resolve()),)
    assert read == expected
    words = {"circle": "linked and read already", "folder inside": "linked and read already"}
    of_folder = kind in ("folder", "folder inside", "circle", "chain")
    assert dataset.passed_over == (
        {} if not of_folder else {"linked": 1} if not follow else {words[kind]: 1} if kind in words else {}
    )


@pytest.mark.parametrize("written", ["../secret.jpg", "link/../../secret.jpg", "/etc/passwd", "http://h/x.jpg"])
def test_a_data_file_leads_out_of_its_root_by_links_alone(tmp_path: Path, written: str) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    (tmp_path / "secret.jpg").touch()
    (out / "1.jpg").touch()
    (root / "link").symlink_to(out)
    row = {"modality": "image", "task": "caption", "split": "train", "references": ["x"]}
    (root / "s.jsonl").write_text(
        json.dumps({**row, "media": "link/1.jpg"}) + "\n" + json.dumps({**row, "media": written})
    )
    dataset = load_dataset(f"follow-links:{root / 's.jsonl'}")
    assert dataset.locate("link/1.jpg").path == out.resolve() / "1.jpg"
    with pytest.raises(MediaError):
        dataset.locate(written)
    with pytest.raises(MediaError) as caught:
        load_dataset(str(root / "s.jsonl")).locate("link/1.jpg")
    assert "--follow-links" in str(caught.value.hint)


# ---- from the command line


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(path)


def _linked_world(base: Path) -> Path:
    """Photos in a Hub snapshot's form, with a linked folder, an equal file, a broken one and leftovers."""
    root = base / "photos"
    (root / "hub").mkdir(parents=True)
    for number in range(3):
        _picture(base / "blobs" / f"{number}.png", number)
        (base / "blobs" / f"{number}.png").rename(base / "blobs" / f"{number}")
        (root / "hub" / f"{number}.png").symlink_to(Path("../../blobs") / str(number))
    _picture(base / "store" / "train" / "4.png", 4)
    (root / "train").symlink_to(base / "store" / "train")
    _picture(root / "own.png", 5)
    shutil.copy(root / "own.png", root / "twin.png")
    (root / "broken.jfif").write_bytes(b"none")
    for name in ("._own.png", ".DS_Store", "notes.xyz", "Thumbs.db", "__MACOSX/._own.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    return root


def test_the_summary_adds_up_and_links_stay_followed(
    tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = _linked_world(tmp_path)
    words = ("extract", "-m", "image", "--weights", "playground", "--workers", "0", "--data", str(root))
    off = epalm(*words, "--json")
    summary = json.loads(off.out)
    assert off.code == 3 and (summary["media"], summary["encoded"], summary["equal"], summary["bad"]) == (6, 1, 1, 4)
    assert "6 files passed over: 4 hidden, 1 linked, 1 of unknown kind" in off.err
    hints = [json.loads(line)["hint"] for line in Path(summary["ledger"]).read_text().splitlines()]
    assert sum("--follow-links" in hint for hint in hints) == 3
    plan = epalm(*words, "--follow-links", "--plan")
    assert plan.code == 0 and f"links lead to {tmp_path / 'blobs'}, {tmp_path / 'store' / 'train'}" in plan.out
    on = epalm(*words, "--follow-links", "--json")
    summary = json.loads(on.out)
    assert summary["media"] == summary["hits"] + summary["encoded"] + summary["equal"] + summary["bad"] == 7
    assert (summary["hits"], summary["encoded"], summary["bad"]) == (2, 4, 1)
    assert summary["passed_over"] == {"hidden": 4, "of unknown kind": 1}
    files = sum(len(names) for _, _, names in os.walk(root, followlinks=True))
    assert summary["media"] + sum(summary["passed_over"].values()) == files
    again = json.loads(epalm(*words, "--follow-links", "--json").out)
    assert (again["hits"], again["encoded"], again["equal"], again["bad"]) == (6, 0, 0, 1)


def test_a_benchmarks_links_are_followed_when_that_is_asked_for(tmp_path: Path, epalm: Epalm) -> None:
    root = tmp_path / "coco"
    _picture(tmp_path / "store" / "COCO_val2014_000000000001.jpg", 1)
    root.mkdir()
    (root / "val2014").symlink_to(tmp_path / "store")
    image = {
        "filepath": "val2014",
        "filename": "COCO_val2014_000000000001.jpg",
        "split": "test",
        "cocoid": 1,
        "imgid": 0,
    }
    (root / "dataset_coco.json").write_text(json.dumps({"images": [{**image, "sentences": [{"raw": "a cat"}]}]}))
    dataset = load_dataset(f"coco-caption:{root}")
    with pytest.raises(MediaError) as caught:
        dataset.locate(dataset.samples[0].media)
    assert "--follow-links" in str(caught.value.hint)
    for words, missing in ((), 1), (("--follow-links",), 0):
        summary = json.loads(epalm("datasets", "coco-caption", "--root", root, *words, "--json").out)
        assert [split["media"] - split["media_there"] for split in summary["splits"]] == [missing]
    dataset = load_dataset(f"follow-links:coco-caption:{root}")
    assert dataset.locate(dataset.samples[0].media).path == tmp_path / "store" / "COCO_val2014_000000000001.jpg"
    assert dataset.linked_roots() == (str(tmp_path / "store"),)
