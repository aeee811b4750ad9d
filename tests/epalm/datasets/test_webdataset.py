"""Tar shards become samples whose media are read in place; what makes no sample is one message, or counted."""

import json
import tarfile
from pathlib import Path

import pytest

from epalm.datasets import load_dataset
from epalm.errors import MediaError, UsageError
from epalm.samples import Modality, Task
from tests.conftest import Epalm
from tests.shards import PLAIN, Members, special, write_tar
from tests.shared_files import shared_case

# ---- samples


def test_a_shard_is_samples_whose_media_are_read_in_place(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_tar(tmp_path / "val-0.tar", PLAIN)), Modality.IMAGE)
    first, second = dataset.samples
    assert (first.id, first.media) == ("val-0.tar/a.jpg",) * 2
    assert (first.task, first.split, first.references) == (Task.CAPTION, "val", ("a cat", "on a mat"))
    with dataset.locate(first.media).open() as one, dataset.locate(second.media).open() as two:
        assert (one.read(), two.read()) == (b"picture", b"x" * 700)
    assert dataset.locate(second.media).path == tmp_path / "val-0.tar"
    with pytest.raises(MediaError, match="in none of the shards"):
        dataset.locate("val-0.tar/c.jpg")


def test_a_data_set_of_files_locates_them_below_its_root(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    dataset = load_dataset(str(tmp_path))
    assert dataset.locate("a.png").path == tmp_path / "a.png"
    with pytest.raises(MediaError, match="leads outside"):
        dataset.locate("../a.png")


def test_json_has_the_keys_of_the_generic_form(tmp_path: Path) -> None:
    question = {"id": "q1", "prompt": "what?", "answers": {"cat": 1.0}, "split": "test", "url": "http://h/x"}
    other = {"id": "q2", "prompt": "where?", "raw_answers": ["mat", "mat"], "references": ["r"]}
    members: Members = [
        ("a.wav", b"sound"),
        ("a.json", json.dumps([question, other]).encode()),
        ("dir.1/b.flac", b"sound"),
        ("dir.1/b.json", json.dumps({"caption": "a beep", "key": "b", "width": None}).encode()),
        ("dir.1/b.cls", b"3"),
        ("c.wav", b""),
        ("c.json", json.dumps({"caption": ["one", "two"], "task": None}).encode()),
    ]
    one, two, three, four = load_dataset(str(write_tar(tmp_path / "s.tar", members))).samples
    assert (one.id, one.task, one.prompt, dict(one.answers), one.split) == ("q1", "qa", "what?", {"cat": 1.0}, "test")
    assert (two.answers, two.references, two.split, two.media) == ({"mat": 1.0}, ("r",), "train", one.media)
    assert (three.task, three.references, three.media) == ("caption", ("a beep",), "s.tar/dir.1/b.flac")
    assert four.references == ("one", "two")


def test_a_sample_of_two_modalities_is_one_of_each(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("a.MP4", b"1"), ("a.txt", b"hi"), ("a.wav", b"22")])
    (clip,) = load_dataset(str(path), Modality.VIDEO).samples
    (sound,) = load_dataset(str(path), Modality.AUDIO).samples
    assert (clip.media, sound.media) == ("s.tar/a.MP4", "s.tar/a.wav")
    assert clip.references == sound.references == ("hi",)
    with pytest.raises(UsageError, match="no image media; it has audio, video"):
        load_dataset(str(path), Modality.IMAGE)


def test_split_of_name_or_folder(tmp_path: Path) -> None:
    for folder in ("test", "validation", "other"):
        (tmp_path / folder).mkdir()
        for name in ("0.tar", "train-1.tar"):
            write_tar(tmp_path / folder / name, PLAIN[:1])
    samples = load_dataset(str(tmp_path)).samples
    assert [(sample.media, sample.split) for sample in samples] == [
        ("other/0.tar/a.jpg", "train"),
        ("other/train-1.tar/a.jpg", "train"),
        ("test/0.tar/a.jpg", "test"),
        ("test/train-1.tar/a.jpg", "train"),
        ("validation/0.tar/a.jpg", "val"),
        ("validation/train-1.tar/a.jpg", "train"),
    ]


# ---- how shards are named


def test_ranges_patterns_and_folders_name_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").mkdir()
    for number in range(8, 12):
        write_tar(tmp_path / "s" / f"train-{number:03}.tar", [(f"{number}.jpg", b"x")])
    (tmp_path / "s" / "stats.json").touch()  # what packers leave beside shards
    monkeypatch.chdir(tmp_path)
    for spec in ("s", "s/*.tar", "s/train-{008..011}.tar", "s/train-0{08,09,10,11}.tar", f"{tmp_path}/**/*.tar"):
        dataset = load_dataset(spec)
        assert [sample.media for sample in dataset.samples] == [
            f"train-{number:03}.tar/{number}.jpg" for number in range(8, 12)
        ], spec
        assert dataset.root.resolve() == tmp_path / "s"


def test_two_folders_with_shards_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "0.tar", PLAIN)
    dataset = load_dataset(f"{tmp_path}/{{b,a}}/0.tar")
    assert [sample.media for sample in dataset.samples][::2] == ["b/0.tar/a.jpg", "a/0.tar/a.jpg"]
    assert dataset.locate("a/0.tar/b.jpg").path == tmp_path / "a/0.tar"


def test_a_name_with_braces_or_brackets_is_a_name_first(tmp_path: Path) -> None:
    for name in ("a{0..1}.tar", "a[0].tar", "a{x}.tar"):
        assert load_dataset(str(write_tar(tmp_path / name, PLAIN))).samples[0].media == f"{name}/a.jpg"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none.tar", "there is no none.tar"),
        ("*.tar", r"there is no \*.tar"),
        ("{0..9}.tar", "there is no 0.tar and 9 more"),
        ("{0..99999999999}.tar", "no range of up to"),
        ("{9..0}.tar", "no range of up to"),
    ],
)
def test_shards_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_dataset(spec)


def test_a_folder_of_media_stays_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", PLAIN)
    (tmp_path / "a.png").touch()
    dataset = load_dataset(str(tmp_path))
    assert [sample.media for sample in dataset.samples] == ["a.png"]
    assert dataset.passed_over == {"tar shards": 1}
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar" / "b.png").touch()
    assert [sample.media for sample in load_dataset(str(tmp_path / "folder.tar")).samples] == ["b.png"]


def test_a_folders_links_to_shards_elsewhere_have_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.tar").symlink_to(write_tar(tmp_path / "real.tar", PLAIN))
    with pytest.raises(MediaError, match="link that leads outside") as caught:
        load_dataset(str(tmp_path / "s"))
    assert "--follow-links" in str(caught.value.hint)
    assert load_dataset(f"follow-links:{tmp_path / 's'}").samples[0].media == "0.tar/a.jpg"
    assert load_dataset(f"{tmp_path}/s/*.tar").samples[0].media == "0.tar/a.jpg"


# ---- what is no sample


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    members: Members = [
        *PLAIN,
        (special("l.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("h.jpg", tarfile.LNKTYPE, "a.jpg"), b""),
        (special("p.jpg", tarfile.FIFOTYPE), b""),
        (special("c.jpg", tarfile.CHRTYPE), b""),
        ("/abs.jpg", b""),
        ("x/../../up.jpg", b""),
        ("control\x01.jpg", b""),
        ("._a.jpg", b""),
        (".jpg", b""),
        ("a.seg.png", b""),
        ("alone.txt", b""),
        ("weights.pth", b""),
        ("README", b""),
    ]
    dataset = load_dataset(str(write_tar(tmp_path / "s.tar", members)))
    assert [sample.media for sample in dataset.samples] == ["s.tar/a.jpg", "s.tar/b.jpg"]
    assert dataset.passed_over == {
        "linked": 2,
        "of names that are no path": 3,
        "hidden": 2,
        "of samples without a medium": 1,
        "of unknown kind": 5,
    }
    assert sum(dataset.passed_over.values()) == len(members) - len(PLAIN)


def test_names_that_are_not_utf_8_are_names(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", [("\udcff.jpg", b"x"), *PLAIN], tarfile.GNU_FORMAT)
    dataset = load_dataset(str(path))
    assert [sample.media for sample in dataset.samples] == ["s.tar/\udcff.jpg", "s.tar/a.jpg", "s.tar/b.jpg"]
    with dataset.locate("s.tar/\udcff.jpg").open() as file:
        assert file.read() == b"x"


def test_a_packers_own_values_are_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = {"id": 1.5, "task": "itm", "answers": ["a"], "prompt": 3, "raw_answers": {}, "split": 1}
    members: Members = [
        *((f"{n}.jpg", b"x") for n in range(3)),
        *((f"{n}.json", json.dumps({"id": n, "caption": f"cap {n}"}).encode()) for n in range(2)),
        ("2.json", json.dumps({**foreign, "caption": "cap 2"}).encode()),
    ]
    samples = load_dataset(str(write_tar(tmp_path / "test.tar", members))).samples
    assert [(s.id, s.task, s.split, s.references) for s in samples] == [
        ("0", "caption", "test", ("cap 0",)),
        ("1", "caption", "test", ("cap 1",)),
        ("test.tar/2.jpg", "caption", "test", ("cap 2",)),
    ]
    assert (
        "'id' of 1, 'task' of 1, 'split' of 1, 'prompt' of 1, 'answers' of 1, 'raw_answers' of 1"
        in capsys.readouterr().err
    )
    for name in ("intid", "foreign"):
        samples = load_dataset(str(shared_case("shard-json-ids") / f"{name}.tar")).samples
        assert [s.references for s in samples] == [("cap 0",), ("cap 1",), ("cap 2",)]
        assert [s.id for s in samples] == (["0", "1", "2"] if name == "intid" else [s.media for s in samples])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b""), ("a.txt", b"\xff")], "a.txt is not UTF-8"),
        ([("a.jpg", b""), ("a.json", b"{")], "s.tar, 'a': not JSON"),
        ([("a.jpg", b""), ("a.json", b"[" * 100_000)], "not JSON"),
        ([("a.jpg", b""), ("a.json", b"9" * 100_000)], "not JSON"),
        ([("a.jpg", b""), ("a.json", b"3")], "in place of an object"),
        ([("a.jpg", b""), ("a.json", b"[]")], "in place of an object"),
        ([("a.jpg", b""), ("a.json", b'{"answers": {"x": 2}}')], "'answers' scores 'x' with 2"),
        ([("a.jpg", b""), ("a.json", b'{"caption": 3}')], "'references' must be a list"),
        ([("a.jpg", b""), ("a.txt", b"x" * (2 << 20))], "a.txt has 2,097,152 bytes"),
        ([("a.jpg", b""), ("a.jpeg", b"")], "s.tar: a.jpeg is the second image of its sample"),
        (
            [("a.jpg", b"1"), ("b.jpg", b"2"), ("./a.jpg", b"3")],
            "a.jpg is the second image of its sample",
        ),
        (
            [("a.jpg", b""), ("b.jpg", b""), *((f"{n}.json", b'{"id": "1"}') for n in "ab")],
            "s.tar, 'b': id '1' is used twice in split 'train'",
        ),
        ([("a.txt", b"")], "holds no media file and no tar shard with one"),
        ([], "holds no media file and no tar shard with one"),
    ],
)
def test_a_fault_is_one_message(tmp_path: Path, members: Members, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_dataset(str(write_tar(tmp_path / "s.tar", members)))


# ---- in the pipeline


def test_a_shard_gives_the_rows_of_its_files(
    tmp_path: Path, worlds: dict[Modality, Path], epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for modality, world in worlds.items():
        samples = [sample for sample in load_dataset(str(world)).samples if sample.task is Task.CAPTION]
        members: list[tuple[str | tarfile.TarInfo, bytes]] = []
        for sample in samples:
            metadata = {"id": sample.id, "split": sample.split, "references": sample.references}
            name = Path(sample.media)
            members += [
                (str(name), (world / name).read_bytes()),
                (f"{name.with_suffix('.json')}", json.dumps(metadata).encode()),
            ]
        shard = write_tar(tmp_path / f"{modality}.tar", members)
        words = ("extract", "-m", modality, "--weights", "playground", "--json", "--workers", 1, "--data")
        first = epalm(*words, shard)
        assert first.code == 0, first.err
        assert json.loads(first.out)["encoded"] == len(samples)
        again = epalm(*words, world)  # the same bytes, so nothing is left to do
        assert json.loads(again.out)["encoded"] == 0, again.err
        train = ("--recipe", "playground", "--set", 'data.tasks=["caption"]', "--set", "optim.max_steps=2")
        trained = epalm("train", "--from-cache", "-m", modality, "--data", shard, *train, "--json")
        assert trained.code == 0, trained.err
