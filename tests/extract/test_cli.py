"""`epalm extract` as it is typed: what it says, what it exits with, what it leaves."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from epalm.cache.store import Cache
from epalm.cli.app import app
from epalm.cli.extract import extract
from epalm.cli.options import takes_requests
from epalm.errors import EpalmError, UsageError
from epalm.extract import spec_builder
from epalm.extract.encoders.registry import EncoderChoice
from epalm.playground.generate import COUNTS
from epalm.samples import Modality
from tests.conftest import Epalm, save_small_vit
from tests.extract.encoders.families import FAMILIES

TRUNCATED = 200  # bytes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_vit(tmp_path_factory.mktemp("vit"), depth=7)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.effect_noise((40, 30), 50 + number).save(folder / f"{number}.jpg")
    return folder


def _extract(tmp_path: Path, *words: object) -> Result:
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(takes_requests(extract))
    arguments = ["--cache", tmp_path / "cache", "--workers", 0, *words]
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_mean_that_nobody_asked_for_is_said_once(tmp_path: Path, photos: Path) -> None:
    weights = FAMILIES["timm SigLIP"].save(tmp_path / "siglip")
    words = ("--modality", "image", "--data", photos, "--weights", weights, "--layers", "all")
    done = _extract(tmp_path, *words)
    assert done.stderr.count("no [CLS] token") == 1
    (features,) = Cache(tmp_path / "cache").sets()
    assert features.spec.encoder["tokens"] == "mean" and features.spec.row_shape == (3, 1, 48)
    asked = _extract(tmp_path, *words, "--tokens", "mean", "--json")
    assert json.loads(asked.stdout)["hits"] == 5 and "no [CLS] token" not in asked.stderr


def test_a_folder_of_pictures(tmp_path: Path, photos: Path, weights: Path) -> None:
    words = ("--modality", "image", "--data", photos, "--weights", weights)
    planned = json.loads(_extract(tmp_path, *words, "--plan", "--json").stdout)
    assert (planned["to_encode"], planned["bytes"]) == (5, 5 * 6 * 24 * 2)
    assert not (tmp_path / "cache" / "sets").exists()
    done = _extract(tmp_path, *words)
    assert done.exit_code == 0
    assert "5 encoded" in done.stderr
    assert "vit" in done.stderr
    summary = json.loads(_extract(tmp_path, *words, "--json").stdout)
    assert (summary["hits"], summary["encoded"], summary["bad"]) == (5, 0, 0)
    latest = Cache(tmp_path / "cache").latest("image")
    assert latest
    assert (latest.set, latest.layers, latest.data) == (planned["set"], (1, 2, 3, 4, 5, 6), str(photos))
    assert Cache(tmp_path / "cache").find(planned["set"]).spec.layers == (1, 2, 3, 4, 5, 6)


def test_a_plan_names_the_setting_in_which_a_set_with_the_same_media_differs(
    tmp_path: Path, photos: Path, weights: Path
) -> None:
    words = ("--modality", "image", "--data", photos, "--weights", weights)
    planned = json.loads(_extract(tmp_path, *words, "--plan", "--json").stdout)
    assert planned["other_setting"] == []
    _extract(tmp_path, *words)
    other = _extract(tmp_path, *words, "--dtype", "float32", "--plan", "--json")
    assert json.loads(other.stdout)["other_setting"] == ["stored_dtype float16 → float32"]
    assert "stored_dtype" in _extract(tmp_path, *words, "--dtype", "float32", "--plan").stdout
    (photos / "new.jpg").write_bytes((photos / "0.jpg").read_bytes() + b"another")
    assert json.loads(_extract(tmp_path, *words, "--plan", "--json").stdout)["other_setting"] == []  # some are hits


def test_rows_of_another_version_of_the_code_are_named_and_kept(
    tmp_path: Path, photos: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the plan, before rows are made again, and by `cache why`; a version of another modality changes nothing."""
    words = ("--modality", "image", "--data", photos, "--weights", weights)
    now = spec_builder._VERSIONS["image"]
    with monkeypatch.context() as earlier:
        earlier.setitem(spec_builder._VERSIONS, "image", now - 1)
        _extract(tmp_path, *words)
    change = f"version of the image extraction code {now - 1} → {now}"
    planned = _extract(tmp_path, *words, "--plan", "--json")
    assert json.loads(planned.stdout)["other_setting"] == [change]
    assert change in " ".join(_extract(tmp_path, *words).stderr.split())
    why = CliRunner().invoke(
        app, ["cache", "why", json.loads(planned.stdout)["set"], "--cache", str(tmp_path / "cache"), "--json"]
    )
    assert json.loads(why.stdout)["inputs"] == [change]
    assert len(Cache(tmp_path / "cache").set_names()) == 2
    monkeypatch.setitem(spec_builder._VERSIONS, "audio", spec_builder._VERSIONS["audio"] + 1)
    again = json.loads(_extract(tmp_path, *words, "--json").stdout)
    assert (again["hits"], again["encoded"]) == (5, 0)


def test_bad_media_decide_the_exit_code_and_the_ledger_is_named(tmp_path: Path, photos: Path, weights: Path) -> None:
    (photos / "0.jpg").write_bytes((photos / "0.jpg").read_bytes()[:TRUNCATED])
    done = _extract(tmp_path, "-m", "image", "--data", photos, "--weights", weights)
    assert done.exit_code == 3
    assert "4 encoded, 1 bad" in done.stderr
    assert "ledger.jsonl" in done.stderr and "--retry-bad" not in done.stderr
    again = _extract(tmp_path, "-m", "image", "--data", photos, "--weights", weights)
    assert "1 of them were known, and not tried again: --retry-bad" in " ".join(again.stderr.split())


def test_random_weights_need_no_download(tmp_path: Path, photos: Path) -> None:
    words = ("--data", photos, "--weights", "vit_tiny_patch16_224", "--random-weights", "--layers", "10,11")
    done = _extract(tmp_path, "-m", "image", *words, "--json")
    assert done.exit_code == 0
    assert "random weights (seed 0)" in done.stderr
    name = json.loads(done.stdout)["set_name"]
    assert Cache(tmp_path / "cache").find(name).to_dask().shape == (5, 1, 2, 1, 192)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("-m", "image", "--encoder", "ast"), "does not read image"),
        (("-m", "image", "--encoder", "clip"), "there is no encoder"),
        (("-m", "image", "--layers", "last:8"), "out of range"),
        (("-m", "image", "--layers", "six"), "no known form"),
        (("-m", "image", "--dtype", "int8"), "not stored"),
        (("-m", "image", "--device", "toaster"), "cannot be used"),
        (("-m", "image", "--frames", "4"), "no --frames"),
        (("-m", "audio"), "no audio media"),
    ],
)
def test_wrong_options_are_one_message(
    tmp_path: Path, photos: Path, weights: Path, words: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(EpalmError, match=fault) as error:
        _extract(tmp_path, "--data", photos, "--weights", weights, *words)
    assert isinstance(error.value, UsageError)
    assert error.value.hint


def test_a_seed_that_torch_does_not_take_is_blamed_on_the_option(tmp_path: Path, photos: Path) -> None:
    words = ("-m", "image", "--data", photos, "--random-weights", "--seed")
    done = _extract(tmp_path, *words, 2**64)
    assert done.exit_code == 2 and "--seed" in done.stderr
    assert _extract(tmp_path, *words, 2**64 - 1, "--plan").exit_code == 0


def test_a_data_file_with_a_wrong_column(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "a.csv").write_text("picture,modality,media,task,split\nx,image,x,caption,test\n")
    with pytest.raises(UsageError, match="picture"):
        _extract(tmp_path, "-m", "image", "--data", tmp_path / "a.csv", "--weights", weights)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, photos: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from epalm.extract import stream

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream.Stream, "go", interrupted)
    monkeypatch.setattr(sys, "argv", ["epalm", "extract", "-m", "image", "--data", "my photos"])
    done = _extract(tmp_path, "-m", "image", "--data", photos, "--weights", weights)
    assert done.exit_code == 130
    assert "To go on: epalm extract -m image --data 'my photos'" in done.stderr


def test_the_set_records_how_to_build_its_encoder_again(tmp_path: Path, photos: Path, weights: Path) -> None:
    done = _extract(tmp_path, "-m", "image", "--data", photos, "--weights", weights, "--json")
    recorded = Cache(tmp_path / "cache").find(json.loads(done.stdout)["set_name"]).recorded
    record = next(part for part in (recorded, *recorded.values()) if "encoder" in part)
    expected = EncoderChoice("vit", str(weights), modality=Modality.IMAGE)
    assert EncoderChoice.from_record(record) == expected


def test_the_playground_is_used_and_said(tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed exactly so, in an empty folder, with a smaller world."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(COUNTS, Modality.IMAGE, (4, 1, 2))
    done = epalm("extract", "--modality", "image")
    assert done.code == 0, done.err
    assert "data: the playground" in done.err and "7 image media: 0 in the cache already, 7 encoded" in done.err
    assert len(Cache(".epalm/cache").set_names()) == 1
