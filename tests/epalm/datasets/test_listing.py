"""What is named adds up to what is there; links are followed when that is asked for, and then end."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.datasets import load_dataset
from epalm.datasets.listing import EXTENSIONS, list_files, passed_over_in_words
from epalm.errors import UsageError
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.shards import write_tar
from tests.shared_files import shared_case

ENDINGS = (".jpg", ".JPG", ".jfif", ".mp4", ".webm", ".wav", ".OGG", ".txt", ".xyz", "", ".tar.gz", ".py")
FOLDERS = ("", "a", "b", "a/c", ".git", "__MACOSX", "a/.cache", "a/@eaDir/x", "b/é")
FILES = st.one_of(
    st.tuples(
        st.sampled_from(FOLDERS), st.sampled_from(("1", "2", "._1", "photo:1", "q\\w", "x.y")), st.sampled_from(ENDINGS)
    ),
    st.tuples(
        st.sampled_from(FOLDERS), st.sampled_from((".DS_Store", "Thumbs.db", "desktop.ini", "\udce9")), st.just("")
    ),
).map(lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}".lstrip("/"))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=60, deadline=None)
@given(files=st.sets(FILES, max_size=12), modality=st.sampled_from((None, *Modality)))
def test_any_tree_of_files_adds_up(files: set[str], modality: Modality | None) -> None:
    with _folder() as root:
        for name in files:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a caption")
        captions = 0
        try:
            dataset = load_dataset(str(root), modality)
        except UsageError as error:
            if "tar.gz" in error.message or "is compressed" in error.message:  # a folder of shards alone
                return
            listed, _ = list_files(root)
            assert not any(Path(name).suffix.lower() in EXTENSIONS[modality or Modality.IMAGE] for name in listed)
            return
        media = [sample.media for sample in dataset.samples]
        captions = len({str(Path(name).with_suffix(".txt")) for name in media} & files)
        assert len(media) + captions + sum(dataset.passed_over.values()) == len(files)
        assert set(media) <= files
        hidden = [name for name in files if any(part[0] in "._@TD" and part != "\udce9" for part in _hidden(name))]
        assert dataset.passed_over.get("hidden", 0) == len(hidden)
        for name in media:  # what was listed is read
            with dataset.locate(name).open() as file:
                assert file.read() == b"a caption"


def _hidden(name: str) -> list[str]:
    left = ("__MACOSX", "@eaDir", "Thumbs.db")
    return [part for part in Path(name).parts if part.startswith(".") or part in left] + (
        ["D"] if name.endswith("desktop.ini") else []
    )


@settings(max_examples=30, deadline=None)
@given(files=st.sets(FILES.filter(lambda name: "\udce9" not in name and "\\" not in name), min_size=1, max_size=10))
def test_a_tar_of_a_tree_adds_up_as_well(files: set[str]) -> None:
    with _folder() as root:
        path = write_tar(root / "s.tar", [(name, b"{}") for name in sorted(files)])
        try:
            dataset = load_dataset(str(path))
        except UsageError as error:
            assert "holds no media" in error.message or "is the second" in error.message
            return
        media = {sample.media.removeprefix("s.tar/") for sample in dataset.samples}
        stems = {name.partition(".")[0] for name in media}
        texts = [name for name in files - media if name.endswith(".txt") and name.partition(".")[0] in stems]
        assert len(media) + len(texts) + sum(dataset.passed_over.values()) == len(files)
        hidden = [name for name in files if _hidden(name)]
        assert dataset.passed_over.get("hidden", 0) == len(hidden)


def test_passed_over_in_words() -> None:
    assert passed_over_in_words(Counter({"hidden": 2, "of unknown kind": 9, "linked": 1})) == (
        "12 files passed over: 9 of unknown kind, 2 hidden, 1 linked (--follow-links reads what links lead to)"
    )
    assert passed_over_in_words({"hidden": 1}) == "1 file passed over: 1 hidden"


@pytest.mark.parametrize(
    ("files", "asked", "media"),
    [
        (("a.webm", "b.MP4"), Modality.AUDIO, ["a.webm", "b.MP4"]),
        (("a.webm", "b.wav"), Modality.AUDIO, ["b.wav"]),
        (("a.webm", "b.ogg"), Modality.VIDEO, ["a.webm"]),
        (("a.gif", "b.txt"), Modality.VIDEO, ["a.gif"]),
        (("a.gif", "b.ogg", "c.mp4"), None, ["a.gif", "b.ogg", "c.mp4"]),
    ],
)
def test_the_modality_decides_where_an_extension_may_be_either(
    tmp_path: Path, files: tuple[str, ...], asked: Modality | None, media: list[str]
) -> None:
    for name in files:
        (tmp_path / name).touch()
    dataset = load_dataset(str(tmp_path), asked)
    assert [sample.media for sample in dataset.samples] == media
    shards = tmp_path / "shards"
    shards.mkdir()
    of_shard = load_dataset(str(write_tar(shards / "s.tar", [(name, b"") for name in files])), asked)
    assert [sample.media for sample in of_shard.samples] == [f"s.tar/{name}" for name in media]
    assert all(asked in (None, sample.modality) for sample in (*dataset.samples, *of_shard.samples))


def test_clips_of_a_benchmark_are_found_whatever_holds_their_sound(tmp_path: Path, epalm: Epalm) -> None:
    head = "audiocap_id,youtube_id,start_time,caption\n"
    (tmp_path / "audio" / "test").mkdir(parents=True)
    (tmp_path / "test.csv").write_text(head + "1,abc,30,a dog\n2,-x_y,0,a cat\n3,zzz,5,a bird\n")
    for name in ("abc_30.webm", "abc_30.wav", "-x_y_0.WEBM", "._zzz_5.wav", "zzz_5.part"):
        (tmp_path / "audio" / "test" / name).touch()
    dataset = load_dataset(f"audiocaps:{tmp_path}", Modality.AUDIO)
    assert [sample.media for sample in dataset.samples] == [
        "audio/test/abc_30.wav",
        "audio/test/-x_y_0.WEBM",
        "audio/test/zzz.wav",
    ]
    assert dataset.passed_over == {"hidden": 1, "of unknown kind": 1}
    (place, *_) = [
        place
        for place in json.loads(epalm("datasets", "audiocaps", "--root", tmp_path, "--json").out)["files"]
        if place["found"] == "audio/test"
    ]
    assert (place["size"], place["passed_over"]) == (3, {"hidden": 1, "of unknown kind": 1})


@pytest.mark.parametrize(
    ("folder", "modality", "media"),
    [
        ("folder-extensions", Modality.IMAGE, ["img/a.jpg", "img/c.jfif", "img/d.jpe", "img/f.avif"]),
        ("folder-extensions", Modality.VIDEO, ["vid/base.3gp", "vid/base.mp4", "vid/base.ts"]),
        ("folder-extensions", Modality.AUDIO, ["aud/base.ac3", "aud/base.wav", "aud/base.wma", "aud/caf.caf"]),
        ("mac-leftovers", Modality.IMAGE, ["a.jpg"]),
        ("colon-in-name", Modality.IMAGE, ["photo:1.jpg", "sub/photo:2.jpg"]),
    ],
)
def test_folders_that_once_were_read_in_part(folder: str, modality: Modality, media: list[str]) -> None:
    root = shared_case(folder)
    dataset = load_dataset(str(root), modality)
    assert [sample.media for sample in dataset.samples] == media
    for name in media:
        with dataset.locate(name).open() as file:
            assert file.read() == (root / name).read_bytes()


def test_a_benchmark_of_webm_sounds() -> None:
    root = shared_case("audiocaps-webm")
    media = load_dataset(f"audiocaps:{root}", Modality.AUDIO).media(Modality.AUDIO)
    assert len(media) == 9 and all((root / name).is_file() for name in media)
