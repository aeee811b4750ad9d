"""From media to answers with encoders of other families, as typed: extract, train, score, export, predict."""

from pathlib import Path

import numpy as np
import pytest

import epalm as package
from epalm.cache.store import Cache
from epalm.media import MediaFile
from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.extract.encoders.families import FAMILIES
from tests.scored_run import SHORT


@pytest.mark.parametrize(
    ("name", "tokens", "rule"),
    [
        ("SigLIP", None, "mean over positions from 0 on"),
        ("timm DINOv3", "mean", "from 5 on"),
        ("timm EVA-02", None, ""),
    ],
)
def test_an_encoder_goes_all_the_way(
    name: str, tokens: str | None, rule: str, epalm: Epalm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    family = FAMILIES[name]
    family.save(Path("weights"))
    generate_playground(Path("world"), Modality.IMAGE, counts=(3, 0, 2))
    words: tuple[object, ...] = ("-m", "image", "--data", "world", "--encoder", family.kind, "--weights", "weights")
    words += ("--layers", "last:3", "--workers", 0, *(("--tokens", tokens) if tokens else ()))
    done = epalm("extract", *words)
    assert done.code == 0, done.err
    assert done.err.count("no [CLS] token") == (tokens is None and not family.cls)
    (features,) = Cache(".epalm/cache").sets()
    assert rule in features.spec.encoder["token"]
    assert epalm("extract", *words, "--json").out.count('"hits": 5')

    words = (
        "--from-cache",
        "-m",
        "image",
        "--data",
        "world",
        "--runs",
        "runs",
        "--run",
        "a",
        "--set",
        "model.tokens=3",
    )
    done = epalm("train", *words, *SHORT)
    assert done.code == 0, done.err
    assert "canary" in done.err and "not checked" not in done.err
    assert epalm("score", "--run", "runs/a", "--device", "cpu").code == 0
    assert epalm("export", "runs/a", "exported").code == 0
    picture = next(Path("world").rglob("*.jpg"))
    question = "what color is it?"
    done = epalm("predict", picture, question, "--run", "exported", "--device", "cpu")
    model = package.load(Path("exported"), device="cpu")
    assert done.out.strip() == model.answer(picture, question)
    reader, digest = features.open(), MediaFile(picture).digest()
    stored = reader.gather(reader.rows_of([str(digest)]))[0]
    (row,) = model._encode([picture])
    assert isinstance(row, np.ndarray)
    np.testing.assert_allclose(row, stored.astype(np.float32), atol=2e-2)
