"""An encoder from outside the package: the one that docs/encoders.md shows, installed as that page says."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from epalm import plugins
from epalm.cache.store import Cache
from epalm.errors import UsageError
from epalm.extract.encoders import registry
from epalm.extract.encoders.registry import (
    Encoder,
    EncoderChoice,
    EncoderKind,
    build_encoder,
    encoder_kind,
    encoder_names,
    family,
    require_fit,
)
from epalm.extract.inputs.preprocess import Input
from epalm.extract.live import recipe_features
from epalm.extract.request import ExtractRequest
from epalm.recipes.settings import Config
from epalm.samples import Dataset, Modality
from tests.conftest import Epalm

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "encoders.md"


def _block(language: str) -> str:
    """The last of the page in that language."""
    *_, block = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def _install(folder: Path, points: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution as pip leaves it: a module, and metadata that names it."""
    info = folder / "colour_grid-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colour-grid\nVersion: 1.0\n")
    lines = [f"{name} = {where}" for name, where in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[epalm.encoders]", *lines, ""]))
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    _install(folder, tomllib.loads(_block("toml"))["project"]["entry-points"]["epalm.encoders"], monkeypatch)
    (folder / "colour_grid.py").write_text(_block("python"))
    monkeypatch.delitem(sys.modules, "colour_grid", raising=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for level in (0, 128, 255):
        Image.new("RGB", (80, 60), (level, 0, 255)).save(folder / f"{level}.png")
    return folder


@pytest.mark.usefixtures("installed")
def test_help_names_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    command = [sys.executable, "-m", "epalm", "extract", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert all(name in text for name in ("colour-grid", "timesformer"))


@pytest.mark.usefixtures("installed")
def test_a_package_adds_an_encoder(epalm: Epalm, tmp_path: Path, pictures: Path) -> None:
    assert "colour-grid" in encoder_names() and "colour_grid" not in sys.modules  # known by name, and not imported
    command = _block("bash").removeprefix("epalm ").split()
    assert epalm(*command, "--data", pictures, "--cache", tmp_path / "cache").code == 0
    (features,) = Cache(tmp_path / "cache").sets()
    assert features.spec.encoder == {"kind": "colour-grid", "version": 1}
    reader = features.open()
    rows = reader.gather(reader.rows_of(sorted(features.rows())))
    reds = rows.reshape(3, 3, 64)[:, 0].astype(np.float32)
    np.testing.assert_allclose(np.sort(reds, axis=0), np.repeat([[-1.0], [0.004], [1.0]], 64, axis=1), atol=1e-3)


@pytest.mark.usefixtures("installed")
def test_it_has_no_weights_of_the_playgrounds(tmp_path: Path) -> None:
    assert ExtractRequest(Modality.IMAGE, encoder="colour-grid", layers="all").choice().weights is None
    config = Config.model_validate({"encoder": {"kind": "colour-grid"}, "model": {"tokens": 1}})
    live = recipe_features(config, Modality.IMAGE, Dataset("playground", tmp_path, ()), "cpu")
    assert EncoderChoice.from_record(live.describe()["choice"]).weights is None


def test_options_of_pixels_are_refused_where_its_input_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Own(Input):
        modality = Modality.IMAGE

    def kind(name: str) -> EncoderKind:
        return EncoderKind((Modality.IMAGE,), lambda *_: cast(Encoder, SimpleNamespace(input=Own())))

    monkeypatch.setattr(registry, "encoder_kind", kind)
    assert build_encoder(EncoderChoice("own"), device="cpu").input == Own()
    for choice, option in (
        (EncoderChoice("own", statistics="clip"), "--statistics clip"),
        (EncoderChoice("own", resize="stretch"), "--resize stretch"),
    ):
        with pytest.raises(UsageError, match=f"has no {option}"):
            build_encoder(choice, device="cpu")


@pytest.mark.usefixtures("installed")
def test_it_is_told_from_others() -> None:
    assert require_fit(EncoderChoice("colour-grid"), Modality.IMAGE).modality is Modality.IMAGE
    with pytest.raises(UsageError, match="does not read audio"):
        require_fit(EncoderChoice("colour-grid"), Modality.AUDIO)
    assert family("colour-grid") is None
    with pytest.raises(UsageError, match="has no --tokens"):
        build_encoder(EncoderChoice("colour-grid", tokens="mean"), device="cpu")


def test_a_package_that_cannot_be_used_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"broken": "no_such_module:ENCODER", "other": "math:pi", "vit": "no_such_module:ENCODER"}
    _install(tmp_path, points, monkeypatch)
    assert [name for name in encoder_names() if name in points] == ["vit", "broken", "other"]
    for name, fault in (("broken", "cannot be loaded"), ("other", "no EncoderKind")):
        with pytest.raises(UsageError, match=fault) as caught:
            encoder_kind(name)
        assert "colour-grid" in caught.value.message
    assert Modality.IMAGE in encoder_kind("vit").modalities
    assert family("removed since") is None
