"""A trained model in Python and `epalm predict`: media in every form, and models that have moved."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import epalm as package
from epalm.errors import MediaError, UsageError
from epalm.evaluate.loaded_model import LoadedModel, as_files
from epalm.extract.media.limits import Limits
from epalm.extract.media.video import read_frames
from epalm.playground import weights_folder
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.scored_run import SHORT

QUESTIONS = ["what color is it?", "how many shapes are there in the whole picture?"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, extracted_pictures: Path) -> Path:
    """A folder with the language model in `opt`, pictures in `trial`, and the run `runs/a` that names `../home/opt`."""
    from epalm.cli.app import app

    folder = tmp_path_factory.mktemp("away") / "home"
    shutil.copytree(extracted_pictures, folder / "trial")
    shutil.copytree(weights_folder("lm"), folder / "opt")
    live = ("-m", "image", "--data", "trial/world", "--set", "encoder.weights=trial/weights", "--set", "model.tokens=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        app(
            ["train", *live, "--runs", "runs", "--run", "a", *SHORT, "--set", "lm.name=../home/opt"],
            standalone_mode=False,
        )
        app(["export", "runs/a", "exported"], standalone_mode=False)
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> LoadedModel:
    return package.load(home / "runs/a", device="cpu")


@pytest.fixture
def pictures(home: Path) -> list[Path]:
    return sorted((home / "trial/world").rglob("*.jpg"))[:3]


def test_a_list_is_answered_as_its_media_are_one_by_one(model: LoadedModel, pictures: list[Path]) -> None:
    for one in QUESTIONS:
        assert model.answer(pictures, one) == [model.answer(picture, one) for picture in pictures]
    pairs = zip(pictures, [*QUESTIONS, "is it?"], strict=True)
    assert model.answer(pictures, [*QUESTIONS, "is it?"]) == [model.answer(*pair) for pair in pairs]
    assert model.caption(pictures) == [model.caption(picture) for picture in pictures]
    assert model.caption([]) == [] and isinstance(model.caption(str(pictures[0])), str)


def test_every_form_of_a_picture_is_the_same_picture(model: LoadedModel, pictures: list[Path], tmp_path: Path) -> None:
    with Image.open(pictures[0]) as opened:
        opened.load()
    forms = [pictures[0], str(pictures[0]), pictures[0].read_bytes(), opened, np.asarray(opened.convert("RGB"))]
    rows = model._encode(forms)
    for row in rows:
        _same(row, rows[0])
    turned, exif = opened.resize((24, 16)), Image.Exif()
    exif[0x112] = 6
    for mode in ("L", "LA", "P", "1", "RGBA", "I;16", "RGB"):
        turned.convert("L" if mode == "I;16" else mode).convert(mode).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as one:
            of_file, of_picture = model._encode([tmp_path / "a.png", one])
        _same(of_file, of_picture, mode)


def _same(row: object, other: object, note: str = "") -> None:
    """Features of the same pixels; where in a batch they are computed may decide the last bits."""
    assert isinstance(row, np.ndarray) and isinstance(other, np.ndarray), note
    np.testing.assert_allclose(row, other, rtol=0, atol=1e-5 * np.abs(other).max(), err_msg=note)


def test_clips_and_waveforms_in_memory_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (5, 18, 22, 3), np.uint8)
    with as_files([clip], Modality.VIDEO) as ((_, file),):
        kept = read_frames(file, lambda total: [list(range(total))], lambda _, frame: frame.copy(), Limits())
    np.testing.assert_array_equal(np.stack(kept[0]), clip)
    for dtype in (np.float32, np.float64):
        sound = rng.normal(size=(1000, 2)).astype(dtype)
        with as_files([(sound, 8000)], Modality.AUDIO) as ((_, file),):
            values, rate = soundfile.read(file.path, dtype=dtype.__name__)
        assert rate == 8000 and (values == sound).all()


def _wrong() -> Iterator[tuple[Modality, Any]]:
    pixels, sound = np.zeros((4, 5, 3), np.uint8), np.zeros(100, np.float32)
    for modality in Modality:
        yield from ((modality, one) for one in (None, 3, {}, {"array": sound}, object(), sound, (sound, "16000")))
    for axes in (pixels[0], pixels[..., :2], pixels.swapaxes(0, 2), pixels[:0], pixels.astype(np.float32)):
        yield from ((modality, axes) for modality in (Modality.IMAGE, Modality.VIDEO))
    yield Modality.VIDEO, pixels
    yield Modality.IMAGE, pixels[None]
    yield Modality.AUDIO, pixels
    yield Modality.VIDEO, Image.new("RGB", (4, 4))
    wrong = (sound.astype(np.int16), sound[:0], np.zeros((2, 1000), np.float32), np.zeros((2, 2, 2), np.float32))
    yield from ((Modality.AUDIO, (one, 16000)) for one in wrong)
    yield from ((Modality.AUDIO, (sound, rate)) for rate in (0, -1, 16000.5, None))


@pytest.mark.parametrize(("modality", "medium"), _wrong())
def test_what_is_no_medium_is_one_error_that_says_what_is(modality: Modality, medium: Any) -> None:
    with pytest.raises(UsageError, match="medium 0 is") as raised, as_files([medium], modality):
        pass
    assert raised.value.hint and "a path, bytes" in raised.value.hint


def test_wrong_words_are_one_error(model: LoadedModel, pictures: list[Path]) -> None:
    one = pictures[0]
    for wrong in ({"num_beams": 0}, {"num_beams": "3"}, {"max_length": 1}, {"temperature": 1.0}):
        with pytest.raises(UsageError):
            model.caption(one, **wrong)
    with pytest.raises(TypeError, match="beams"):
        model.caption(one, beams=2)
    for question in ("", " ", [], ["a", "b"], [3], "caf\udce9?"):  # the last as Latin-1 comes from the command line
        with pytest.raises(UsageError, match="question"):
            model.answer(one, question)  # type: ignore[arg-type]
    for missing in ("nope.png", [one, "nope.png"]):
        with pytest.raises(MediaError, match=r"nope\.png: the file does not exist"):
            model.caption(missing)
    assert model.caption(one, num_beams=1, max_length=4) != model.caption(one, num_beams=3, max_length=30)


def test_models_are_found_from_anywhere_or_named_anew(
    home: Path, model: LoadedModel, pictures: list[Path], epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = model.caption(pictures[0])
    shutil.copytree(home / "runs", tmp_path / "runs")
    shutil.copytree(home / "exported", tmp_path / "exported")
    for run in ("runs/a", "exported"):
        assert epalm("predict", pictures[0], "--run", run).out.strip() == expected
    scored = ("score", "--run", "runs/a", "--data", home / "trial/world", "--metrics", "exact match", "--limit", 1)
    assert epalm(*scored).code == 0
    for run in ("runs/a", "exported"):  # as if trained where neither model is any more
        for name in ("config.toml", "inputs.json"):
            file = tmp_path / run / name
            file.write_text(file.read_text().replace(str(home), "/nowhere"))
    places = ("--lm", home / "opt", "--weights", home / "trial/weights")
    for words in (("predict", pictures[0], "--run", "exported"), scored):
        for some in ((), places[:2], places[2:]):
            done = epalm(*words, *some)
            assert done.code == 1 and done.err.count("error: ") == 1, done.err
            assert ("--lm" if "--lm" not in some else "--weights") in done.err
        assert epalm(*words, *places).code == 0
    loaded = package.load("exported", lm=home / "opt", weights=str(home / "trial/weights"))
    assert loaded.caption(pictures[0]) == expected
    shutil.copytree(home / "opt", tmp_path / "other")
    _change(tmp_path / "other/model.safetensors")
    with pytest.raises(UsageError, match="other weights"):
        package.load("exported", lm="other", weights=home / "trial/weights")


def _change(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1}, weights, metadata={"format": "pt"})


def test_many_files_are_answered(home: Path, pictures: list[Path], epalm: Epalm) -> None:
    run = ("--run", home / "runs/a")
    one = epalm("predict", pictures[0], QUESTIONS[0], *run).out.strip()
    for words in ((*pictures, QUESTIONS[0]), (QUESTIONS[0], *pictures), (*pictures, "-q", QUESTIONS[0])):
        done = epalm("predict", *words, *run, "--json")
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert [line["file"] for line in lines] == [str(picture) for picture in pictures]
        assert {line["question"] for line in lines} == {QUESTIONS[0]} and lines[0]["text"] == one
    table = epalm("predict", *pictures, *run).out
    assert all(str(picture) in table for picture in pictures)


def test_a_file_that_cannot_be_read_leaves_the_others(
    home: Path, pictures: list[Path], epalm: Epalm, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = epalm("predict", pictures[0], tmp_path / "bad.png", pictures[1], "--run", home / "runs/a", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 1 and done.err.count("error: ") == 1 and "bad.png: the picture" in done.err
    assert [line["text"] is None for line in lines] == [False, True, False] and "picture" in lines[1]["error"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nope.png",), "nope.png: there is no such file"),
        (("a.png", "nope.png"), "nope.png: there is no such file"),
        (("a.png", "nope.HEIC"), "nope.HEIC: there is no such file"),
        (("a.png", "images/nope"), "images/nope: there is no such file"),
        (("a.png", "what is it?", "-q", "why?"), "what is it?: there is no such file"),
        (("a.png", "what", "is", "it?"), "3 questions"),
        (("what is it?",), "no file"),
        (("-q", "what is it?"), "no file"),
        (("a.png", "-q", " "), "the question is empty"),
        (("a.png", ""), "the question is empty"),
        (("a.png", "b.wav"), "image and audio"),
        (("folder",), "does not say what it is"),
        (("a.xyz",), "does not say what it is"),
    ],
)
def test_arguments_that_are_no_files_are_blamed(
    words: tuple[str, ...], says: str, epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.wav", "a.xyz"):
        Path(name).write_bytes(b"x")
    Path("folder").mkdir()
    done = epalm("predict", *words)
    assert done.code == 1 and says in done.err and done.err.count("error: ") == 1, done.err
